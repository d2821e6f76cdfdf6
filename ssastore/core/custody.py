"""The slices of one environment: which of them vote, under which cfg, and why the others do not.

Follows the group records in the control store and tells the acceptor (``core.place``)
what the judgement of ``core.standing`` is.  While the control store is away, everything
stays as it is known.  Slices come and go with their records: a slice is this worker's while
its record names the node as owner, and *incoming* while it names the node as target of a
move (``core.mover`` fills it, ``core.giving`` is the other end).

A new cfg is adopted only from the group's record, never on a message's word, and is
durable before a FENCE is answered.  The acceptor refuses the old cfg from the moment that
the new one is known, and a write that it took before is in the store before the fence
is: so whoever pulls after the answer sees every vote that was given under the old cfg.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Any, NamedTuple

from ssastore.core.acceptor import Acceptor
from ssastore.core.boot import Environment
from ssastore.core.groups import GROUP_PREFIX, MOVING, GroupRecord, group_of_key
from ssastore.core.marks import Watermark, recall, remember
from ssastore.core.replies import Reply
from ssastore.core.standing import (
    UNTOUCHED,
    Standing,
    State,
    judge,
    read_standings,
    unpack_stands,
    write_standing,
)
from ssastore.env import ControlStore, Event, Item, Store, WatchCompacted, WriteTxn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.keyspace import GROUP_BITS, GROUPS, plane_of
from ssastore.limits import FENCE_BUDGET_MS, RECOVERY_RETRY_MS
from ssastore.messages import Fence, Mark

log = logging.getLogger(__name__)

CUSTODIAL = frozenset((Fence.TYPE, Mark.TYPE))
"Requests of nodes that are for the custody."


class Held(NamedTuple):
    """A group's record and the control store's revision of it."""

    record: GroupRecord
    revision: int


class Listing(NamedTuple):
    """The groups of one worker in a listing of all, as far as that needs no judgement of its own."""

    untouched: dict[int, Held]
    "By group, those of which nothing was ever recovered or moved."
    cfgs: dict[int, int]
    "The worker's slices in them, with their configuration."
    others: list[Held]
    "All that were, whoever's they are."


def read_listing(items: Sequence[Item], mine: Mapping[int, tuple[int, ...]]) -> Listing:
    """Sort a listing of group records. ``mine`` has the worker's groups at its start. Raises ConfigError."""
    untouched: dict[int, Held] = {}
    cfgs: dict[int, int] = {}
    others: list[Held] = []
    for item in items:  # A start waits for this loop: most of the records are others'.
        group = group_of_key(item.key)
        if group is None:
            continue
        record = GroupRecord.decode(item.value)
        if record.is_untouched and group not in mine:
            continue
        if record.is_untouched:
            untouched[record.group] = Held(record, item.revision)
            cfgs.update(dict.fromkeys(mine[record.group], record.cfg))
        else:
            others.append(Held(record, item.revision))
    return Listing(untouched, cfgs, others)


@lru_cache(maxsize=64)
def slices_by_group(owned: frozenset[int]) -> Mapping[int, tuple[int, ...]]:
    """A worker's slices, by group. Kept: nodes of a simulation start again all the time."""
    found: dict[int, tuple[int, ...]] = {}
    for slice16 in sorted(owned):
        found[slice16 % GROUPS] = (*found.get(slice16 % GROUPS, ()), slice16)
    return found


class Custody:
    """What one environment answers for.

    Args:
        node: the owner whose slices these are.
        forget: called when a cfg changes: a proposer drops what it cached under the old one.
        tell: called when slices have come or gone: connected clients are told what is served here.
    """

    read_listing = staticmethod(read_listing)

    def __init__(
        self,
        *,
        node: str,
        environment: Environment,
        acceptor: Acceptor,
        store: Store,
        forget: Callable[[], None],
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.node = node
        self.environment = environment
        self.groups: dict[int, Held] = {}
        "Those in which this worker has a plane, or gets one."
        self.states: dict[int, State] = {}
        "By slice; only of those that do not vote."
        self.taken: set[int] = set()
        """Slices that this environment may recover by itself: it was already not theirs when it started.
        One that another environment takes later is not taken back: two would chase one another for ever."""
        self.is_displaced = False
        "Another environment has taken slices while this one was running."
        self._acceptor = acceptor
        self._store = store
        self._forget = forget
        self._tell = tell
        with store.read() as txn:
            self._standings = read_standings(txn)
        self._base = slices_by_group(acceptor.owned)
        "As it was at the start."
        self._mine: dict[int, tuple[int, ...]] = dict(self._base)
        self.incoming: dict[int, Held] = {}
        "By slice, those that are being handed over to this worker."
        self.outgoing: dict[int, Held] = {}
        "And by it."
        self._adopting: dict[int, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()
        self._revision = 0
        self._is_withdrawn = False

    # -- following the control store ----------------------------------------------------------------

    async def load(self, control: ControlStore) -> None:
        """Read all group records; slices begin to vote. Raises Unavailable, ConfigError."""
        items, self._revision = await control.list(GROUP_PREFIX)
        is_first = not self.groups
        listing = self.read_listing(items, self._base)
        if is_first and not (self._standings or self._is_withdrawn) and self.environment.is_first:
            self.groups.update(listing.untouched)
            self._acceptor.served.vote_first(listing.cfgs)
        else:
            for held in listing.untouched.values():
                self._take(*held)
        for held in listing.others:
            self._take(*held)
        self.wake()
        if is_first:
            self.taken = {s for s, state in self.states.items() if state is State.QUARANTINED}
            self._log_silent()

    async def follow(self, control: ControlStore) -> None:
        """Apply every change of a group record, for ever."""
        while True:
            try:
                async for event in _events(control, self._revision):
                    self._revision = event.revision
                    if event.value is not None:
                        self.apply(GroupRecord.decode(event.value), event.revision)
            except WatchCompacted:
                await self._reload(control)
            except ConfigError as error:
                # Written by a program that knows more, or damaged: the slices stay as they are.
                log.error("group.not_understood", extra={"reason": str(error)})
            except (SsaStoreError, OSError) as error:
                log.warning("groups.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def _reload(self, control: ControlStore) -> None:
        try:
            await self.load(control)
        except (SsaStoreError, OSError) as error:
            log.warning("groups.not_followed", extra={"reason": str(error)})

    def apply(self, record: GroupRecord, revision: int) -> None:
        """Judge a group's slices here by its record, unless a later one is known."""
        if self._take(record, revision):
            self.wake()

    def _take(self, record: GroupRecord, revision: int) -> bool:
        """Whether the group concerns this worker, or did."""
        known = self.groups.get(record.group)
        if known is not None and known.revision >= revision:
            return True
        owned, incoming = self._share(record)
        before = self._mine.get(record.group, ())
        if not (owned or incoming or before or known):
            return False
        held = self.groups[record.group] = Held(record, revision)
        for plane in range(len(record.planes)):
            self.incoming.pop(plane << GROUP_BITS | record.group, None)
            self.outgoing.pop(plane << GROUP_BITS | record.group, None)
        self.incoming.update(dict.fromkeys(incoming, held))
        self.outgoing.update((s, held) for s in owned if record.planes[s >> GROUP_BITS].state == MOVING)
        if owned != before:
            self._mine[record.group] = owned
            for slice16 in before:
                if slice16 not in owned:
                    self._acceptor.served.lose(slice16)
                    self.states.pop(slice16, None)
                    self.taken.discard(slice16)
            for slice16 in owned:
                if slice16 not in before:
                    self._acceptor.served.gain(slice16)
            self._forget()
            self._tell()
        for slice16 in owned:
            self._settle(slice16, record)
        return True

    def _share(self, record: GroupRecord) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The slices of a group that are this worker's, and those that are handed over to it."""
        owned: list[int] = []
        incoming: list[int] = []
        for plane, found in enumerate(record.planes):
            slice16 = plane << GROUP_BITS | record.group
            if self.node in (found.owner, found.target) and self._acceptor.served.is_of_lane(slice16):
                (owned if found.owner == self.node else incoming).append(slice16)
        return tuple(owned), tuple(incoming)

    def _settle(self, slice16: int, record: GroupRecord) -> None:
        """Let a slice vote, or not."""
        served, standing = self._acceptor.served, self._standings.get(slice16, UNTOUCHED)
        state = judge(record, slice16 >> GROUP_BITS, self.environment, standing)
        if state is not State.ACTIVE or self._is_withdrawn:
            if state is State.QUARANTINED and slice16 in served.cfgs and not self.is_displaced:
                self.is_displaced = True
                log.critical("environment.displaced", extra={"slice": f"{slice16:04x}"})
            if state is State.SEALED and not self._is_withdrawn:
                served.seal(slice16, record.cfg)
            else:
                served.hush(slice16)
            self.states[slice16] = State.UNKNOWN if self._is_withdrawn else state
            return
        if self.states.pop(slice16, None) is not None:
            self.taken.discard(slice16)
        if (voted := served.cfgs.get(slice16)) != record.cfg:
            if voted is not None:
                self._forget()
            served.vote(slice16, record.cfg)
        if record.cfg > standing.cfg:
            self._adopt(slice16, standing._replace(cfg=record.cfg))

    def _adopt(self, slice16: int, standing: Standing) -> None:
        """Make a new cfg durable. Until then only the control store's word keeps the old one away."""
        self._standings[slice16] = standing
        self._adopting[slice16] = self._store.submit(lambda txn: write_standing(txn, slice16, standing))

    # -- for moves ----------------------------------------------------------------------------------

    def giving(self, slice16: int, h: int) -> bool:
        """Whether this environment's data of the slice is good, and handover ``h`` of it is undecided."""
        held = self.groups.get(slice16 % GROUPS)
        if held is None or slice16 not in self._acceptor.owned:
            return False
        found = held.record.planes[slice16 >> GROUP_BITS]
        is_here = self.states.get(slice16, State.ACTIVE) in (State.ACTIVE, State.SEALED)
        return is_here and found.state == MOVING and found.epoch == h

    async def seal(self, slice16: int, h: int) -> bool:
        """Give no vote for a slice any more while handover ``h`` is undecided; True when that is durable.

        Votes that were given before are in the store before the seal is.
        """
        if not self.giving(slice16, h):
            return False
        standing = self.standing(slice16)
        if standing.seal != h:
            self._adopt(slice16, standing._replace(seal=h))
            self._settle(slice16, self.groups[slice16 % GROUPS].record)
        await self._make_durable(slice16)
        return self.giving(slice16, h)

    @property
    def owned(self) -> frozenset[int]:
        """The slices that are this worker's."""
        return self._acceptor.owned

    async def note_standings(self, standings: Mapping[int, Standing]) -> None:
        """Make it durable how far slices are that are not this environment's to vote for."""
        self._standings.update(standings)
        await self._write(standings, lambda txn: None)

    async def fill(self, standings: Mapping[int, Standing], last: Callable[[WriteTxn], None]) -> None:
        """The data of incoming slices is complete; ``last`` is changed with that, durably."""
        await self._write(standings, last)
        self._standings.update(standings)

    async def _write(self, standings: Mapping[int, Standing], more: Callable[[WriteTxn], None]) -> None:
        def write_all(txn: WriteTxn) -> None:
            more(txn)
            for slice16, standing in standings.items():
                write_standing(txn, slice16, standing)

        await self._store.submit(write_all)

    def strays(self) -> list[int]:
        """Slices that may have left data here and are neither this worker's nor on their way to it."""
        touched = [s for s, standing in self._standings.items() if standing.epoch or standing.seal]
        return sorted(s for s in touched if s not in self._acceptor.owned and s not in self.incoming)

    # -- for the recovery ---------------------------------------------------------------------------

    def standing(self, slice16: int) -> Standing:
        """How far a slice's data here has come."""
        return self._standings.get(slice16, UNTOUCHED)

    def filled(self, slice16: int, standing: Standing) -> None:
        """The slice's data is complete for an epoch; that and the data are durable."""
        self._standings[slice16] = standing
        self._settle(slice16, self.groups[slice16 % GROUPS].record)

    def withdraw(self) -> None:
        """Never vote again in this process: another one runs the same environment, and is the later."""
        self._is_withdrawn = True
        self.taken.clear()
        for slice16 in self._known():
            self._settle(slice16, self.groups[slice16 % GROUPS].record)

    async def disown(self) -> None:
        """Take back every vote: the state of this environment must not be trusted, somebody says."""
        owned = self._known()
        outdated = {slice16: self.standing(slice16)._replace(epoch=0) for slice16 in owned}

        def write_all(txn: WriteTxn) -> None:
            for slice16, standing in outdated.items():
                write_standing(txn, slice16, standing)

        for slice16 in owned:
            self._acceptor.served.hush(slice16)
        self._standings.update(outdated)
        await self._store.submit(write_all)
        for slice16 in owned:
            self._settle(slice16, self.groups[slice16 % GROUPS].record)
        self.taken.update(owned)
        self.wake()

    def _known(self) -> list[int]:
        """The slices that are this worker's and whose groups' records are known, in order."""
        return sorted(slice16 for group in self.groups for slice16 in self._mine.get(group, ()))

    def take_all(self) -> None:
        """Somebody says that the slices which other environments took are to come back here."""
        lost = {slice16 for slice16, state in self.states.items() if state is State.QUARANTINED}
        if not lost <= self.taken:
            self.taken |= lost
            self.wake()

    async def changed(self) -> None:
        """Wait until a record or a state changes."""
        await self._changed.wait()

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # -- what mates and peers ask -------------------------------------------------------------------

    async def handle(self, request: Fence | Mark) -> Reply:
        """Answer a Fence or a Mark. Raises Refusal, BadFrame, StoreFull."""
        if isinstance(request, Fence):
            return await self._fence(request)
        told = Watermark(request.boot, request.sequence)
        if told == Watermark():
            with self._store.read() as txn:
                return list(recall(txn, request.env)), b""
        return list(await self._store.submit(lambda txn: remember(txn, request.env, told))), b""

    async def _fence(self, request: Fence) -> Reply:
        """The groups that talk to no lower cfg any more, durably. Waits for their records to arrive."""
        plane = plane_of(request.iid)
        stands = {plane << GROUP_BITS | group: cfg for group, cfg in unpack_stands(request.stands)}
        cfgs = self._acceptor.served.cfgs
        try:
            async with asyncio.timeout(FENCE_BUDGET_MS / 2000):
                while any(cfgs.get(slice16, 0) < cfg for slice16, cfg in stands.items()):
                    await self.changed()
        except TimeoutError:
            log.warning("fence.incomplete", extra={"slices": len(stands)})
        fenced = [slice16 for slice16, cfg in stands.items() if cfgs.get(slice16, 0) >= cfg]
        for slice16 in fenced:
            await self._make_durable(slice16)
        return [b"".join((slice16 % GROUPS).to_bytes(2, "big") for slice16 in fenced)], b""

    async def _make_durable(self, slice16: int) -> None:
        """Wait until the slice's cfg is durable; when that fails, the next one to ask tries again."""
        adopting = self._adopting.get(slice16)
        if adopting is None:
            return
        if adopting.done() and adopting.exception() is not None:
            self._adopt(slice16, self._standings[slice16])
            adopting = self._adopting[slice16]
        await asyncio.shield(adopting)
        if self._adopting.get(slice16) is adopting:
            del self._adopting[slice16]

    # -- for status ---------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        states = [state.value for state in self.states.values()]
        return {
            "env": f"{self.environment.env_id:08x}",
            "boot": self.environment.boot,
            "lost": "another environment took slices" if self.is_displaced else self.environment.lost,
            "silent": {state: states.count(state) for state in sorted(set(states))},
        }

    def _log_silent(self) -> None:
        if self.states:
            log.error("slices.silent", extra=self.describe())


async def _events(control: ControlStore, revision: int) -> AsyncIterator[Event]:
    """Changes of group records after a revision; the watch is closed however the loop over it ends."""
    watch: Any = control.watch(GROUP_PREFIX, revision)
    async with aclosing(watch):
        async for event in watch:
            yield event
