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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ssastore.core.acceptor import Acceptor
from ssastore.core.boot import Environment
from ssastore.core.clusterreading import group_events
from ssastore.core.groups import GROUP_PREFIX, MOVING, GroupRecord, PlaneOwner
from ssastore.core.heirs import Legacy, merge_legacy, note_legacy, split_legacy
from ssastore.core.held import Held, Listing, read_listing, seen_from, share_of_node, slices_by_group
from ssastore.core.marks import Watermark, recall, remember
from ssastore.core.numbers import (
    group_of_slice,
    overlaps,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.replies import Reply
from ssastore.core.standing import Standing, State, judge, pack_parts, unpack_stands
from ssastore.core.standings import Standings
from ssastore.core.strays import stored_beside, strays_among
from ssastore.core.widening import FILLED_PLANE
from ssastore.env import ControlStore, Event, Store, WatchCompacted, WriteTxn, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.keyspace import plane_of
from ssastore.limits import FENCE_BUDGET_MS, RECOVERY_RETRY_MS
from ssastore.messages import Fence, Mark

log = logging.getLogger(__name__)

CUSTODIAL = frozenset((Fence.TYPE, Mark.TYPE))
"Requests of nodes that are for the custody."


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
        self._standings = Standings(store)
        self._base = slices_by_group(acceptor.owned)
        "As it was at the start."
        self._mine: dict[int, tuple[int, ...]] = dict(self._base)
        self.incoming: dict[int, Held] = {}
        "By slice, those that are being handed over to this worker."
        self.outgoing: dict[int, Held] = {}
        "And by it."
        self.filling: dict[int, Held] = {}
        "Slices that this worker makes of other planes' (``core.widening``)."
        self._merging: dict[int, Held] = {}
        "Groups of this worker of which parts are being merged."
        self._recutting: set[int] = set()
        "Slices that do not vote before it is noted that they were split or merged."
        self._changed = asyncio.Event()
        self._revision = 0
        self._is_withdrawn = False
        self._has_lost = True
        "Slices that may have left data, since the disk was looked at: before this start, too."

    # -- following the control store ----------------------------------------------------------------

    async def load(self, control: ControlStore) -> None:
        """Read all group records; slices begin to vote. Raises Unavailable, ConfigError."""
        items, self._revision = await control.list(GROUP_PREFIX)
        is_first = not self.groups
        listing = self.read_listing(items, self._base)
        if is_first and self.environment.is_first and not self._is_withdrawn:
            self._vote_first(listing)
        else:
            for held in listing.untouched.values():
                self._take(*held)
        for held in listing.others:
            self._take(*held)
        self._count_alike()
        self.wake()
        if is_first:
            self.taken = {s for s, state in self.states.items() if state is State.QUARANTINED}
            self._log_silent()

    def _vote_first(self, listing: Listing) -> None:
        """Of groups that nothing was ever done to, the slices vote at the start, and at once.

        Of those whose slices have a standing nevertheless, each is judged.
        """
        touched = {group_of_slice(number) for number in self._standings.by_slice} & listing.untouched.keys()
        for planes, groups in listing.counts.items():
            self._acceptor.served.count(groups, planes)
        if not touched:
            self.groups.update(listing.untouched)
            self._acceptor.served.vote_first(listing.cfgs)
            return
        self.groups.update((group, held) for group, held in listing.untouched.items() if group not in touched)
        cfgs = {number: cfg for number, cfg in listing.cfgs.items() if group_of_slice(number) not in touched}
        self._acceptor.served.vote_first(cfgs)
        for group in sorted(touched):
            self._take(*listing.untouched[group])

    async def follow(self, control: ControlStore) -> None:
        """Apply every change of a group record, for ever."""
        while True:
            try:
                async for event in group_events(control, self._revision):
                    self._revision = event.revision
                    self._take_event(event)
            except WatchCompacted:
                await self._reload(control)
            except (SsaStoreError, OSError) as error:
                log.warning("groups.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    def _take_event(self, event: Event) -> None:
        try:
            if event.value is not None:
                self.apply(GroupRecord.decode(event.value), event.revision)
        except ConfigError as error:
            # Written by a program that knows more, or damaged: the slices stay as they are.  The watch goes
            # on: a new one would begin behind all that was changed together with it.
            log.error("group.not_understood", extra={"reason": str(error)})

    async def _reload(self, control: ControlStore) -> None:
        try:
            await self.load(control)
        except (SsaStoreError, OSError) as error:
            log.warning("groups.not_followed", extra={"reason": str(error)})

    def apply(self, record: GroupRecord, revision: int) -> None:
        """Judge a group's slices here by its record, unless a later one is known."""
        if self._take(record, revision):
            self._count_alike()
            self.wake()

    def _count_alike(self) -> None:
        """When all groups have as many planes now, say so."""
        if self._acceptor.served.count_alike(len(self.groups)):
            self._tell()

    def count_of(self, group: int) -> int:
        """How many planes a group of this worker has, and so how many make a majority."""
        return self._acceptor.served.count_of(group)

    def _take(self, record: GroupRecord, revision: int) -> bool:
        """Whether the group concerns this worker, or did."""
        known = self.groups.get(record.group)
        if known is not None and known.revision >= revision:
            return True
        owned, outgoing, incoming, filling = share_of_node(
            record, self.node, self._acceptor.served.is_of_lane
        )
        before = self._mine.get(record.group, ())
        if not (owned or incoming or filling or before or known):
            return False
        held = self.groups[record.group] = Held(record, revision)
        self._acceptor.served.count([record.group], len(record.planes))
        if self._merging:
            self._merging.pop(record.group, None)
        if record.merging is not None:
            self._merging[record.group] = held
        if known is not None and (self.incoming or self.outgoing):
            for number in known.record.slices():
                self.incoming.pop(number, None)
                self.outgoing.pop(number, None)
        if self.filling:
            self.filling.pop(slice_number(FILLED_PLANE, record.group), None)
        self.filling.update(dict.fromkeys(filling, held))
        for number in incoming:
            self.incoming[number] = seen_from(held, number)
        for number in outgoing:
            self.outgoing[number] = seen_from(held, number)
        if owned != before:
            self._change_hands(record.group, before, owned)
        if record.split is not None:
            self._note(split_legacy(owned, self._standings.by_slice))
        for number in owned:
            self._settle(number, seen_from(held, number).record)
        return True

    def _change_hands(self, group: int, before: tuple[int, ...], owned: tuple[int, ...]) -> None:
        """Slices of a group come or go, or become others."""
        self._mine[group] = owned
        lost = [number for number in before if number in self.taken]
        for number in before:
            if number not in owned:
                # One that was handed over has its seal here, and is known by that.
                self._has_lost = self._has_lost or number not in self._standings.by_slice
                self._acceptor.served.lose(number)
                self.states.pop(number, None)
                self.taken.discard(number)
        for number in owned:
            if number not in before:
                self._acceptor.served.gain(number)
                if any(overlaps(number, other) for other in lost):
                    self.taken.add(number)
        self._forget()
        self._tell()

    def held(self, number: int) -> Held | None:
        """The record of a slice's group as it is seen from its part; None: no such slice is known now."""
        held = self.groups.get(group_of_slice(number))
        view = held.record.at(part_of_slice(number)) if held is not None else None
        return None if held is None or view is None else Held(view, held.revision)

    def _settle(self, number: int, record: GroupRecord) -> None:
        """Let a slice vote, or not."""
        served, standing = self._acceptor.served, self._standings.of(number)
        state = judge(record, plane_of_slice(number), self.environment, standing)
        if state is State.ACTIVE and (beside := self._standings.beside(number)):
            self._note(merge_legacy(number, beside))
        if state is State.ACTIVE and number in self._recutting:
            state = State.RECUT
        if state is not State.ACTIVE or self._is_withdrawn:
            if state is State.QUARANTINED and number in served.cfgs and not self.is_displaced:
                self.is_displaced = True
                log.critical("environment.displaced", extra={"slice": slice_name(number)})
            if state is State.SEALED and not self._is_withdrawn:
                served.seal(number, record.cfg)
            else:
                served.hush(number)
            self.states[number] = State.UNKNOWN if self._is_withdrawn else state
            return
        if self.states.pop(number, None) is not None:
            self.taken.discard(number)
        if (voted := served.cfgs.get(number)) != record.cfg:
            if voted is not None:
                self._forget()
            served.vote(number, record.cfg)
        if record.cfg > standing.cfg:
            self._standings.adopt(number, standing._replace(cfg=record.cfg))

    def _settle_again(self, numbers: Iterable[int]) -> None:
        """Judge slices by what is known now, those that are still this worker's."""
        for number in numbers:
            held = self.held(number)
            if held is not None and number in self._acceptor.owned:
                self._settle(number, held.record)

    def _note(self, legacy: Legacy) -> None:
        """Make it durable what slices inherit; they do not vote before."""
        if not legacy.heirs:
            return
        self._standings.inherit(legacy)
        self._recutting.update(legacy.heirs)
        spawn("note a split", self._make_legacy_durable(legacy))

    async def _make_legacy_durable(self, legacy: Legacy) -> None:
        while True:
            try:
                await self._store.submit(lambda txn: note_legacy(txn, legacy))
                break
            except (SsaStoreError, OSError) as error:
                log.error("split.not_noted", extra={"reason": str(error)})
                await asyncio.sleep(RECOVERY_RETRY_MS / 1000)
        self._recutting.difference_update(legacy.heirs)
        self._settle_again(legacy.heirs)
        self.wake()

    # -- for merges ---------------------------------------------------------------------------------

    def merging(self) -> dict[int, Held]:
        """By group, the records in which parts are being merged, as far as this worker has any."""
        return dict(self._merging)

    def is_voting(self, number: int) -> bool:
        """Whether a slice votes here, and so under its record's cfg."""
        return number in self._acceptor.active

    # -- for moves ----------------------------------------------------------------------------------

    def giving(self, number: int, h: int) -> bool:
        """Whether this environment's data of the slice is good, and handover ``h`` of it is undecided."""
        held = self.held(number)
        if held is None or number not in self._acceptor.owned:
            return False
        found = held.record.planes[plane_of_slice(number)]
        is_here = self.states.get(number, State.ACTIVE) in (State.ACTIVE, State.SEALED)
        return is_here and found.state == MOVING and found.epoch == h

    async def seal(self, number: int, h: int) -> bool:
        """Give no vote for a slice any more while handover ``h`` is undecided; True when that is durable.

        Votes that were given before are in the store before the seal is.
        """
        if not self.giving(number, h):
            return False
        standing = self.standing(number)
        if standing.seal != h:
            self._standings.adopt(number, standing._replace(seal=h))
            self._settle_again([number])
        await self._standings.make_durable(number)
        return self.giving(number, h)

    @property
    def owned(self) -> frozenset[int]:
        """The slices that are this worker's."""
        return self._acceptor.owned

    async def note_standings(self, standings: Mapping[int, Standing]) -> None:
        """Make it durable how far slices are that are not this environment's to vote for."""
        self._standings.know(standings)
        await self._standings.write(standings, lambda txn: None)

    async def fill(self, standings: Mapping[int, Standing], last: Callable[[WriteTxn], None]) -> None:
        """The data of incoming slices is complete; ``last`` is changed with that, durably."""
        await self._standings.write(standings, last)
        self._standings.know(standings)

    def is_of(self, found: PlaneOwner) -> bool:
        """Whether a record names this environment, or may mean it."""
        return found.owner == self.node and found.env in (0, self.environment.env_id)

    def strays(self) -> list[int]:
        """Slices that may have left data here and are neither this worker's nor on their way to it."""
        touched = [s for s, standing in self._standings.by_slice.items() if standing.epoch or standing.seal]
        return strays_among(touched, self._here()) if touched else []

    def _here(self) -> frozenset[int]:
        """Slices that are this worker's, or on their way to it."""
        owned = self._acceptor.owned
        # Itself, where that is all: who looks at some thousand slices remembers what came of it.
        return owned.union(self.incoming, self.filling) if self.incoming or self.filling else owned

    def find_strays(self) -> None:
        """Look for such data on the disk, after a start or a loss: what was never touched has no standing."""
        if not self._has_lost:
            return
        self._has_lost = False
        with self._store.read() as txn:
            found = stored_beside(txn, self._here())
        self._standings.suspect(found)

    # -- for the recovery ---------------------------------------------------------------------------

    def standing(self, number: int) -> Standing:
        """How far a slice's data here has come."""
        return self._standings.of(number)

    def filled(self, number: int, standing: Standing) -> None:
        """The slice's data is complete for an epoch; that and the data are durable."""
        self._standings.know({number: standing})
        self._settle_again([number])

    def withdraw(self) -> None:
        """Never vote again in this process: another one runs the same environment, and is the later."""
        self._is_withdrawn = True
        self.taken.clear()
        self._settle_again(self._known())

    async def disown(self) -> None:
        """Take back every vote: the state of this environment must not be trusted, somebody says."""
        owned = self._known()
        outdated = {number: self.standing(number)._replace(epoch=0) for number in owned}

        for number in owned:
            self._acceptor.served.hush(number)
        self._standings.know(outdated)
        await self._standings.write(outdated, lambda txn: None)
        self._settle_again(owned)
        self.taken.update(owned)
        self.wake()

    def _known(self) -> list[int]:
        """The slices that are this worker's and whose groups' records are known, in order."""
        return sorted(number for group in self.groups for number in self._mine.get(group, ()))

    def take_all(self) -> None:
        """Somebody says that the slices which other environments took are to come back here."""
        lost = {number for number, state in self.states.items() if state is State.QUARANTINED}
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
        """The parts that talk to no lower cfg any more, durably. Waits for their records to arrive."""
        plane = plane_of(request.iid)
        stands = {slice_number(plane, part): cfg for part, cfg in unpack_stands(request.stands)}
        cfgs = self._acceptor.served.cfgs
        try:
            async with asyncio.timeout(FENCE_BUDGET_MS / 2000):
                while any(cfgs.get(number, 0) < cfg for number, cfg in stands.items()):
                    await self.changed()
        except TimeoutError:
            log.warning("fence.incomplete", extra={"slices": len(stands)})
        fenced = [number for number, cfg in stands.items() if cfgs.get(number, 0) >= cfg]
        for number in fenced:
            await self._standings.make_durable(number)
        return [pack_parts(map(part_of_slice, fenced))], b""

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
