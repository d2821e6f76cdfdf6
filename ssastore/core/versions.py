"""Versions of an object: the current one in its own record, earlier ones beside it. Coroutines.

    OBJECT   key               the current version; there is none after a delete
    VERSION  key NUL name      an earlier version, or a marker that the object was deleted then

The time in a name is that of the object's record, which grows with every change (``IF_SAME``), so no
clock of a client orders versions.  The version written while a bucket makes none has a name as well
(``core.versionnames``); a record from before versioning is given one when it is first replaced.

Every change of the object's record is conditional on the very state that was read, so a condition of the
user, what is kept and what is replaced are one step.  A put keeps what is current as a VERSION, then
replaces it; a delete keeps it, deletes, then writes the marker under the time that the deletion got.

Keeping a version is one operation, whoever does it and however often (``Once``): who deletes a version
takes part in it first, so no slow writer brings back what was deleted.  Who makes an earlier version
current says so in that VERSION first (``Version.heir``), so who deletes or amends it knows that it
may be elsewhere in a moment, and changes the state that this depends on.  What is left after a crash is a
version twice under one name, which shows once.

Whether an operation that is repeated was successful before is seen from the end of a version's name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ssastore.core.buckets import Bucket
from ssastore.core.content import Blobs
from ssastore.core.demand import NOTHING, Demand
from ssastore.core.found import Found
from ssastore.core.keeping import ENABLED, RACED, SUSPENDED, Keeping, digest_of, is_marker, same
from ssastore.core.metadata import Metadata, Version
from ssastore.core.place import Place
from ssastore.core.registers import Once, Registers, When
from ssastore.core.versionnames import (
    NULL,
    ending_of,
    id_of,
    is_from,
    is_null,
    name_in,
    name_of,
    shown_ms,
    split_version_key,
    time_of,
    version_key,
)
from ssastore.env import Clock, Randomness
from ssastore.errors import (
    ObjectNotFound,
    PreconditionFailed,
    TryLater,
    VersionNotFound,
)
from ssastore.keyspace import shard_of_key
from ssastore.messages import OP_ID_BYTES, Condition, Kind
from ssastore.wire import Body

_TRIES = 50
"Each is lost to somebody who has changed the object meanwhile."
_CONTENDED = "the object is written by others all the time"
_NO_VERSION = "the object has no such version"

Guard = Callable[[Metadata], None]
"Raises when a version may not go."


@dataclass(frozen=True, slots=True)
class Written:
    """What a put has made: time of the object in ms since the epoch, and the version's name or nothing."""

    modified_ms: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did."""

    existed: bool
    marker: str = ""
    "Id of the marker that was made, or deleted; empty: none."


class Versions:
    """Versions of all objects.

    Methods that write raise as ``Registers.put``, and TryLater when others change the object all the time.
    ``status`` is what is set for the bucket: "Enabled", "Suspended", or empty for none.
    """

    def __init__(self, registers: Registers, blobs: Blobs, clock: Clock, randomness: Randomness) -> None:
        self.kept = Keeping(registers, blobs, clock, randomness)
        self._registers = registers
        self._clock = clock
        self._randomness = randomness

    # -- the current version ------------------------------------------------------------------------

    async def write(
        self,
        bucket: Bucket,
        key: bytes,
        metadata: Metadata,
        data: Body = b"",
        *,
        demand: Demand = NOTHING,
        once: Once | None = None,
        origin: bytes = b"",
    ) -> Written:
        """Write an object as the bucket demands: all that make objects come by here, inside ``Buckets.use``.

        ``origin`` is what a version's name is made from, if not from the operation.

        Raises:
            VersionKept: the bucket's record is older than its versions.
        """
        status, condition = bucket.versioning, demand.condition
        if status or condition is None:
            return await self.put(
                bucket.place, key, metadata, data, status=status, demand=demand, once=once, origin=origin
            )
        modified_ms = await self._registers.put(
            bucket.place, Kind.OBJECT, key, metadata, data, condition=condition, once=once
        )
        return Written(modified_ms)

    async def remove(
        self, bucket: Bucket, key: bytes, *, demand: Demand = NOTHING, once: Once | None = None
    ) -> Deleted:
        """Delete an object as the bucket demands. Raises as ``write``."""
        status, condition = bucket.versioning, demand.condition
        if status or condition is None:
            return await self.delete(bucket.place, key, status=status, demand=demand, once=once)
        return Deleted(
            await self._registers.delete(bucket.place, Kind.OBJECT, key, condition=condition, once=once)
        )

    async def put(
        self,
        place: Place,
        key: bytes,
        metadata: Metadata,
        data: Body = b"",
        *,
        status: str,
        demand: Demand = NOTHING,
        once: Once | None = None,
        origin: bytes = b"",
    ) -> Written:
        """Make a version the current one; what it replaces is kept, but for one "null" version by another.

        Raises:
            VersionKept: ``status`` is empty, and what is there is a version.
        """
        origin = origin or (once.op_id if once else self._randomness.bytes(OP_ID_BYTES))
        version = Version(ending_of(origin, is_null=status != ENABLED)) if status else None
        described = replace(metadata, version=version)
        for _ in range(_TRIES):
            born_ms = self._clock.now_ms()
            found = await self._registers.state(place, Kind.OBJECT, key)
            # An earlier attempt that comes later than this look replaces what we shall not find any more.
            if once and once.attempt > 1 and (earlier := await self.written(place, key, origin)):
                return earlier
            demand.check(found)
            try:
                found = await self.kept.leave(place, key, found, status, born_ms)
                again = _turn(once, origin, found)
                modified_ms = await self._registers.put(
                    place, Kind.OBJECT, key, described, data, condition=same(found), once=again
                )
            except RACED:
                continue
            name = name_of(modified_ms, version.name) if version else ""
            if status == SUSPENDED:
                await self.kept.drop_nulls(place, key, after=name)
            return Written(modified_ms, name)
        raise TryLater(_CONTENDED)

    async def delete(
        self, place: Place, key: bytes, *, status: str, demand: Demand = NOTHING, once: Once | None = None
    ) -> Deleted:
        """Delete the current version: it is kept, and a marker says so.

        Raises:
            VersionKept: ``status`` is empty, and what is there is a version.
        """
        origin = once.op_id if once else self._randomness.bytes(OP_ID_BYTES)
        for _ in range(_TRIES):
            born_ms = self._clock.now_ms()
            found = await self._registers.state(place, Kind.OBJECT, key)
            if once and once.attempt > 1 and (earlier := await self.written(place, key, origin)):
                return Deleted(True, id_of(earlier.name))
            await self._check_deletion(place, key, found, demand)
            try:
                found = await self.kept.leave(place, key, found, status, born_ms)
                again = _turn(once, origin, found)
                at_ms, existed = await self._registers.bury(
                    place, Kind.OBJECT, key, condition=same(found), once=again
                )
            except RACED:
                continue
            if not status:
                return Deleted(existed)
            name = name_of(at_ms, ending_of(origin, is_null=status != ENABLED))
            await self.kept.write_once(place, key, name, Metadata("", 0), b"", born_ms)
            if status == SUSPENDED:
                await self.kept.drop_nulls(place, key, after=name)
            # Who deletes an earlier marker and did not see this one brings back what is older: he has done
            # that, or cannot any more, as the state that he saw is over.
            with suppress(*RACED):
                gone = Found(at_ms, b"", b"", is_live=False)
                await self._registers.bury(
                    place, Kind.OBJECT, key, condition=same(gone), once=_turn(once, origin, gone)
                )
                return Deleted(existed, id_of(name))
            after = await self._registers.state(place, Kind.OBJECT, key, head_only=True)
            if not after.is_live or not name_in(after) > name:
                return Deleted(existed, id_of(name))
            await self._registers.delete(place, Kind.VERSION, version_key(key, name))
            demand = NOTHING
        raise TryLater(_CONTENDED)

    async def _check_deletion(self, place: Place, key: bytes, found: Found, demand: Demand) -> None:
        """Of an object with a marker only "any ETag" holds; of one that never was, nothing."""
        if found.is_live or demand.is_empty or await self.kept.newest(place, key) is None:
            demand.check(found)
        elif demand != Demand(if_match="*"):
            raise PreconditionFailed("the object was deleted: nothing is as the condition demands")

    async def written(self, place: Place, key: bytes, origin: bytes) -> Written | None:
        """What an operation has made earlier, while that is there."""
        found = await self._registers.state(place, Kind.OBJECT, key, head_only=True)
        if found.is_live and is_from(name_in(found), origin):
            return Written(time_of(name_in(found)), name_in(found))
        async for name in self.kept.names(place, key):
            if is_from(name, origin):
                return Written(time_of(name), name)
        return None

    # -- any version --------------------------------------------------------------------------------

    async def find(self, place: Place, key: bytes, version_id: str, *, head_only: bool = False) -> Found:
        """The record of a version, which may be a marker. Raises VersionNotFound."""
        # The object's own record first: what is replaced meanwhile was kept before.
        found = await self._registers.state(place, Kind.OBJECT, key, head_only=head_only)
        if found.is_live and id_of(name_in(found)) == version_id:
            return found
        name = await self._kept_name(place, key, version_id)
        if name:
            stored = version_key(key, name)
            found = await self._registers.state(place, Kind.VERSION, stored, head_only=head_only)
        if not name or not found.is_live:
            raise VersionNotFound(_NO_VERSION)
        return found

    async def marker(self, place: Place, key: bytes) -> str | None:
        """Id of the newest of what is kept, if it is a marker."""
        prefix = after = key + b"\0"
        shard = shard_of_key(key, place.shards)
        while True:
            page = await self._registers.shards.page(
                place, Kind.VERSION, shard, prefix=prefix, after=after, limit=1
            )
            for stored, _, etag, *_ in page.rows:
                return None if etag else id_of(split_version_key(stored)[1])
            if not page.truncated:
                return None
            after = page.last

    async def _kept_name(self, place: Place, key: bytes, version_id: str) -> str | None:
        if version_id != NULL:
            return version_id
        async for name in self.kept.names(place, key):
            if is_null(name):
                return name
        return None

    async def amend(
        self, place: Place, key: bytes, version_id: str | None, change: Callable[[Metadata], Metadata]
    ) -> Metadata:
        """Change what is said of a version, or of the current one: not its bytes, ETag or time.

        ``change`` gets what is stored, and is called again when somebody else was faster.

        Raises:
            ObjectNotFound, VersionNotFound.
        """
        for _ in range(_TRIES):
            found, record, is_current = await self._look(place, key, version_id)
            if record is None:
                raise VersionNotFound(_NO_VERSION) if version_id else ObjectNotFound("no such object")
            changed = change(record.metadata)
            if changed.version is not None:
                version = replace(changed.version, amendments=changed.version.amendments + 1)
                changed = replace(changed, version=version)
            stored = key if is_current else version_key(key, name_in(record))
            kind = Kind.OBJECT if is_current else Kind.VERSION
            condition = When(Condition.AMEND, record.stamp)
            try:
                if not is_current:
                    await self.kept.disinherit(place, key, record, found)
                await self._registers.put(place, kind, stored, changed, record.data, condition=condition)
            except RACED:
                continue
            return changed
        raise TryLater(_CONTENDED)

    async def delete_version(
        self,
        place: Place,
        key: bytes,
        version_id: str,
        *,
        demand: Demand = NOTHING,
        guard: Guard = lambda metadata: None,
        is_earlier: bool = False,
    ) -> Deleted:
        """Delete one version or marker for good; the newest that is left is the current one then.

        Args:
            place: the bucket's.
            key: the object's.
            version_id: as users see it.
            demand: of that version.
            guard: raises when what is known of the version forbids it.
            is_earlier: demands that it is not the current version or marker, which it may be again.

        Raises:
            PreconditionFailed; ObjectNotFound: there is no such version, and a demand of it.
        """
        existed, marker, at_ms, was_current, behind = False, "", 0, False, ""
        for _ in range(_TRIES):
            born_ms = self._clock.now_ms()
            found, record, is_current = await self._look(place, key, version_id)
            # Another "null" version is there that was written since: it stays.
            if record is None or (existed and shown_ms(record) > at_ms):
                if not existed:
                    demand.check(Found(0, b"", b"", is_live=False))
                elif was_current or marker:
                    await self.kept.promote(place, key, behind)
                return Deleted(existed, marker)
            if is_earlier and (is_current or await self._is_last_word(place, key, record, found)):
                raise PreconditionFailed("the version is the current one")
            demand.check(record)
            guard(record.metadata)
            try:
                if is_current:  # Then it is among those that were kept, where it goes in the next turn.
                    await self.kept.leave_to_heir(place, key, found, born_ms)
                else:
                    await self.kept.drop(place, key, record, found)
            except RACED:
                continue
            existed, demand, at_ms = True, NOTHING, shown_ms(record)
            was_current, behind = was_current or is_current, name_in(record)
            if is_marker(record.metadata):
                marker = version_id
            if not (is_current or is_null(name_in(record))):
                if was_current or marker:
                    await self.kept.promote(place, key, behind)
                return Deleted(True, marker)
        raise TryLater(_CONTENDED)

    async def _is_last_word(self, place: Place, key: bytes, record: Found, found: Found) -> bool:
        """Whether a version is the marker that says that there is no object now."""
        if found.is_live or not is_marker(record.metadata):
            return False
        return await self.kept.newest(place, key) == name_in(record)

    async def _look(
        self, place: Place, key: bytes, version_id: str | None
    ) -> tuple[Found, Found | None, bool]:
        """State of the object's record; the version's record, if there is one; whether both are the same."""
        found = await self._registers.state(place, Kind.OBJECT, key)
        if version_id is None or (found.is_live and id_of(name_in(found)) == version_id):
            return found, found if found.is_live else None, True
        name = await self._kept_name(place, key, version_id)
        if name is None:
            return found, None, False
        record = await self._registers.state(place, Kind.VERSION, version_key(key, name))
        return found, record if record.is_live else None, False


def _turn(once: Once | None, origin: bytes, found: Found) -> Once:
    """The operation that replaces one state: whoever finds the same state again repeats this one."""
    op_id = digest_of(origin, found.stamp.encode())
    return once._replace(op_id=op_id) if once else Once(op_id)
