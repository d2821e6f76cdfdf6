"""One stored key on all planes: are its copies good and alike, and if not, what is to be done? Coroutines.

    rotten here                   rebuilt from the other planes (``core.repair``)
    missing here                  the same: what this plane has promised for it is lost as well
    missing at another plane      that plane is told (Recheck) and does the same; a vote that it gives before
                                  would be that of a plane that has never heard of the name
    held under different ballots  a round that makes what is agreed firm (``core.settle``)
    a blob or reference missing   fetched, if any reference to the blob stands
    what a record names in doubt  kept again, or said to be lost (``core.named``)
    marks of a shut bucket        the later one counts

What is said of a copy is said after looking again.  What is newer than a few seconds is
a write on its way and no difference yet, and is looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from ssastore.core.blobstore import UNKNOWN_REFERENCE, Reference
from ssastore.core.collect import Collector
from ssastore.core.doubts import Doubts
from ssastore.core.named import Named
from ssastore.core.records import BOOKKEEPING_FIRST, blob_of, in_plane, split_place
from ssastore.core.register import counter_of
from ssastore.core.repair import Repairer
from ssastore.core.shuts import is_shut, take_mark
from ssastore.core.survey import accepted_of, witness_of
from ssastore.core.sweep import Sweeper
from ssastore.core.titles import Titles
from ssastore.core.tools import Tools
from ssastore.errors import CorruptObject, SsaStoreError, Unavailable
from ssastore.keyspace import TAIL_BITS
from ssastore.limits import DOUBTS_MAX
from ssastore.messages import RECORD_KINDS, Kind, Recheck

log = logging.getLogger(__name__)

YOUNG_MS = 5_000
"A difference in something newer than this is a write on its way."

_AGAIN_MS = 30_000
"How often a copy that could not be healed is tried again."
_AGAIN_MAX = 500
"How many of them at a time."

_OBJECTS_TOLD = 20

Rows = dict[int, bytes | None]
"What each plane that answers has for one key: the witness of ``core.survey``."


@dataclass(frozen=True, slots=True)
class Mended:
    """What one look at a key has found and left."""

    fault: str = ""
    'What was wrong with the copy here: "rotten", "missing" or "stale"; empty when nothing was.'
    here: str = ""
    "Why the copy here is not good now; empty when it is."
    elsewhere: str = ""
    "The same of another plane's."
    silent: str = ""
    "Who did not answer: nothing is known against that copy, nor for it."
    is_young: bool = False
    "The planes differ, and it may be a write on its way."
    rows: Rows = field(default_factory=dict)
    "What they differed in."
    since_ms: int = 0
    "When they were first seen like that."
    at_ms: int = 0
    "When it was looked at."
    title: str = ""
    "What people call the object that cannot be read."

    @property
    def is_good(self) -> bool:
        return not (self.here or self.elsewhere or self.silent or self.is_young)


class Left(NamedTuple):
    """Entries that could not be healed, or not be compared, when they were looked at last."""

    here: int
    "Copies here that are not good."
    elsewhere: int
    "Of those that are good here: copies of others that are not."
    unheard: int
    "Entries that not all planes answered for."
    why: dict[str, int]
    "How many there are of the first two, for each reason."
    objects: list[str]
    "Some of the objects that cannot be read for lack of a blob."


class Tally:
    """Copies here that were found bad while a pass ran, by whomever, and how many of them are good now."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.repaired = 0
        self._bad: dict[bytes, None] = {}

    def note(self, stored_key: bytes, found: Mended) -> None:
        """Add what a look has found; one key is one copy, however often it is looked at."""
        was_bad = stored_key in self._bad
        if found.fault and not was_bad:
            self.faults[found.fault] += 1
        if found.here:
            self._bad[stored_key] = None
        elif was_bad or found.fault:
            self.repaired += 1
            self._bad.pop(stored_key, None)


class Mender:
    """Looks at doubtful keys of one environment: for requests and mates that found them, and for scrubs."""

    def __init__(
        self,
        tools: Tools,
        repairer: Repairer,
        sweeper: Sweeper,
        collector: Collector,
        named: Named,
        titles: Titles,
    ) -> None:
        self._tools = tools
        self._repairer = repairer
        self._sweeper = sweeper
        self._collector = collector
        self._named = named
        self._titles = titles
        self._doubts: Doubts = tools.acceptor.doubts
        self._left: dict[bytes, Mended] = {}
        "Keys that could not be healed, and what was found when they were looked at last."
        self._under_way: dict[bytes, asyncio.Event] = {}
        "Keys that are being looked at: a pass and a mate's word may lead to the same one at once."
        self.tally = Tally()
        "Of the pass that runs; each begins a new one."

    async def run(self) -> None:
        """Look at what requests and mates found since the last time, and now and then at what was left."""
        for stored_key in self._doubts.take():
            await self.mend(stored_key)
        again_ms = self._tools.clock.now_ms() - _AGAIN_MS
        due = [key for key, found in self._left.items() if found.at_ms < again_ms]
        for stored_key in due[:_AGAIN_MAX]:
            await self.mend(stored_key)

    async def mend(self, stored_key: bytes) -> Mended:
        """Look at one key, do what can be done, say what is left; the next look goes on from there."""
        while (under_way := self._under_way.get(stored_key)) is not None:
            await under_way.wait()
        done = self._under_way[stored_key] = asyncio.Event()
        try:
            return await self._mend_alone(stored_key)
        finally:
            del self._under_way[stored_key]
            done.set()

    async def _mend_alone(self, stored_key: bytes) -> Mended:
        before = self._left.get(stored_key)
        try:
            found = await self._mend(stored_key, before)
        except SsaStoreError as error:
            # Nothing was found out: the store itself, or a reply that makes no sense.
            found = Mended(elsewhere=f"{type(error).__name__}: it could not be looked at")
            log.warning("record.not_examined", extra={"key": stored_key[:64].hex(), "reason": str(error)})
        now_ms = self._tools.clock.now_ms()
        is_same = before is not None and before.rows == found.rows
        found = replace(found, at_ms=now_ms, since_ms=before.since_ms if before and is_same else now_ms)
        self.tally.note(stored_key, found)
        self._doubts.discard(stored_key)
        self._left.pop(stored_key, None)
        if not found.is_good and len(self._left) < DOUBTS_MAX:
            self._left[stored_key] = found
        return found

    def left(self) -> Left:
        """What is not known to be good now."""
        here = [found.here for found in self._left.values() if found.here]
        elsewhere = [found.elsewhere for found in self._left.values() if found.elsewhere and not found.here]
        unheard = sum(bool(found.silent) for found in self._left.values())
        why = dict(sorted(Counter([*here, *elsewhere]).items()))
        objects = sorted({found.title for found in self._left.values() if found.title})
        return Left(len(here), len(elsewhere), unheard, why, objects[:_OBJECTS_TOLD])

    async def _mend(self, stored_key: bytes, before: Mended | None) -> Mended:
        fault = ""
        if self._repairer.is_rotten(stored_key):
            why = await self._repairer.repair(stored_key)
            if why:
                return Mended("rotten", here=why)
            fault = "rotten"
        if stored_key >= BOOKKEEPING_FIRST:
            return Mended(fault)
        kind, is_alone = split_place(stored_key)[1], self._tools.replicas_of(stored_key) == 1
        found = Mended()
        if kind in (Kind.BLOB, Kind.REF):
            found = await self._mend_blob(stored_key)
        elif kind in RECORD_KINDS:
            if not is_alone:
                found = await self._mend_record(stored_key, before)
            if found.is_good:
                found = await self._mend_named(stored_key, found)
        elif kind == Kind.SHUT and not is_alone:
            found = await self._mend_mark(stored_key)
        return replace(found, fault=fault or found.fault)

    # -- asking -------------------------------------------------------------------------------------

    async def _rows(self, stored_key: bytes) -> tuple[Rows, str]:
        """What the planes hold, and why some did not tell."""
        own = stored_key[0] >> 4
        rows: Rows = {own: self._own_row(stored_key)}
        silent = ""
        for plane in range(self._tools.replicas_of(stored_key)):
            if plane == own:
                continue
            try:
                rows[plane] = await self._tools.witness(stored_key, plane)
            except SsaStoreError:
                silent = f"plane {plane} did not answer"
        return rows, silent

    def _own_row(self, stored_key: bytes) -> bytes | None:
        with self._tools.store.read() as txn:
            try:
                stored = txn.get(stored_key)
            except CorruptObject:
                return None
            return None if stored is None else witness_of(stored_key, stored)

    async def _tell(self, stored_key: bytes, plane: int) -> bool:
        """Let another plane look at its copy; whether it has one at all, as far as is known."""
        name = in_plane(stored_key, plane)
        try:
            header, _ = await self._tools.ask_mate(
                Recheck(int.from_bytes(name[:4], "big") << 32, in_plane(name, 0))
            )
        except SsaStoreError as error:
            log.info("recheck.not_told", extra={"plane": plane, "reason": str(error)})
            return False
        return header[2] is True

    # -- records ------------------------------------------------------------------------------------

    async def _mend_record(self, stored_key: bytes, before: Mended | None) -> Mended:
        rows, silent = await self._rows(stored_key)
        own = stored_key[0] >> 4
        if _are_alike(rows):
            return Mended(silent=silent)
        if self._is_young(rows, before):
            return Mended(is_young=True, rows=rows)
        fault = _fault_of(rows, own)
        here = ""
        try:
            if _is_forked(rows):
                log.critical("record.diverged", extra={"key": stored_key[:64].hex()})
                return Mended(fault, here="two values under one ballot")
            if await self._collector.collect(stored_key):
                return Mended(fault)
            await self._agree(stored_key, rows)
        except SsaStoreError as error:
            log.warning("record.not_healed", extra={"key": stored_key[:64].hex(), "reason": str(error)})
            here = "too few of its other copies can be read" if fault else ""
        after, silent = await self._rows(stored_key)
        if _are_alike(after):
            return Mended(fault, silent=silent)
        if _newest(after) != _newest(rows):
            return Mended(fault, is_young=True, rows=after)  # Another plane heals, or a client writes.
        if self._is_shut(stored_key):
            return Mended(fault)  # No ACC passes, and nobody needs it: its bucket is being or was deleted.
        if _fault_of(after, own):
            return Mended(fault, here=here or "the planes did not come to agree", rows=rows)
        return Mended(fault, elsewhere=_whom(after), silent=silent, rows=rows)

    async def _agree(self, stored_key: bytes, rows: Rows) -> None:
        """Do this plane's part that all hold a record alike. Raises SsaStoreError."""
        tools, own = self._tools, stored_key[0] >> 4
        if not self._has_slot(stored_key):
            await self._repairer.rebuild_record(stored_key)
            return
        lacking = [plane for plane, row in rows.items() if row is None and plane != own]
        lost = [plane for plane in lacking if not await self._tell(stored_key, plane)]
        if lost:
            return  # Theirs is the next step.
        name = tools.names.of_stored(stored_key)
        if name is None:
            raise CorruptObject("a stored key hashes to another place", stored_key)
        planes = tools.coordinator.planes_of(name)
        # Who has only promised, we or another, may have lost what it accepted: then a majority may lack it.
        is_by_all = bool(lacking) or rows[own] is None
        await tools.settler.settle(name.label, planes, is_by_all=is_by_all)

    def _has_slot(self, stored_key: bytes) -> bool:
        with self._tools.store.read() as txn:
            return txn.get(stored_key) is not None

    def _is_shut(self, stored_key: bytes) -> bool:
        locator, _, rest = split_place(stored_key)
        bucket = int.from_bytes(rest[:8], "big")
        served = self._tools.acceptor.served
        marks = [served.mark_locator(locator << TAIL_BITS, shards) for shards in (0, 1)]
        with self._tools.store.read() as txn:
            try:
                return any(is_shut(txn, mark, bucket) for mark in marks)
            except CorruptObject:
                return False

    def _is_young(self, rows: Rows, before: Mended | None) -> bool:
        """Whether it may be a write on its way: its ballot is of now, and it was not seen some time ago.

        A ballot alone does not say so: those of repairs are ahead of the clock.
        """
        now_ms = self._tools.clock.now_ms()
        if before is not None and before.rows == rows and before.since_ms <= now_ms - YOUNG_MS:
            return False
        return counter_of(accepted_of(_newest(rows))) // 1000 > now_ms - YOUNG_MS

    async def _mend_named(self, stored_key: bytes, found: Mended) -> Mended:
        """What a record names, of which all planes say the same; ``found`` is what came of that."""
        fault, here, silent, is_young, title = await self._named.look(stored_key)
        return replace(
            found,
            fault=found.fault or fault,
            here=here,
            silent=silent,
            is_young=is_young,
            title=title,
        )

    # -- marks --------------------------------------------------------------------------------------

    async def _mend_mark(self, stored_key: bytes) -> Mended:
        rows, silent = await self._rows(stored_key)
        own = stored_key[0] >> 4
        if _are_alike(rows):
            return Mended(silent=silent)
        for plane, mark in rows.items():
            if plane != own and mark is not None:
                await self._tools.store.submit(partial(take_mark, stored_key=stored_key, mark=mark))
        mine = self._own_row(stored_key)
        for plane, mark in rows.items():
            if mark != mine:
                await self._tell(stored_key, plane)
        fault = "" if rows[own] == mine else "missing" if rows[own] is None else "stale"
        after, silent = await self._rows(stored_key)
        return Mended(fault, elsewhere="" if _are_alike(after) else _whom(after), silent=silent)

    # -- blobs --------------------------------------------------------------------------------------

    async def _mend_blob(self, stored_key: bytes) -> Mended:
        """A blob and its references: wanted on every plane if any reference to it stands on any."""
        own, digest = stored_key[0] >> 4, stored_key[5:37]
        held, silent = await self._held(stored_key)
        wanted = await self._wanted(digest, held)
        young_ms = self._tools.clock.now_ms() - YOUNG_MS
        lacking = [plane for plane, has in held.items() if not _has_all(has, wanted)]
        if not lacking:
            return Mended(silent=silent)
        if all(ref.at_ms > young_ms for ref in wanted):
            return Mended(is_young=True)
        for plane in lacking:
            if plane != own:
                await self._tell(stored_key, plane)
        elsewhere = next((f"plane {p} lacks a blob" for p in lacking if p != own), "")
        if own not in lacking:
            return Mended(elsewhere=elsewhere, silent=silent)
        try:
            await self._repairer.fetch_blob(blob_of(stored_key), wanted, is_here=held[own][0])
        except SsaStoreError as error:
            log.warning("blob.not_healed", extra={"key": stored_key[:64].hex(), "reason": str(error)})
            here = "no plane that answers has a good copy"
            title = await self._titles.of_reference(wanted[0].name)
            return Mended("missing", here=here, elsewhere=elsewhere, silent=silent, title=title)
        return Mended("missing", elsewhere=elsewhere, silent=silent)

    async def _held(self, stored_key: bytes) -> tuple[dict[int, _Held], str]:
        """By plane, whether the blob is there and its references; and why some did not tell."""
        own, digest = stored_key[0] >> 4, stored_key[5:37]
        held: dict[int, _Held] = {}
        silent = ""
        for plane in range(self._tools.replicas_of(stored_key)):
            try:
                if plane == own:
                    held[plane] = self._sweeper.references_here(int.from_bytes(stored_key[:4], "big"), digest)
                else:
                    held[plane] = await self._sweeper.references_at(digest, plane)
            except Unavailable:
                silent = f"plane {plane} did not answer"
        return held, silent

    async def _wanted(self, digest: bytes, held: dict[int, _Held]) -> list[Reference]:
        newest: dict[bytes, Reference] = {}
        for _, references in held.values():
            for ref in references:
                if ref.name not in newest or newest[ref.name].at_ms < ref.at_ms:
                    newest[ref.name] = ref
        # That nobody knows what a blob is for is no reason to have more of it.
        known = [ref for name, ref in sorted(newest.items()) if name != UNKNOWN_REFERENCE]
        return [ref for ref in known if await self._sweeper.is_wanted(digest, [ref])]


_Held = tuple[bool, list[Reference]]


def _has_all(held: _Held, wanted: list[Reference]) -> bool:
    is_there, references = held
    names = {ref.name for ref in references}
    return not wanted or (is_there and all(ref.name in names for ref in wanted))


def _are_alike(rows: Rows) -> bool:
    return len(set(rows.values())) <= 1


def _is_forked(rows: Rows) -> bool:
    """Whether planes hold different values under one ballot, which cannot be."""
    held = {row for row in rows.values() if row is not None}
    return len({accepted_of(row) for row in held}) < len(held)


def _newest(rows: Rows) -> bytes:
    return max(row or b"" for row in rows.values())


def _fault_of(rows: Rows, own: int) -> str:
    mine = rows[own]
    if mine == _newest(rows):
        return ""
    return "missing" if mine is None else "stale"


def _whom(rows: Rows) -> str:
    newest = _newest(rows)
    behind = [plane for plane, row in sorted(rows.items()) if row != newest]
    return f"plane {behind[0]} is missing it or behind"
