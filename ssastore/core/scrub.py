"""One pass over everything that an environment holds, and over what its mates hold of the same. Coroutines.

For each slice, page by page: every record is read and its checksum verified; then the
page's digest is compared with those of the other planes, and where they differ, entry by
entry.  What is rotten or differs is mended (``core.mend``); an old reference is examined
(``core.sweep``); an old promise of nothing is dropped, the slice's floor keeps it.
Planes that lack the same are alike, so what records name is looked for as well (``core.named``).

What is not good after that is looked at again at the end of the pass, some times: planes
scrub at the same time, and the one that holds a bad copy has to heal it itself.  Nothing is called
healthy here before a whole pass has read every copy, and nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ssastore.core.collect import Collector, drop_promise
from ssastore.core.finds import Finds
from ssastore.core.heat import Weights
from ssastore.core.mend import YOUNG_MS, Left, Mended, Mender, Tally
from ssastore.core.named import Named, Naming
from ssastore.core.numbers import (
    WHOLE_SLICES,
    group_of_part,
    in_order,
    part_of_slice,
    plane_of_slice,
    slice_number,
)
from ssastore.core.records import BOOKKEEPING_FIRST, in_plane, split_place
from ssastore.core.repair import RepairCounts
from ssastore.core.survey import (
    EMPTY,
    Row,
    SurveyPage,
    differences,
    digest_of,
    occupied,
    survey,
    walk,
)
from ssastore.core.sweep import Sweeper
from ssastore.core.tools import Tools
from ssastore.core.verified import Verified
from ssastore.errors import SsaStoreError
from ssastore.keyspace import TAIL_BITS
from ssastore.limits import DOUBTS_MAX, SURVEY_SLICES_MAX

log = logging.getLogger(__name__)

_CHUNK_BYTES = 16 << 10
"What it costs to ask about a run of slices that are all empty."

_BOOKKEEPING_BATCH = 500
_BOOKKEEPING_END = b"\xff" * 8
_READS_BEFORE_REST = 20
_REST_TO_WORK = 9

_LOOK_AGAIN_S = (1.0, 2.0, 4.0)
"After the end of a pass, until what is in doubt is looked at again. Together longer than a write is young."

_MORE_LOOKS = 3
"When it is only that mates did not answer: they may be busy."

_LOOKS_MAX = 20
"Further ones follow as long as each leaves less in doubt than the one before."

assert sum(_LOOK_AGAIN_S) * 1000 > YOUNG_MS

AGAIN_S = 3600.0
"Until the next pass after one that could not compare everything, at most."


@dataclass(slots=True)
class Progress:
    """How far a pass is, and what it found; counts are of entries."""

    number: int
    began_ms: int
    ended_ms: int = 0
    slices: int = 0
    slices_done: int = 0
    records: int = 0
    objects: int = 0
    "Copies here of objects that exist, of the records."
    named: int = 0
    "Blobs that were asked for since records of this worker's name them (``core.named``)."
    bytes: int = 0
    rotten: int = 0
    missing: int = 0
    "Not here, but at a majority or at a mate."
    stale: int = 0
    "Here older than what is agreed."
    repaired: int = 0
    "Copies here that were rotten, missing or stale, and are good now."
    unrepaired: int = 0
    "Those that are not."
    elsewhere: int = 0
    "Entries of which a mate has no good copy, as seen from here."
    collected: int = 0
    "References and records that were dropped."
    unheard: int = 0
    "Entries that a mate did not answer for, however often; else nothing is wrong with them."
    not_compared: int = 0
    "Slices of mates that could not be asked, and own ones that do not vote."
    looking_again: int = 0
    "Entries in doubt, while they are looked at again at the end of the pass."
    broke_off: str = ""
    "Why it did not get to its end."

    @property
    def is_healthy(self) -> bool:
        """Whether every copy was read and compared, and all of them are good."""
        left = self.unrepaired + self.elsewhere + self.unheard + self.not_compared
        return self.ended_ms > 0 and not left and not self.broke_off


class Pace:
    """Spreads work over time: so many bytes a second, and a tenth of the time of the event loop."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._due_s = 0.0
        self._reads = 0
        self._worked_s = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around work that holds up the event loop: many small records take long for their bytes."""
        time = asyncio.get_running_loop().time
        began_s = time()
        yield
        self._worked_s += time() - began_s

    async def spend(self, size: int) -> None:
        """Wait until ``size`` more bytes may have been read."""
        now_s = asyncio.get_running_loop().time()
        rest_s = max(size / self._bytes_per_s, self._worked_s * _REST_TO_WORK)
        self._due_s, self._worked_s = max(self._due_s, now_s) + rest_s, 0.0
        self._reads += 1
        # Short rests are saved up: a timer is coarse.
        if self._due_s - now_s > 0.01 or self._reads % _READS_BEFORE_REST == 0:
            await asyncio.sleep(self._due_s - now_s)


class Scrub:
    """Passes of one worker."""

    def __init__(
        self,
        tools: Tools,
        mender: Mender,
        sweeper: Sweeper,
        collector: Collector,
        named: Named,
        counts: RepairCounts,
    ) -> None:
        self._tools = tools
        self._mender = mender
        self._sweeper = sweeper
        self._collector = collector
        self._named = named
        self._counts = counts
        self._pace = Pace(tools.rules.scrub_bytes_per_s)
        self._doubts: dict[bytes, Mended] = {}
        "What the pass has to look at again."
        self._changed: list[bytes] = []
        "What may be other than it was read, since it was looked at: it may name something else."
        self._told: set[type[SsaStoreError]] = set()
        "Why slices could not be compared, in this pass."
        self._wanted = asyncio.Event()
        self._passes = 0
        self.current: Progress | None = None
        self.last: Progress | None = None
        "The last pass that was finished since the start."
        self._verified = Verified()
        self._weights = Weights()
        self.largest: list[Any] = []
        "Of that pass the largest slices (``core.heat``)."

    def request(self) -> int:
        """Have a pass begin; the number of the one that sees everything that is there now."""
        self._wanted.set()
        return self._passes + 1

    async def run(self) -> None:
        """Passes for ever: soon after the start, on request, and from time to time."""
        rules = self._tools.rules
        wait_s = rules.scrub_first_s
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            progress = await self.run_pass()
            is_whole = not progress.not_compared and not progress.broke_off
            wait_s = rules.scrub_every_s if is_whole else min(rules.scrub_every_s, AGAIN_S)

    async def run_pass(self) -> Progress:
        """One pass; what it found."""
        tools = self._tools
        self._passes += 1
        mine = in_order(tools.acceptor.owned)
        progress = Progress(self._passes, tools.clock.now_ms(), slices=len(mine))
        self.current, self._doubts, self._mender.tally = progress, {}, Tally()
        self._told.clear()
        self._verified.begin()
        self._weights = Weights()
        try:
            for at in range(0, len(mine), SURVEY_SLICES_MAX):
                await self._check_slices(mine[at : at + SURVEY_SLICES_MAX], progress)
            await self._check_bookkeeping(progress)
            await self._look_again(progress)
            self._settle()
        except SsaStoreError as error:
            progress.broke_off = f"{type(error).__name__}: {error}"[:200]
            log.error("scrub.broke_off", extra={"reason": str(error)})
        finally:
            self.current, self._doubts = None, {}
        self._count(progress)
        self.largest = self._weights.describe()
        progress.ended_ms = max(tools.clock.now_ms(), progress.began_ms + 1)
        self.last = progress
        log.info("scrub.done", extra={k: v for k, v in asdict(progress).items() if v})
        return progress

    def _count(self, progress: Progress) -> None:
        """Take over what was found so far."""
        tally = self._mender.tally
        progress.rotten, progress.missing = tally.faults["rotten"], tally.faults["missing"]
        progress.stale, progress.repaired = tally.faults["stale"], tally.repaired

    def report(self) -> dict[str, Any]:
        """For status: the state of health, the pass under way, the last whole one."""
        last, waiting = self.last, len(self._tools.acceptor.doubts)
        if self.current is not None:
            self._count(self.current)
        left = self._mender.left()
        return {
            "health": self._health(left),
            "left": left._asdict(),
            "repaired": self._counts.repaired,
            "not_repaired": self._counts.failed,
            "pending": waiting,
            "pass": asdict(self.current) if self.current is not None else None,
            "last": asdict(last) if last is not None else None,
            **self._verified.describe(self._tools.acceptor.owned),
        }

    def _health(self, left: Left) -> str:
        last = self.last
        if bad := left.here + left.elsewhere:
            return f"{bad} copies not good"
        if last is None:
            return "not checked yet"
        if last.broke_off:
            return "the last pass broke off"
        if last.unrepaired + last.elsewhere >= DOUBTS_MAX:
            return f"{last.unrepaired + last.elsewhere} copies not good"  # Too many to be watched.
        if last.not_compared or left.unheard or last.unheard >= DOUBTS_MAX:
            return "not all replicas could be compared"
        # What the pass left may have been healed since: then nothing of it is left.
        return "healthy"

    # -- one slice ----------------------------------------------------------------------------------

    async def _check_slices(self, slices: list[int], progress: Progress) -> None:
        """Slices in a row: what is small is compared with one question a mate."""
        told: dict[int, tuple[int, bytes]] = {}
        rows = [self._mates_of(number) for number in slices]
        # Groups may have more planes or fewer; what is not asked about here is asked one by one.
        for mates in zip(*rows, strict=False):
            told |= await self._tools.survey_slices([mate for mate in mates if mate < WHOLE_SLICES])
        with self._pace.working(), self._tools.store.read() as txn:
            holding = occupied(txn, slices)
        empty = {mate for mate, said in told.items() if said == (0, EMPTY)}
        for number, others in zip(slices, rows, strict=True):
            if number not in self._tools.acceptor.active:
                progress.not_compared += 1
            elif number in holding or not empty.issuperset(others):
                await self._check_slice(number, told, progress)
            else:
                self._verified.add(number, self._tools.clock.now_ms())
            progress.slices_done += 1
        await self._pace.spend(_CHUNK_BYTES)

    def _mates_of(self, number: int) -> list[int]:
        """The slices of the same part in the other planes."""
        part, plane = part_of_slice(number), plane_of_slice(number)
        replicas = self._tools.acceptor.served.count_of(group_of_part(part))
        return [slice_number((plane + step) % replicas, part) for step in range(1, replicas)]

    async def _check_slice(self, number: int, told: dict[int, tuple[int, bytes]], progress: Progress) -> None:
        mates = self._mates_of(number)
        asked = dict.fromkeys(mates, True)
        before = len(self._doubts), _left_of(progress)
        after = b""
        weights: Counter[int] = Counter()
        seen: set[bytes] = set()
        is_asking = self._named.is_asked_by(number)
        while True:
            finds = Finds(self._tools.clock.now_ms(), self._tools.rules, seen, is_asking=is_asking)
            with self._pace.working(), self._tools.store.read() as txn:
                page = survey(txn, number, after, b"", finds.visit)
                finds.leave_orphans(txn)
            progress.records += page.seen
            progress.objects += finds.objects
            weights.update(finds.weights)
            progress.bytes += page.size
            for stored_key in [*page.rotten, *finds.wrong_blobs, *finds.bare_blobs]:
                await self._mend(stored_key, progress)
            await self._care(finds, progress)
            is_whole = not after and not page.is_cut
            for mate in mates:
                if is_whole and told.get(mate) == (page.count, page.digest):
                    continue
                if asked[mate]:
                    asked[mate] = await self._compare(number, mate, after, page, progress)
            await self._ask_for_named(finds.namings, progress)
            await self._pace.spend(page.size)
            if not page.is_cut:
                break
            after = page.last
        self._weights.add(number, weights)
        progress.not_compared += sum(not answered for answered in asked.values())
        if all(asked.values()) and _left_of(progress) == before[1]:
            if len(self._doubts) == before[0]:
                self._verified.add(number, self._tools.clock.now_ms())
            else:
                self._verified.doubt(number)

    def _settle(self) -> None:
        """At the end of a pass: what was in doubt and is good."""
        slice_at, doubted = self._tools.acceptor.served.slice_at, set()
        for stored_key in self._doubts:
            if stored_key < BOOKKEEPING_FIRST:
                doubted.add(slice_at(split_place(stored_key)[0] << TAIL_BITS))
        self._verified.settle(doubted, self._tools.clock.now_ms())

    async def _care(self, finds: Finds, progress: Progress) -> None:
        """What needs no comparison."""
        for stored_key, reference in finds.old_references:
            progress.collected += await self._sweeper.examine(stored_key, reference)
        for stored_key in finds.blobs:
            await self._sweeper.mark_orphan(stored_key)
        dead_ms = self._tools.clock.now_ms() - self._tools.rules.tombstone_kept_ms
        for stored_key in finds.old_promises:
            change = partial(drop_promise, stored_key=stored_key, before_ms=dead_ms)
            progress.collected += await self._tools.store.submit(change)
        for stored_key in finds.dead:
            progress.collected += await self._collector.collect(stored_key)

    async def _ask_for_named(self, namings: list[Naming], progress: Progress) -> None:
        """Ask for what records name, those of ``namings`` and those that have changed since."""
        latest = {naming.stored_key: naming for naming in namings}
        for stored_key in self._changed:
            if (naming := self._named.read(stored_key)) is not None:
                latest[stored_key] = naming
        self._changed.clear()
        if not latest:
            return
        asked = await self._named.ask(list(latest.values()), self._pace.spend)
        progress.named += asked.blobs
        for stored_key in asked.lacking:
            await self._mend(stored_key, progress)
        self._changed.clear()

    # -- comparing ----------------------------------------------------------------------------------

    async def _compare(
        self, number: int, mate: int, after: bytes, page: SurveyPage, progress: Progress
    ) -> bool:
        """Compare a page with one mate, in as many pages as that needs; False when it does not answer."""
        end = page.last if page.is_cut else b""
        at = after
        try:
            while True:
                theirs = await self._tools.survey(mate, at, end, listing=False)
                upto = theirs.last if theirs.is_cut else end
                mine = _between(page.rows, at, upto)
                if (theirs.count, theirs.digest) != (len(mine), digest_of(mine)):
                    theirs = await self._tools.survey(mate, at, upto, listing=True)
                    upto = theirs.last if theirs.is_cut else upto
                    found = differences(_between(page.rows, at, upto), theirs.rows)
                    for difference in found:
                        stored_key = in_plane(difference.key, plane_of_slice(number))
                        if stored_key not in self._doubts:  # The other mate has it as this one has.
                            await self._mend(stored_key, progress)
                if not theirs.is_cut:
                    return True
                at = upto
        except SsaStoreError as error:
            # Once a pass for each kind: a node that is away has thousands of slices. How many comes last.
            if type(error) not in self._told:
                self._told.add(type(error))
                log.info("scrub.not_compared", extra={"slice": f"{mate:04x}", "reason": str(error)})
            return False

    # -- mending ------------------------------------------------------------------------------------

    async def _mend(self, stored_key: bytes, progress: Progress) -> None:
        """Look at a key for the first time in this pass."""
        found = await self._mender.mend(stored_key)
        if found.is_good:
            self._changed.append(stored_key)
            return
        if len(self._doubts) < DOUBTS_MAX:
            self._doubts[stored_key] = found
        else:
            _count_left(found, progress)

    async def _look_again(self, progress: Progress) -> None:
        """Look at what is in doubt until nothing is, or it does not get less any more."""
        for look in range(_LOOKS_MAX):
            before = progress.looking_again = len(self._doubts)
            if not before:
                return
            await asyncio.sleep(_LOOK_AGAIN_S[min(look, len(_LOOK_AGAIN_S) - 1)])
            for stored_key in list(self._doubts):
                found = await self._mender.mend(stored_key)
                if found.is_good:
                    del self._doubts[stored_key]
                    self._changed.append(stored_key)
                else:
                    self._doubts[stored_key] = found
            await self._ask_for_named([], progress)
            patience = len(_LOOK_AGAIN_S)
            if all(found.silent and not found.here for found in self._doubts.values()):
                patience += _MORE_LOOKS
            if look + 1 >= patience and len(self._doubts) == before:
                break
        progress.looking_again = 0
        for found in self._doubts.values():
            _count_left(found, progress)

    # -- bookkeeping --------------------------------------------------------------------------------

    async def _check_bookkeeping(self, progress: Progress) -> None:
        first = BOOKKEEPING_FIRST
        while True:
            rotten: list[bytes] = []
            count, last = 0, b""
            with self._tools.store.read() as txn:
                for stored_key, value in walk(txn, first, _BOOKKEEPING_END):
                    count, last = count + 1, stored_key
                    if value is None:
                        rotten.append(stored_key)
                    if count == _BOOKKEEPING_BATCH:
                        break
            progress.records += count
            for stored_key in rotten:
                await self._mend(stored_key, progress)
            if count < _BOOKKEEPING_BATCH:
                return
            first = last + b"\0"
            await self._pace.spend(count * 100)


def _between(rows: list[Row], after: bytes, upto: bytes) -> list[Row]:
    """Rows behind ``after``, up to and with ``upto`` (empty: to the end)."""
    return [row for row in rows if row[0] > after and (not upto or row[0] <= upto)]


def _left_of(progress: Progress) -> int:
    return progress.unrepaired + progress.elsewhere + progress.unheard


def _count_left(found: Mended, progress: Progress) -> None:
    progress.unrepaired += bool(found.here)
    progress.elsewhere += bool(found.elsewhere and not found.here)
    progress.unheard += bool(found.silent and not found.elsewhere and not found.here)
