"""One page of a listing of open uploads, with those rolled up that share a common prefix."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssastore.core.multipart import Multipart, Upload


@dataclass(slots=True)
class UploadPage:
    """Up to ``limit`` uploads and common prefixes."""

    prefix: str
    delimiter: str
    limit: int
    uploads: list[Upload] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: tuple[str, str] = ("", "")
    "Key and id of the last upload, or a common prefix and nothing."
    is_truncated: bool = False

    async def fill(self, multipart: Multipart, key_marker: str, id_marker: str) -> None:
        """Take what comes after the marker."""
        after: bytes | None = b""
        if key_marker and self._common(key_marker) == key_marker:
            after = _after_all_of(key_marker)
        elif key_marker:
            # Without an id the marker means "after all uploads of that key": 0xff is above any id.
            after = key_marker.encode() + b"\0" + (id_marker.encode() or b"\xff")
        while after is not None:
            after = await self._until_prefix(multipart, after)

    def _common(self, key: str) -> str:
        """The common prefix that a key is rolled up into, or nothing."""
        at = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return "" if at < 0 else key[: at + len(self.delimiter)]

    async def _until_prefix(self, multipart: Multipart, after: bytes) -> bytes | None:
        """Go on to the next common prefix, and where to go on after it; None when the page is complete."""
        async for upload in multipart.uploads(self.prefix.encode(), after):
            if len(self.uploads) + len(self.prefixes) == self.limit:
                self.is_truncated = self.limit > 0  # a page of nothing has no place to go on from
                return None
            key = upload.key.decode()
            common = self._common(key)
            if common:
                self.prefixes.append(common)
                self.last = common, ""
                return _after_all_of(common)
            self.uploads.append(upload)
            self.last = key, upload.upload_id
        return None


def _after_all_of(prefix: str) -> bytes:
    """A marker above all keys that begin so: 0xff is in no UTF-8."""
    return prefix.encode() + b"\xff"
