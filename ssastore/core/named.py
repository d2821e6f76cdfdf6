"""What records name: are their blobs kept for them, and if not, is there any? Coroutines.

Planes are compared with each other.  Of a blob that is gone on all of them together with its references
nothing is left to compare, but for the record that names it.  So a scrub also begins at records.  They are
the same on all planes, so one plane of a group asks for its records, another one for those of the next group.

    kept      a reference of this record lies where the blob belongs, on some plane: scrubs of that slice see
              to it that it lies on all, with its blob.  One small question, which reads no blob
    not kept  a plane has the blob: it is referred to again, and goes to planes that lack it (``Blobs.keep``)
    lost      no plane has it, and a majority still says that the record is as it was when it was asked for

What is about to be written has its references before its record, so it is kept.  What is being
replaced or deleted may be swept meanwhile: that shows when the record is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ssastore.core.blobstore import Reference, has_reference
from ssastore.core.content import Blobs
from ssastore.core.metadata import Metadata, Segment, SegmentKind, decode_manifest, decode_metadata
from ssastore.core.names import RecordName
from ssastore.core.numbers import group_of_part, part_of_slice, plane_of_slice
from ssastore.core.place import Place, place_key
from ssastore.core.records import (
    in_plane,
    reference_key,
    reference_name,
    split_place,
    split_reference_name,
)
from ssastore.core.register import LIVE, peek_slot
from ssastore.core.sweep import Sweeper
from ssastore.core.titles import Titles
from ssastore.core.tools import Tools
from ssastore.core.versionnames import NAME_LENGTH, version_key
from ssastore.errors import CorruptObject, ObjectNotFound, SsaStoreError
from ssastore.keyspace import TAIL_BITS, iid_of, position_of_blob
from ssastore.limits import DOUBTS_MAX
from ssastore.messages import Kind

log = logging.getLogger(__name__)

LOST = "no plane has a good copy of a blob that it names"

QUESTION_BYTES = 16 << 10
"What a question for a reference costs, as bytes that a pass reads."

NAMING_KINDS = frozenset((Kind.OBJECT, Kind.VERSION, Kind.PART))
"Records that name blobs."

_AT_ONCE = 16

_LACKING_MAX = 64
"Blobs of one record that are looked at closely before the rest of them."

_TURNS_MAX = 3
"Close looks after which the same blobs are in doubt as before: then it is tried again later."

_PART_NUMBER_BYTES = 2


class Naming(NamedTuple):
    """A record that may name blobs, as it was read here."""

    stored_key: bytes
    modified_ms: int
    packed: bytes
    "Its metadata."


class Asked(NamedTuple):
    """What came of asking for what records name."""

    blobs: int
    "How many were asked for."
    lacking: list[bytes]
    "Stored keys of the records that want a close look."


class Looked(NamedTuple):
    """What a close look at a record's blobs has found and left; in the words of ``mend.Mended``."""

    fault: str = ""
    here: str = ""
    silent: str = ""
    is_young: bool = False
    title: str = ""


@dataclass(slots=True)
class _Doubt:
    """Blobs that nothing is known to keep for a record."""

    record: Naming
    digests: list[bytes] = field(default_factory=list)
    is_unread: bool = False
    "A manifest among them could not be read: what it names was not asked for."
    lost: bytes = b""
    "One of which no plane had a good copy when it was looked for last."

    def add(self, digest: bytes) -> None:
        if len(self.digests) < _LACKING_MAX and digest not in self.digests:
            self.digests.append(digest)


class Named:
    """What the records of one environment name."""

    def __init__(self, tools: Tools, blobs: Blobs, sweeper: Sweeper, titles: Titles) -> None:
        self._tools = tools
        self._blobs = blobs
        self._sweeper = sweeper
        self._titles = titles
        self._doubts: dict[bytes, _Doubt] = {}

    def is_asked_by(self, number: int) -> bool:
        """Whether it is a slice's own plane that asks for what its records name."""
        group = group_of_part(part_of_slice(number))
        return plane_of_slice(number) == group % self._tools.acceptor.served.count_of(group)

    def read(self, stored_key: bytes) -> Naming | None:
        """What stands here now; None when it names nothing, or another plane asks for it."""
        locator, kind, _ = split_place(stored_key)
        if kind not in NAMING_KINDS:
            return None
        if not self.is_asked_by(self._tools.acceptor.served.slice_at(locator << TAIL_BITS)):
            return None
        with self._tools.store.read() as txn:
            try:
                stored = txn.get(stored_key)
                return None if stored is None else naming_of(stored_key, stored)
            except CorruptObject:
                return None

    # -- asking -------------------------------------------------------------------------------------

    async def ask(self, records: Sequence[Naming], spend: Callable[[int], Awaitable[None]]) -> Asked:
        """Ask for all that records name. ``spend`` is told what that costs in bytes, and may wait."""
        doubts: dict[bytes, _Doubt] = {}
        count = 0
        run: list[tuple[Naming, list[bytes], bytes]] = []

        async def ask_for_run() -> None:
            kept = await asyncio.gather(*[self._is_kept(names, digest) for _, names, digest in run])
            for (record, _, digest), is_kept in zip(run, kept, strict=True):
                if not is_kept:
                    doubts.setdefault(record.stored_key, _Doubt(record)).add(digest)
            await spend(len(run) * QUESTION_BYTES)
            run.clear()

        for record in records:
            name = self._tools.names.of_stored(record.stored_key)
            metadata = _decoded(record)
            if name is None or metadata is None:
                continue
            names = _reference_names(name, metadata)
            async for digest, is_readable in self._digests(metadata.segments):
                count += 1
                run.append((record, names, digest))
                if not is_readable:
                    doubt = doubts.setdefault(record.stored_key, _Doubt(record))
                    doubt.is_unread = True
                    doubt.add(digest)
                if len(run) == _AT_ONCE:
                    await ask_for_run()
        if run:
            await ask_for_run()
        # What was in doubt and is not any more wants a look too: until then it is told as damage.
        known = [
            key for record in records if (key := record.stored_key) in self._doubts and key not in doubts
        ]
        for record in records:
            self._doubt(record.stored_key, doubts.get(record.stored_key))
        return Asked(count, [*doubts, *known])

    def _doubt(self, stored_key: bytes, doubt: _Doubt | None) -> None:
        before = self._doubts.pop(stored_key, None)
        if doubt is not None and len(self._doubts) < DOUBTS_MAX:
            if before is not None and before.record == doubt.record:
                doubt.lost = before.lost
            self._doubts[stored_key] = doubt

    async def _digests(self, segments: Sequence[Segment]) -> AsyncGenerator[tuple[bytes, bool], None]:
        """Of all blobs that segments name; and False with a manifest that cannot be read."""
        for segment in segments:
            inner: list[Segment] = []
            is_readable = True
            if segment.kind == SegmentKind.MANIFEST:
                try:
                    inner = decode_manifest(await self._blobs.get(segment.digest))
                except SsaStoreError:
                    is_readable = False
            yield segment.digest, is_readable
            async for found in self._digests(inner):
                yield found

    async def _is_kept(self, names: Sequence[bytes], digest: bytes) -> bool:
        """Whether one of these references to a blob is found on some plane that answers."""
        position = position_of_blob(digest)
        keys = sorted(reference_key(position >> TAIL_BITS, digest, name) for name in names)
        for plane in self._planes_of(position, digest):
            if self._is_here(position, plane):
                with self._tools.store.read() as txn:
                    if any(has_reference(txn, in_plane(key, plane)) for key in keys):
                        return True
                continue
            try:
                found = await self._tools.survey_between(iid_of(position, plane), keys[0], keys[-1])
            except SsaStoreError:
                continue
            if any(key in keys for key, _ in found):
                return True
        return False

    def _planes_of(self, position: int, digest: bytes) -> list[int]:
        """The planes of a blob, those first that are here; of the others each as often as the next."""
        count = self._tools.acceptor.served.count_at(iid_of(position, 0))
        planes = [(digest[-1] + step) % count for step in range(count)]
        return sorted(planes, key=lambda plane: not self._is_here(position, plane))

    def _is_here(self, position: int, plane: int) -> bool:
        served = self._tools.acceptor.served
        return served.slice_at(iid_of(position, plane)) in served.active

    # -- looking closely ----------------------------------------------------------------------------

    async def look(self, stored_key: bytes) -> Looked:
        """Look closely at what was in doubt of a record of which all planes say the same, and heal it."""
        try:
            return await self._look(stored_key)
        except SsaStoreError as error:
            log.info("object.not_examined", extra={"key": stored_key[:64].hex(), "reason": str(error)})
            return Looked(silent="the planes of what it names did not all answer")

    async def _look(self, stored_key: bytes) -> Looked:
        fault, turns = "", 0
        while (doubt := self._doubts.get(stored_key)) is not None:
            record, name = self.read(stored_key), self._tools.names.of_stored(stored_key)
            if record is None or name is None or not await self._is_wanted(name):
                break
            if record == doubt.record:
                healed, lost = await self._heal(doubt, name)
                fault = "missing" if healed else fault
                if lost:
                    return await self._say_lost(doubt, name, lost)
                if not healed and not doubt.is_unread:
                    break  # It is kept, for this record under another of its names.
            await self.ask([record], _for_nothing)
            after = self._doubts.get(stored_key)
            if after is not None and (after.record, after.digests) == (doubt.record, doubt.digests):
                turns += 1
                if turns == _TURNS_MAX:
                    return Looked(fault, is_young=True)
        self._doubts.pop(stored_key, None)
        return Looked(fault)

    async def _heal(self, doubt: _Doubt, name: RecordName) -> tuple[int, bytes]:
        """How many blobs are kept now that were not, and one that is lost. Raises SsaStoreError."""
        metadata = _decoded(doubt.record)
        assert metadata is not None, "it was decoded when it was asked for"
        reference = _reference_names(name, metadata)[0]
        healed, lost = 0, b""
        # What is lost is tried again for ever: that must not cost as much as all that a large object names.
        for digest in [doubt.lost] if doubt.lost else list(doubt.digests):
            try:
                if not await self._is_surely_kept(name, reference, digest):
                    await self._blobs.get(digest)
                    await self._blobs.keep(digest, reference)
                    healed += 1
            except (ObjectNotFound, CorruptObject):
                lost = lost or digest
        if doubt.lost and not lost:
            doubt.lost = b""
            healed += 1  # It has come back, whoever brought it.
        return healed, lost

    async def _is_surely_kept(self, name: RecordName, reference: bytes, digest: bytes) -> bool:
        """Whether some plane has a blob, and a reference to it of this record, under whatever name."""
        position = position_of_blob(digest)
        for plane in self._planes_of(position, digest):
            try:
                if self._is_here(position, plane):
                    locator = iid_of(position, plane) >> TAIL_BITS
                    is_there, references = self._sweeper.references_here(locator, digest)
                else:
                    is_there, references = await self._sweeper.references_at(digest, plane)
            except SsaStoreError:
                continue
            if is_there and any(_keeps(ref, name, reference) for ref in references):
                return True
        return False

    async def _is_wanted(self, name: RecordName) -> bool:
        """Whether somebody may still want it: parts of an upload that has ended are left over."""
        if name.kind != Kind.PART:
            return True
        place, key = Place(name.bucket, name.shards), name.key[:-_PART_NUMBER_BYTES]
        return (await self._tools.registers.state(place, Kind.UPLOAD, key, head_only=True)).is_live

    async def _say_lost(self, doubt: _Doubt, name: RecordName, lost: bytes) -> Looked:
        """What is to be said of a blob that is nowhere, unless the record has changed meanwhile."""
        place = Place(name.bucket, name.shards)
        found = await self._tools.registers.state(place, Kind(name.kind), name.key, head_only=True)
        record = doubt.record
        if not found.is_live or (found.modified_ms, found.packed) != (record.modified_ms, record.packed):
            return Looked(is_young=True)
        title = await self._titles.of_record(name.bucket, name.kind, name.key)
        if not doubt.lost:
            log.error("object.lacks_blob", extra={"object": title, "blob": lost.hex()})
        doubt.lost = lost
        return Looked("missing", here=LOST, title=title)


def naming_of(stored_key: bytes, stored: memoryview | bytes) -> Naming | None:
    """Of a stored record what it may name; None when its bytes lie in it, or there is none. CorruptObject."""
    _, state, modified_ms, packed, data = peek_slot(stored)
    if state != LIVE or data or stored_key[4] not in NAMING_KINDS:
        return None
    return Naming(stored_key, modified_ms, bytes(packed))


def _decoded(record: Naming) -> Metadata | None:
    """None when it names nothing, as one that is empty, or is none."""
    try:
        metadata = decode_metadata(record.packed)
    except CorruptObject:
        return None
    return metadata if metadata.segments else None


def _reference_names(name: RecordName, metadata: Metadata) -> list[bytes]:
    """References that may keep the blobs of a record, first the one that it can always be given."""
    keys = [name.key[:-_PART_NUMBER_BYTES] if name.kind == Kind.PART else name.key]
    if name.kind == Kind.OBJECT:
        if upload := metadata.extra.get("upload"):
            keys.append(name.key + b"\0" + str(upload).encode())
        if metadata.version is not None and len(metadata.version.name) == NAME_LENGTH:
            keys.append(version_key(name.key, metadata.version.name))  # It has become current again.
    return [reference_name(name.bucket, name.shards, key) for key in keys]


def _keeps(reference: Reference, name: RecordName, own: bytes) -> bool:
    """Whether a reference keeps a blob for a record: see ``Sweeper.stands``."""
    try:
        bucket, _, key = split_reference_name(reference.name)
        _, _, wanted = split_reference_name(own)
    except ValueError:
        return False
    if bucket != name.bucket:
        return False
    return place_key(key) == name.key if name.kind == Kind.OBJECT else key == wanted


async def _for_nothing(size: int) -> None:
    """A close look is rare, and waits for nothing."""
