"""The coordinator's duty: what nodes had that are gone for long is rebuilt at others. A conversation.

Any number of candidates run this; the one that holds the key (``core.election``) acts.  It keeps
nothing but its own watch: who succeeds it begins to watch anew, and orders again what is ordered
already, which changes nothing.

    watch    leases, all the time; what was missed while the control store or this process was away is not
             held against a node: its time begins anew
    judge    gone for longer than ``recover_after_s``, not too many at once, and nobody reaches it
    order    its slices are recovered at others, those of which enough other planes are left
    recall   it is back: what was ordered and not begun stays where it is
    renumber the next step to another service prefix, when it can be taken (``core.renumbering``)

Safety never rests on any of it: a recovery fences first (``core.recovery``), so a node that is only cut off
loses its slices and no acknowledged write with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ssastore.core.cluster import NODE_PREFIX, NodeRecord
from ssastore.core.election import Deposed, Election, GuardedControl
from ssastore.core.membership import AbsentRecord, absent_key, read_presence
from ssastore.core.renumbering import Renumberer
from ssastore.core.settings import RECOVERY_SETTINGS_KEY, RecoverySettings, read_move_settings
from ssastore.env import Clock, Compare, ControlStore, Write, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import (
    ABSENCE_TOLD_MS,
    GUARD_EVERY_MS,
    GUARD_GAP_MS,
    LEASE_MS,
    LOST_ORDER_EVERY_MS,
    STAND_EVERY_MS,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

RECOVERED = "its slices are being recovered at other nodes"
PAUSED = "nothing more of it is begun while moves are paused (ssastore resume)"
FREE = "it owns nothing"
REACHED = "its lease is gone, but it answers: only the control store does not hear from it"


@dataclass(frozen=True, slots=True)
class Deeds:
    """What the coordinator can do. All of them may be repeated, and raise ConfigError, Unavailable."""

    owners: Callable[[], Collection[str]]
    "Names of all nodes that own something, as far as is known."
    order: Callable[[ControlStore, Collection[str], Collection[str]], Coroutine[Any, Any, tuple[int, str]]]
    """Let everything of lost nodes be recovered at others, as far as it can be without those that are absent;
    how much was ordered, and what could not be."""
    recall: Callable[[ControlStore, str], Awaitable[int]]
    "Take back what was ordered of a node and is not begun; how much."
    reaches: Callable[[str], Awaitable[bool]]
    "Whether a node answers at all of its addresses."


@dataclass(slots=True)
class Watch:
    """Since when nodes are missed, on the watcher's own uninterrupted time. Pure."""

    missed: dict[str, float] = field(default_factory=dict)
    seen_s: float | None = None
    "When it was looked last."

    def look(self, now_s: float, absent: Collection[str]) -> None:
        """These nodes have no lease now."""
        if self.seen_s is not None and now_s - self.seen_s > GUARD_GAP_MS / 1000:
            self.missed.clear()
        self.seen_s = now_s
        self.missed = {name: self.missed.get(name, now_s) for name in sorted(absent)}

    def excuse(self, spent_s: float) -> None:
        """So long the watcher itself was at other work: that is no gap."""
        if self.seen_s is not None:
            self.seen_s += spent_s

    def forget(self) -> None:
        """Nobody looked for a while: nothing that was missed meanwhile counts."""
        self.missed.clear()
        self.seen_s = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done now."""

    lost: frozenset[str]
    "Nodes that are to be recovered at others."
    says: Mapping[str, str]
    "About every node that is absent for more than a moment."


def judge(
    watch: Watch, nodes: Mapping[str, NodeRecord], owners: Collection[str], settings: RecoverySettings
) -> Judgement:
    """Which absent nodes are lost, and what is said about each. Pure.

    Never when more are absent than a third of all nodes that own something, or than one zone: then it is
    rather the network, and an operator has to say so (``plan --lost``).
    """
    assert watch.seen_s is not None
    says: dict[str, str] = {}
    absent = [name for name in watch.missed if name in owners]
    all_owners = [name for name in nodes if name in owners]
    zones = {nodes[name].zone for name in absent}
    is_one_zone = len(zones) == 1 and "" not in zones and len({nodes[name].zone for name in all_owners}) > 1
    is_few = len(absent) <= max(1, len(all_owners) // 3) or is_one_zone
    lost = set()
    for name, since_s in watch.missed.items():
        missed_s = watch.seen_s - since_s
        if missed_s < ABSENCE_TOLD_MS / 1000:
            continue
        if name not in owners:
            says[name] = FREE
        elif settings.after_s == 0:
            says[name] = "not recovered by itself: that is switched off"
        elif not is_few:
            says[name] = (
                f"not recovered by itself: {len(absent)} of {len(all_owners)} nodes are absent at once"
            )
        elif missed_s < settings.after_s:
            says[name] = f"recovered at other nodes after {settings.after_s} s"
        else:
            says[name] = RECOVERED
            lost.add(name)
    return Judgement(frozenset(lost), says)


class Guardian:
    """A candidate for the coordinator, and the coordinator.

    Args:
        name: of this node.
        clock: for people who read since when a node is absent.
    """

    def __init__(
        self, control: ControlStore, name: str, deeds: Deeds, renumberer: Renumberer, clock: Clock
    ) -> None:
        self._control = control
        self._election = Election(control, name)
        self._deeds = deeds
        self._renumberer = renumberer
        self._clock = clock
        self._watch = Watch()
        self._tried: tuple[float, Collection[str], Mapping[str, str]] = 0.0, (), {}
        "When something was ordered last, for which nodes, and what was to be said about it."

    async def run(self) -> None:
        """For ever."""
        while True:
            is_elected = False
            try:
                is_elected = await self.round()
            except Deposed:
                self._election.resign()
                self._watch.forget()
            except (SsaStoreError, OSError) as error:
                log.warning("absence.not_watched", extra={"reason": str(error)})
                self._watch.forget()
            await asyncio.sleep((GUARD_EVERY_MS if is_elected else STAND_EVERY_MS) / 1000)

    async def round(self) -> bool:
        """Look once, and do what is due, if this is the coordinator; whether it is.

        Raises:
            Deposed, Unavailable, ConfigError: it could not be done now.
        """
        token = await self._election.stand()
        if not token:
            self._watch.forget()
            return False
        control = GuardedControl(self._control, token)
        if self._renumberer.is_due:
            began_s = asyncio.get_running_loop().time()
            await self._keeping_office(self._renumberer.round(control))
            # It asks nodes, and those that are gone take longest: who waits until they are recovered must not
            # see to it that they never are.
            self._watch.excuse(asyncio.get_running_loop().time() - began_s)
        now_s = asyncio.get_running_loop().time()
        items, _ = await control.list(NODE_PREFIX)
        nodes = {node.name: node for node in (NodeRecord.decode(item.value) for item in items)}
        presence = await read_presence(control)
        self._watch.look(now_s, nodes.keys() - presence.alive.keys())
        returned = [name for name in presence.absent if name not in self._watch.missed]
        for name in returned:
            await self._take_back(control, name)
        if not self._watch.missed:
            return True
        settings = RecoverySettings.of(await control.get(RECOVERY_SETTINGS_KEY))
        found = judge(self._watch, nodes, self._deeds.owners(), settings)
        says = dict(found.says)
        if found.lost:
            says |= await self._order(control, found.lost, self._watch.missed.keys() - found.lost)
        await self._tell(control, says, presence.absent)
        # What this round took is no time in which nobody looked.
        self._watch.seen_s = asyncio.get_running_loop().time()
        return True

    async def _order(
        self, control: ControlStore, lost: frozenset[str], others: Collection[str]
    ) -> Mapping[str, str]:
        """Order what can be, from time to time: more can be when other nodes have come back. What to say."""
        now_s = asyncio.get_running_loop().time()
        tried_s, nodes, said = self._tried
        if nodes == lost and now_s - tried_s < LOST_ORDER_EVERY_MS / 1000:
            return said
        # All at once: one after the other a few of them outlast the lease.
        answers = await asyncio.gather(*[self._deeds.reaches(name) for name in sorted(lost)])
        reached = [name for name, is_reached in zip(sorted(lost), answers, strict=True) if is_reached]
        says = dict.fromkeys(reached, REACHED)
        if left := [name for name in sorted(lost) if name not in reached]:
            try:
                # Who is absent may be back soon: nothing is begun that had to wait for that.
                absent = [*reached, *sorted(others)]
                count, waiting = await self._keeping_office(self._deeds.order(control, left, absent))
                if (await read_move_settings(control)).is_paused:
                    waiting = PAUSED
            except ConfigError as error:
                says |= dict.fromkeys(left, f"not recovered by itself: {error}")
            else:
                says |= dict.fromkeys(left if waiting else (), f"{RECOVERED}, but {waiting}")
                log.warning("node.recovered_elsewhere", extra={"nodes": left, "slices": count})
        self._tried = now_s, lost, says
        return says

    async def _keeping_office(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what may take longer than the lease lasts: to plan for many nodes takes seconds."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(LEASE_MS / 3000)
                try:
                    await self._election.stand()
                except (SsaStoreError, OSError) as error:
                    log.warning("lease.not_kept", extra={"reason": str(error)})

        keeping = spawn("keep the coordinator's lease", keep())
        try:
            return await work
        finally:
            keeping.cancel()

    async def _take_back(self, control: ControlStore, name: str) -> None:
        """A node is there again, or is no node any more."""
        count = await self._deeds.recall(control, name)
        log.info("node.returned", extra={"node": name, "slices": count})
        await self._write(control, name, None)

    async def _tell(
        self, control: ControlStore, says: Mapping[str, str], known: Mapping[str, AbsentRecord]
    ) -> None:
        for name, text in says.items():
            record = known.get(name)
            if record is None or record.says != text:
                log.warning("node.absent", extra={"node": name, "says": text})
                since_ms = record.since_ms if record is not None else self._clock.now_ms()
                await self._write(control, name, AbsentRecord(since_ms, text).encode())

    async def _write(self, control: ControlStore, name: str, value: bytes | None) -> None:
        item = await control.get(absent_key(name))
        compare = Compare(absent_key(name), item.revision if item is not None else 0)
        await control.transact([compare], [Write(absent_key(name), value)])
