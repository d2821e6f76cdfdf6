"""A gateway's part in the front plane: it is there, takes over what it is to have, and gives away with care.

Every gateway runs this.  There is no coordinator: the first of those that are there, by name, plans, and the
record is changed by compare-and-set, so that two who do not see the same ones do no harm.

    plan     some time after gateways came, went or are about to leave: their parts are ordered to be moved
    accept   the target's routes are set: it says so in the record
    drain    the owner sends on what is new, answers what it has, and says when that is done
    leave    it is asked to end: it waits until others have all that it had

One whose lease is over and who answers nevertheless keeps its part for a while: what is open there would end
for nothing, since only the control store has missed it.  Where a record is not understood, as one of a newer
version, nothing is planned and nothing is changed here: what is accepted stays, and status says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from ssastore.core.front import FRONT_KEY, Arc, FrontRecord, GateRecord, planned, runs_of
from ssastore.core.frontview import FrontView
from ssastore.core.membership import Leased
from ssastore.env import Compare, ControlStore, Write, spawn
from ssastore.errors import SsaStoreError

log = logging.getLogger(__name__)

_SETTLE_S = 1.0
"Gateways come and go together, and one that starts again is back soon: what follows each is planned at once."
_TURN_S = 0.2
"How often it is looked whether a drain is done, or gateways have settled."
_IDLE_S = 5.0
"How often it is looked when nothing is going on; what others do is heard at once."
_RETRY_S = 1.0
_QUIET_S = 0.5
"How long a part has no connection before routers are told: one may be on its way while the kernel learns."
_DRAIN_S = 600.0
"What goes on for longer is cut: or one who reads a byte a minute keeps a part for ever."
_LEAVE_S = 60.0
"How long a gateway that is asked to end waits for its parts to be taken over."
_LAST_S = 1.0
"How long one that ends goes on sending on what still comes: until the routers near it know."
_SENT_ON_S = 30.0
"How long what still comes for a part that was given away is sent on: until the last router knows."

_SILENT_S = 600.0
"How long one without a lease keeps its part while it answers: it may be another program that does."

assert _QUIET_S < _SETTLE_S < _LEAVE_S < _DRAIN_S

SentOn = Mapping[IPv6Network, str]
"Prefixes, and the address of the host to which new connections to them go."


@dataclass(frozen=True, slots=True)
class Hands:
    """What a gateway can do on its host."""

    accepts_all: Callable[[], bool]
    "Whether the host accepts all addresses that the view says, as it is now."
    send_on: Callable[[SentOn], Awaitable[bool]]
    """Let new connections to these go to others, and nothing else: an empty mapping ends it. Whether that is
    so now; False: it is to be tried again."""
    retire: Callable[[Collection[IPv6Network]], Awaitable[Collection[IPv6Network]]]
    "Let connections to these end with their next answer, and others go on; which of them still have some."
    answers: Callable[[str], Awaitable[bool]]
    "Whether a gateway serves S3 at the address of its host."


class FrontKeeper:
    """One gateway of the front plane."""

    def __init__(
        self, control: ControlStore, view: FrontView, gate: GateRecord, leased: Leased, hands: Hands
    ) -> None:
        """``view`` is loaded, and followed by the caller; ``leased`` keeps the gateway's record."""
        self._control = control
        self._view = view
        self._gate = gate
        self._hands = hands
        self._leased = leased
        self._known: tuple[GateRecord, ...] = ()
        self._known_s = 0.0
        "The gateways that are there, and since when they are the same."
        self._is_planned = False
        self._planned_for: tuple[tuple[GateRecord, ...], int] | None = None
        "Who was there, and the record, when it was planned last."
        self._silent: dict[str, float] = {}
        "Since when each gateway has had no lease."
        self._was_draining = False
        self._draining: dict[Arc, float] = {}
        "Since when."
        self._busy: Collection[IPv6Network] = ()
        "What is being drained and still has connections."
        self._given: dict[Arc, float] = {}
        "Until when what comes for it is sent on."
        self._sent_on: SentOn | None = None
        "None: what an earlier life of this process has left is not known."
        self._left = asyncio.Event()
        self._signs: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """For ever. While the control store is away everything stays as it is."""
        self._signs = signs = spawn("keep the gateway's lease", self._leased.run())
        news = self._view.news
        try:
            while True:
                try:
                    await self.turn()
                    wait_s = _TURN_S if self._is_at_work else _IDLE_S
                    if self._gate.leaves and self._is_free:
                        self._left.set()
                except (SsaStoreError, OSError) as error:
                    log.warning("front.not_kept", extra={"reason": str(error)})
                    wait_s = _RETRY_S
                try:
                    async with asyncio.timeout(wait_s):
                        await news.wait()
                except TimeoutError:
                    pass
                news.clear()
        finally:
            signs.cancel()

    async def leave(self) -> None:
        """Give away what can be given in time, and be no gateway any more; while ``run`` goes on."""
        self._gate = replace(self._gate, leaves=True)
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._leased.change(self._gate.encode())
                self._view.news.set()
                await self._left.wait()
                if self._sent_on:
                    await asyncio.sleep(_LAST_S)
        except (SsaStoreError, OSError, TimeoutError) as error:
            log.warning("front.not_left", extra={"reason": str(error) or "not in time"})
        if self._signs is not None:
            self._signs.cancel()
        await self._leased.end()

    @property
    def _is_at_work(self) -> bool:
        """Whether something is due that no news will tell."""
        if self._view.strange:
            return False
        takes = any(arc.target == self._gate.name for arc in self._view.front.arcs)
        return bool(takes or self._draining) or self._gate.leaves or not self._is_planned

    @property
    def _is_free(self) -> bool:
        """Whether nothing is left to be given away, or nobody is there to take it."""
        if self._view.strange:
            return True
        others = [gate for gate in self._view.gates.values() if gate.name != self._gate.name]
        return self._gate.name not in self._view.front.names() or all(gate.leaves for gate in others)

    async def turn(self) -> None:
        """Do what is due now. Raises Unavailable, RouteRefused."""
        now_s, view = asyncio.get_running_loop().time(), self._view
        if view.strange:
            return
        await self._drain(now_s)
        front, revision = view.front, view.revision
        settled = front.changed(self._next(arc, now_s) for arc in front.arcs)
        wanted = await self._planned(settled, now_s)
        if wanted is front:
            return
        wanted = replace(wanted, epoch=front.epoch + 1)
        unchanged = Compare(FRONT_KEY, revision)
        # What is not written is not planned, whatever the reason.
        is_planned, self._is_planned, self._planned_for = self._is_planned, False, None
        if await self._control.transact([unchanged], [Write(FRONT_KEY, wanted.encode())]) is None:
            return
        self._is_planned = is_planned
        log.info("front.changed", extra={"epoch": wanted.epoch, "arcs": len(wanted.arcs)})
        self._given |= {arc: now_s + _SENT_ON_S for arc in self._draining if arc not in wanted.arcs}

    async def _drain(self, now_s: float) -> None:
        """Send on what is new for what is given away, and let what is there end."""
        front, name = self._view.front, self._gate.name
        draining = [arc for arc in front.arcs if arc.owner == name and arc.is_accepted]
        self._draining = {arc: self._draining.get(arc, now_s) for arc in draining}
        self._given = {arc: until_s for arc, until_s in self._given.items() if until_s > now_s}
        sent_on = {network: arc.target for arc in draining for network in self._networks(arc)}
        # What was given away twice is sent on once: nft takes no prefixes that overlap.
        for given_first, given_end in runs_of(sorted(self._given, key=lambda arc: arc.first)):
            for arc in front.arcs:
                common = replace(arc, first=max(arc.first, given_first), end=min(arc.end, given_end))
                if arc.owner != name and common.first < common.end:
                    sent_on |= dict.fromkeys(self._networks(common), arc.owner)
        gates = self._view.gates
        addresses = {network: gates[to].address for network, to in sent_on.items() if to in gates}
        if addresses != self._sent_on:
            self._sent_on = addresses if await self._hands.send_on(addresses) else None
        self._busy = await self._hands.retire(
            [network for arc in draining for network in self._networks(arc)]
        )

    def _next(self, arc: Arc, now_s: float) -> Arc:
        """The arc after what this gateway has to say of it."""
        if arc.target == self._gate.name and not arc.is_accepted and self._hands.accepts_all():
            return replace(arc, is_accepted=True)
        if arc in self._draining:
            since_s = now_s - self._draining[arc]
            is_quiet = since_s > _QUIET_S and not any(found in self._busy for found in self._networks(arc))
            if is_quiet or since_s > _DRAIN_S:
                return replace(arc, owner=arc.target, target="", is_accepted=False)
        return arc

    async def _planned(self, front: FrontRecord, now_s: float) -> FrontRecord:
        gates = tuple(sorted(self._view.gates.values(), key=lambda gate: gate.name))
        if gates != self._known:
            self._known, self._known_s, self._is_planned = gates, now_s, False
        # What drains is not moved elsewhere: when it is done, the rest of the plan may be.
        if self._was_draining and not front.is_draining:
            self._is_planned = False
        self._was_draining = front.is_draining
        is_whole = all(arc.owner for arc in front.arcs)
        if (self._is_planned and is_whole) or now_s - self._known_s < _SETTLE_S:
            return front
        self._is_planned = True
        if not gates or gates[0].name != self._gate.name:
            return front
        there = (*gates, *await self._answering(now_s))
        if there != gates:  # Who answered is asked again.
            self._is_planned, self._known_s = False, now_s
            if (there, front.epoch) == self._planned_for:
                return front
        self._planned_for = there, front.epoch
        return planned(front, there)

    async def _answering(self, now_s: float) -> list[GateRecord]:
        """Gateways that have no lease any more and serve their parts nevertheless."""
        silent, known = self._view.silent(), self._silent
        self._silent = {gate.name: known.get(gate.name, now_s) for gate in silent}
        asked = [gate for gate in silent if now_s - self._silent[gate.name] < _SILENT_S]
        answers = await asyncio.gather(*[self._hands.answers(gate.address) for gate in asked])
        answering = [gate for gate, is_there in zip(asked, answers, strict=True) if is_there]
        for gate in answering:
            if gate.name not in known:
                log.warning("front.lease_missed", extra={"gateway": gate.name})
        return answering

    def _networks(self, arc: Arc) -> list[IPv6Network]:
        return [piece.network(service) for service in self._view.record.networks for piece in arc.slices]
