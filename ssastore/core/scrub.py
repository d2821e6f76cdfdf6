"""One pass over everything that an environment holds, and over what its mates hold of the same. Coroutines.

For each slice, page by page: every record is read and its checksum verified; then the
page's digest is compared with those of the other planes, and where they differ, entry by
entry.  What is found goes the protocol's own way and no other:

    rotten, or missing here       rebuilt from the other planes (``core.repair``)
    records that differ           a round that makes what is agreed firm (``core.settle``)
    a blob missing here           fetched by its digest, if any reference to it stands
    an old reference              examined (``core.sweep``)
    an old promise of nothing     dropped, the slice's floor keeps it

Nothing is called healthy here before a whole pass has read every copy.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from blake3 import blake3

from ssastore.core.blobstore import Reference, adopt, decode_reference, references_of
from ssastore.core.collect import Collector, drop_promise, is_idle
from ssastore.core.records import BOOKKEEPING_FIRST, in_plane, split_place
from ssastore.core.register import LIVE, NO_BALLOT, counter_of, decode_slot, peek_slot
from ssastore.core.repair import Repairer
from ssastore.core.shuts import take_mark
from ssastore.core.survey import (
    EMPTY,
    Difference,
    Row,
    SurveyPage,
    accepted_of,
    differences,
    digest_of,
    occupied,
    survey,
    walk,
)
from ssastore.core.sweep import Sweeper
from ssastore.core.tools import Tools
from ssastore.errors import SsaStoreError, Unavailable
from ssastore.limits import SURVEY_SLICES_MAX
from ssastore.messages import RECORD_KINDS, Kind

log = logging.getLogger(__name__)

YOUNG_MS = 5_000
"A difference in something newer than this is a write on its way."

_CHUNK_BYTES = 16 << 10
"What it costs to ask about a run of slices that are all empty."

_BOOKKEEPING_BATCH = 500
_BOOKKEEPING_END = b"\xff" * 8
_READS_BEFORE_REST = 20


@dataclass(slots=True)
class Progress:
    """How far a pass is, and what it found; counts are of entries."""

    number: int
    began_ms: int
    ended_ms: int = 0
    slices: int = 0
    slices_done: int = 0
    records: int = 0
    bytes: int = 0
    rotten: int = 0
    missing: int = 0
    "Not here, but at a majority or at a mate."
    stale: int = 0
    "Here or at a mate older than what is agreed."
    repaired: int = 0
    unrepaired: int = 0
    collected: int = 0
    "References and records that were dropped."
    not_compared: int = 0
    "Slices of mates that could not be asked."

    @property
    def is_healthy(self) -> bool:
        """Whether every copy was read and compared, and all of them are good."""
        return self.ended_ms > 0 and not self.unrepaired and not self.not_compared


@dataclass(slots=True)
class _Finds:
    """What a page holds that wants attention."""

    old_references: list[tuple[bytes, Reference]] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    wrong_blobs: list[bytes] = field(default_factory=list)
    "Sealed well, and not what their digest says."
    old_promises: list[bytes] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)


class Pace:
    """Spreads work over time: so many bytes a second."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._due_s = 0.0
        self._reads = 0

    async def spend(self, size: int) -> None:
        """Wait until ``size`` more bytes may have been read."""
        now_s = asyncio.get_running_loop().time()
        self._due_s = max(self._due_s, now_s) + size / self._bytes_per_s
        self._reads += 1
        # Short rests are saved up: a timer is coarse.
        if self._due_s - now_s > 0.01 or self._reads % _READS_BEFORE_REST == 0:
            await asyncio.sleep(self._due_s - now_s)


class Scrub:
    """Passes of one worker."""

    def __init__(self, tools: Tools, repairer: Repairer, sweeper: Sweeper, collector: Collector) -> None:
        self._tools = tools
        self._repairer = repairer
        self._sweeper = sweeper
        self._collector = collector
        self._pace = Pace(tools.rules.scrub_bytes_per_s)
        self._wanted = asyncio.Event()
        self._passes = 0
        self.current: Progress | None = None
        self.last: Progress | None = None
        "The last pass that was finished since the start."

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
            wait_s = rules.scrub_every_s
            self._wanted.clear()
            await self.run_pass()

    async def run_pass(self) -> Progress:
        """One pass; what it found."""
        tools = self._tools
        self._passes += 1
        progress = Progress(self._passes, tools.clock.now_ms(), slices=len(tools.acceptor.active))
        self.current = progress
        try:
            mine = sorted(tools.acceptor.active)
            for at in range(0, len(mine), SURVEY_SLICES_MAX):
                await self._check_slices(mine[at : at + SURVEY_SLICES_MAX], progress)
            await self._check_bookkeeping(progress)
        finally:
            self.current = None
        progress.ended_ms = max(tools.clock.now_ms(), progress.began_ms + 1)
        self.last = progress
        log.info("scrub.done", extra={k: v for k, v in asdict(progress).items() if v})
        return progress

    def report(self) -> dict[str, Any]:
        """For status: the state of health, the pass under way, the last whole one."""
        last, pending = self.last, len(self._tools.acceptor.rotten)
        if last is None:
            health = "not checked yet"
        elif pending or not last.is_healthy:
            broken = last.unrepaired + pending
            health = f"{broken} copies missing" if broken else "not all replicas could be compared"
        else:
            health = "healthy"
        return {
            "health": health,
            "repaired": self._repairer.counts.repaired,
            "not_repaired": self._repairer.counts.failed,
            "pending": pending,
            "pass": asdict(replace(self.current)) if self.current is not None else None,
            "last": asdict(last) if last is not None else None,
        }

    # -- one slice ----------------------------------------------------------------------------------

    async def _check_slices(self, slice16s: list[int], progress: Progress) -> None:
        """Slices in a row: what is small is compared with one question a mate."""
        told: dict[int, tuple[int, bytes]] = {}
        rows = [self._mates_of(slice16) for slice16 in slice16s]
        for mates in zip(*rows, strict=True):
            told |= await self._tools.survey_slices(list(mates))
        with self._tools.store.read() as txn:
            holding = occupied(txn, slice16s)
        empty = {mate for mate, said in told.items() if said == (0, EMPTY)}
        for slice16, others in zip(slice16s, rows, strict=True):
            if slice16 in holding or not empty.issuperset(others):
                await self._check_slice(slice16, told, progress)
            progress.slices_done += 1
        await self._pace.spend(_CHUNK_BYTES)

    def _mates_of(self, slice16: int) -> list[int]:
        """The slices of the same group in the other planes."""
        replicas = self._tools.replicas
        planes = [((slice16 >> 12) + step) % replicas for step in range(1, replicas)]
        return [plane << 12 | slice16 & 0xFFF for plane in planes]

    async def _check_slice(
        self, slice16: int, told: dict[int, tuple[int, bytes]], progress: Progress
    ) -> None:
        mates = self._mates_of(slice16)
        asked = dict.fromkeys(mates, True)
        after = b""
        while True:
            finds = _Finds()
            with self._tools.store.read() as txn:
                page = survey(txn, slice16, after, b"", self._visitor(finds))
                finds.blobs = [key for key in finds.blobs if not _has_references(txn, key)]
            progress.records += page.seen
            progress.bytes += page.size
            progress.rotten += len(page.rotten)
            progress.rotten += len(finds.wrong_blobs)
            for stored_key in [*page.rotten, *finds.wrong_blobs]:
                self._note(await self._repairer.repair(stored_key), progress)
            await self._care(finds, progress)
            is_whole = not after and not page.is_cut
            for mate in mates:
                if is_whole and told.get(mate) == (page.count, page.digest):
                    continue
                if asked[mate]:
                    asked[mate] = await self._compare(slice16, mate, after, page, progress)
            await self._pace.spend(page.size)
            if not page.is_cut:
                break
            after = page.last
        progress.not_compared += sum(not answered for answered in asked.values())

    def _visitor(self, finds: _Finds) -> Any:
        now_ms, rules = self._tools.clock.now_ms(), self._tools.rules
        oldest_ms = now_ms - rules.blob_grace_ms
        dead_ms = now_ms - 2 * rules.tombstone_kept_ms

        def visit(stored_key: bytes, value: memoryview | bytes) -> None:
            kind = split_place(stored_key)[1]
            if kind == Kind.BLOB:
                finds.blobs.append(stored_key)
                if blake3(value).digest() != stored_key[5:]:
                    finds.wrong_blobs.append(stored_key)
            elif kind == Kind.REF:
                reference = decode_reference(value)
                if reference.at_ms < oldest_ms:
                    finds.old_references.append((stored_key, reference))
            elif kind in RECORD_KINDS:
                accepted, state, *_ = peek_slot(value)
                if state != LIVE and is_idle(decode_slot(value, NO_BALLOT), dead_ms):
                    (finds.dead if accepted != NO_BALLOT else finds.old_promises).append(stored_key)

        return visit

    async def _care(self, finds: _Finds, progress: Progress) -> None:
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

    def _note(self, is_good: bool, progress: Progress) -> None:
        if is_good:
            progress.repaired += 1
        else:
            progress.unrepaired += 1

    # -- comparing ----------------------------------------------------------------------------------

    async def _compare(
        self, slice16: int, mate: int, after: bytes, page: SurveyPage, progress: Progress
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
                        await self._resolve(slice16, difference, progress)
                if not theirs.is_cut:
                    return True
                at = upto
        except SsaStoreError as error:
            log.info("scrub.not_compared", extra={"slice": f"{mate:04x}", "reason": str(error)})
            return False

    async def _resolve(self, slice16: int, found: Difference, progress: Progress) -> None:
        """Make one difference go away, by the rules of what it is."""
        stored_key = in_plane(found.key, slice16 >> 12)
        kind = split_place(stored_key)[1]
        try:
            if kind in RECORD_KINDS:
                await self._resolve_record(stored_key, found, progress)
            elif kind == Kind.SHUT:
                if found.theirs is not None:
                    mark = found.theirs
                    await self._tools.store.submit(lambda txn: take_mark(txn, stored_key, mark))
            elif found.mine is None:
                await self._resolve_blob(stored_key, slice16, progress)
        except Unavailable as error:
            log.warning("scrub.unresolved", extra={"key": stored_key[:64].hex(), "reason": str(error)})
            progress.unrepaired += 1

    async def _resolve_record(self, stored_key: bytes, found: Difference, progress: Progress) -> None:
        mine, theirs = accepted_of(found.mine or NO_BALLOT), accepted_of(found.theirs or NO_BALLOT)
        now_ms = self._tools.clock.now_ms()
        if counter_of(max(mine, theirs)) // 1000 > now_ms - YOUNG_MS or self._is_newer(stored_key, mine):
            return
        if mine == theirs:
            log.critical("record.diverged", extra={"key": stored_key[:64].hex(), "ballot": mine.hex()})
            progress.unrepaired += 1
            return
        if found.mine is None:
            # Perhaps it was never here; perhaps it is lost. Then its promise is lost as well.
            progress.missing += 1
            await self._repairer.rebuild_record(stored_key)
            progress.repaired += 1
            return
        progress.stale += 1
        name = self._tools.names.of_stored(stored_key)
        assert name is not None and self._tools.settler is not None and self._tools.coordinator is not None
        planes = self._tools.coordinator.planes_of(name)
        settled = await self._tools.settler.settle(name.label, planes)
        self._note(settled.held == self._tools.replicas, progress)

    def _is_newer(self, stored_key: bytes, mine: bytes) -> bool:
        """Whether the record here has changed since the page was read."""
        with self._tools.store.read() as txn:
            stored = txn.get(stored_key)
            return stored is not None and decode_slot(stored, NO_BALLOT).accepted != mine

    async def _resolve_blob(self, stored_key: bytes, slice16: int, progress: Progress) -> None:
        """A blob or a reference that a mate has: wanted here if any reference to it stands."""
        locator, _, rest = split_place(stored_key)
        digest, blob = rest[:32], blob_of(stored_key)
        references: list[Reference] = []
        for plane in range(self._tools.replicas):
            if plane != slice16 >> 12:
                try:
                    references += (await self._sweeper.references_at(digest, plane))[1]
                except Unavailable:
                    continue
        wanted = [ref for ref in references if await self._sweeper.is_wanted(digest, [ref])]
        young_ms = self._tools.clock.now_ms() - YOUNG_MS
        if all(ref.at_ms > young_ms for ref in wanted):
            return
        with self._tools.store.read() as txn:
            known = {ref.name for _, ref in references_of(txn, locator, digest) if ref is not None}
            is_here = txn.get(blob) is not None
        if is_here and all(ref.name in known for ref in wanted):
            return
        progress.missing += 1
        if is_here:
            await self._tools.store.submit(
                partial(adopt, locator=locator, digest=digest, body=None, references=wanted)
            )
        else:
            await self._repairer.fetch_blob(blob, wanted)
        progress.repaired += 1

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
            progress.rotten += len(rotten)
            for stored_key in rotten:
                self._note(await self._repairer.repair(stored_key), progress)
            if count < _BOOKKEEPING_BATCH:
                return
            first = last + b"\0"
            await self._pace.spend(count * 100)


def _has_references(txn: Any, stored_key: bytes) -> bool:
    return bool(references_of(txn, int.from_bytes(stored_key[:4], "big"), stored_key[5:]))


def _between(rows: list[Row], after: bytes, upto: bytes) -> list[Row]:
    """Rows behind ``after``, up to and with ``upto`` (empty: to the end)."""
    return [row for row in rows if row[0] > after and (not upto or row[0] <= upto)]


def blob_of(stored_key: bytes) -> bytes:
    """The stored key of the blob that a blob's or a reference's key is about."""
    return stored_key[:4] + bytes([Kind.BLOB]) + stored_key[5:37]
