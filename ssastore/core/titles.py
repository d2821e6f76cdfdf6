"""What people call a record that is known by its stored key: "bucket/key". Coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from ssastore.core.buckets import Bucket
from ssastore.core.place import place_key
from ssastore.core.records import split_reference_name
from ssastore.core.versionnames import id_of
from ssastore.errors import SsaStoreError
from ssastore.messages import Kind

_UPLOAD_ID_BYTES = 32
_REMEMBERED = 1024


class Titles:
    """Titles for reports of damage.

    Args:
        buckets: all of the service; read to the end for an id that was not met before.
    """

    def __init__(self, buckets: Callable[[], AsyncIterator[Bucket]]) -> None:
        self._buckets = buckets
        self._names: dict[int, str] = {}

    async def of_record(self, bucket: int, kind: int, key: bytes) -> str:
        """Of an object, a version or a part of an upload."""
        base = place_key(key)
        title = f"{await self._name(bucket)}/{base.decode(errors='replace')}"
        rest = key[len(base) + 1 :]
        if kind == Kind.VERSION:
            return f"{title} (version {id_of(rest.decode(errors='replace'))})"
        if kind == Kind.PART:
            upload, number = rest[:_UPLOAD_ID_BYTES], int.from_bytes(rest[_UPLOAD_ID_BYTES:], "big")
            return f"{title} (part {number} of upload {upload.decode(errors='replace')})"
        return title

    async def of_reference(self, name: bytes) -> str:
        """Of the object that a blob was stored for; empty when it was stored for none."""
        try:
            bucket, _, key = split_reference_name(name)
        except ValueError:
            return ""
        return await self.of_record(bucket, Kind.OBJECT, place_key(key))

    async def _name(self, bucket: int) -> str:
        if bucket not in self._names:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[bucket] = f"bucket {bucket:016x}"
            try:
                async for known in self._buckets():
                    if known.place.bucket == bucket:
                        self._names[bucket] = known.name
                        break
            except SsaStoreError:
                del self._names[bucket]
                return f"bucket {bucket:016x}"
        return self._names[bucket]
