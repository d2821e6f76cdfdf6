"""Another service /64 for a cluster that runs (ADR 0025): what becomes of its record, and who changes it.

    serve A  ->  A, opening B  ->  B, closing A  ->  serve B
                     |   ^             |
                     v   |             v
                 A, closing B      B, opening A       turned back: ``renumber A`` again

Nothing moves: the low 64 bits of every address stay.  While there are two prefixes nodes accept and routers
route both (``ClusterRecord.networks``).  Clients are told ``service`` with its ``serial``, and believe the
highest one.

An operator begins and turns back; each step after that is the coordinator's, by compare-and-set:

    switch    every worker that owns something answers at B, so that its addresses are accepted and routed
    withdraw  the time is over, told by the coordinator's own clock since it saw the switch, and no worker
              that answers tells clients an earlier serial

Whoever succeeds a coordinator counts anew from what its record says is left: that can make the time
longer, never shorter.  No wall clock is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv6Network

from ssastore.core.cluster import CLOSING, CLUSTER_KEY, OPENING, ClusterRecord, OtherPrefix, check_nodes
from ssastore.core.clusterreading import read_nodes
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.errors import ConfigError
from ssastore.limits import RENUMBER_NOTE_S, RENUMBER_TTL_S

log = logging.getLogger(__name__)

_NAMED_MAX = 8
"Nodes that are named of those that hold a step up."

Heard = Callable[[IPv6Network], Awaitable[Mapping[str, int | None]]]
"""By node that owns something: the lowest serial that its workers tell, asked at their addresses in a
prefix; None: one of them does not answer there."""


# -- the record: pure -------------------------------------------------------------------------------


def renumbered(record: ClusterRecord, wanted: IPv6Network, ttl_s: int | None) -> ClusterRecord:
    """The record when an operator wants a prefix; the same when it is on its way there, or there.

    ``ttl_s``: how long the former one stays; None: as it is, else RENUMBER_TTL_S.

    Raises:
        ConfigError: it is on its way to another one.
    """
    other = record.other
    if other is None:
        if wanted == record.network:
            return record
        if record.sites:
            raise ConfigError(
                "a cluster of several sites is not renumbered: make it one first (ssastore sites)"
            )
        begun = OtherPrefix(str(wanted), OPENING, RENUMBER_TTL_S if ttl_s is None else ttl_s)
        return replace(record, other=begun)
    if wanted not in record.networks:
        target, origin = other.service, record.service
        if other.phase == CLOSING:
            target, origin = origin, target
        raise ConfigError(
            f"the cluster is on its way from {origin} to {target}: wait until that is done "
            f"(ssastore renumber shows it), or go back first with: ssastore renumber {origin}"
        )
    left_s = other.left_s if ttl_s is None else ttl_s
    if wanted == other.network:
        # From CLOSING: turned back. Nodes may have withdrawn some of it by then, so it is confirmed anew.
        return replace(record, other=replace(other, phase=OPENING, left_s=left_s))
    if other.phase == CLOSING:
        return replace(record, other=replace(other, left_s=left_s))
    # Turned back before the switch. Who believes in the other prefix already is told as well.
    closing = OtherPrefix(other.service, CLOSING, left_s)
    return replace(record, serial=record.serial + 1, other=closing)


def switched(record: ClusterRecord) -> ClusterRecord:
    """Every node answers at the other prefix: from now on it is the one that clients are told."""
    other = record.other
    assert other is not None and other.phase == OPENING
    former = OtherPrefix(record.service, CLOSING, other.left_s)
    return replace(record, service=other.service, serial=record.serial + 1, other=former)


def withdrawn(record: ClusterRecord) -> ClusterRecord:
    """Nobody needs the former prefix any more."""
    assert record.other is not None and record.other.phase == CLOSING
    return replace(record, other=None)


def waiting(record: ClusterRecord, names: list[str], left_s: int) -> ClusterRecord:
    """With what is to be said meanwhile."""
    assert record.other is not None
    return replace(record, other=replace(record.other, waits_for=tuple(names[:_NAMED_MAX]), left_s=left_s))


def _is_note(before: ClusterRecord, after: ClusterRecord) -> bool:
    """Whether two records differ in nothing but the time that is left."""
    if before.other is None or after.other is None:
        return False
    return replace(before, other=replace(before.other, left_s=after.other.left_s)) == after


# -- what an operator orders ------------------------------------------------------------------------


async def order_renumbering(
    control: ControlStore, wanted: IPv6Network, ttl_s: int | None = None
) -> ClusterRecord:
    """Let the cluster be at a prefix; its record then. Given again it changes nothing but the time.

    Raises:
        ConfigError: the cluster has nodes there, or is on its way elsewhere.
        Unavailable: the control store does not answer.
    """
    while True:
        item, record = await _read(control)
        changed = renumbered(record, wanted, ttl_s)
        check_nodes(changed.networks, await read_nodes(control))
        if changed == record or await _write(control, item, changed):
            return changed


async def _read(control: ControlStore) -> tuple[Item, ClusterRecord]:
    item = await control.get(CLUSTER_KEY)
    if item is None:
        raise ConfigError("the control store holds no cluster: form one first, or correct its address")
    return item, ClusterRecord.decode(item.value)


async def _write(control: ControlStore, item: Item, record: ClusterRecord) -> int | None:
    return await control.transact(
        [Compare(CLUSTER_KEY, item.revision)], [Write(CLUSTER_KEY, record.encode())]
    )


# -- the coordinator's part -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Closing:
    """A record whose time this process counts."""

    revision: int
    since_s: float


class Renumberer:
    """Takes the steps that follow. ``is_due`` is asked first: it costs nothing."""

    def __init__(self, known: Callable[[], ClusterRecord], heard: Heard) -> None:
        """``known``: the cluster's record, as it is followed."""
        self._known = known
        self._heard = heard
        self._closing: _Closing | None = None

    @property
    def is_due(self) -> bool:
        """Whether there are two prefixes, as far as is known."""
        return self._known().other is not None

    async def round(self, control: ControlStore) -> None:
        """Take the next step, if it can be taken now. As the coordinator: ``control`` is guarded.

        Raises:
            Deposed, Unavailable, ConfigError: it could not be done now.
        """
        item, record = await _read(control)
        other = record.other
        if other is None:
            return
        if other.phase == OPENING:
            heard = await self._heard(other.network)
            silent = sorted(name for name, serial in heard.items() if serial is None)
            changed = waiting(record, silent, other.left_s) if silent else switched(record)
        else:
            changed = await self._closed(item, record, other)
        if changed == record:
            return
        now_s = asyncio.get_running_loop().time()
        revision = await _write(control, item, changed)
        if revision is None:
            return
        log.log(
            logging.INFO if _is_note(record, changed) else logging.WARNING,
            "cluster.renumbered",
            extra={
                "service": changed.service,
                "serial": changed.serial,
                "other": None if changed.other is None else asdict(changed.other),
            },
        )
        # The time goes on where this process has only noted it.
        is_noted = self._closing is not None and self._closing.revision == item.revision
        self._closing = _Closing(revision, now_s) if is_noted else None

    async def _closed(self, item: Item, record: ClusterRecord, other: OtherPrefix) -> ClusterRecord:
        now_s = asyncio.get_running_loop().time()
        if self._closing is None or self._closing.revision != item.revision:
            # Somebody else wrote it: the time that it names begins now, at the latest.
            self._closing = _Closing(item.revision, now_s)
        passed_s = int(now_s - self._closing.since_s)
        if passed_s < min(other.left_s, RENUMBER_NOTE_S):
            return record
        if passed_s < other.left_s:
            return waiting(record, [], other.left_s - passed_s)
        heard = await self._heard(record.network)
        # Who does not answer tells nobody anything, and reads the record before it does again.
        behind = sorted(
            name for name, serial in heard.items() if serial is not None and serial < record.serial
        )
        return waiting(record, behind, 0) if behind else withdrawn(record)
