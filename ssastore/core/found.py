"""What a read of a record finds. Pure."""

from __future__ import annotations

from ssastore.core.ciphers import ENCRYPTION
from ssastore.core.metadata import Metadata, decode_metadata
from ssastore.core.register import LIVE, stamp_of
from ssastore.errors import BadFrame
from ssastore.wire import Body, Header

_ENCRYPTION = ENCRYPTION.encode()


class Found:
    """A record that was read. Its metadata is decoded when it is asked for: a small read needs none.

    ``is_live`` is False for what ``Registers.state`` found when there is no object.
    """

    __slots__ = ("_metadata", "_packed", "data", "is_live", "modified_ms")

    def __init__(self, modified_ms: int, packed: bytes, data: Body, is_live: bool = True) -> None:
        self.modified_ms = modified_ms
        self.is_live = is_live
        self.data = data
        self._packed = packed
        self._metadata: Metadata | None = None

    @property
    def metadata(self) -> Metadata:
        """Raises CorruptObject when it is none."""
        if self._metadata is None:
            self._metadata = decode_metadata(self._packed)
        return self._metadata

    @property
    def packed(self) -> bytes:
        """The metadata as they are stored."""
        return self._packed

    @property
    def is_plain(self) -> bool:
        """Whether ``data`` surely is what was written: looks for a word, and need not decode."""
        return _ENCRYPTION not in self._packed

    @property
    def stamp(self) -> str:
        """For a condition that nobody has written this record since (``Condition.IF_SAME``)."""
        return stamp_of(self.modified_ms, self._packed)


def found_of(reply: tuple[Header, Body]) -> Found:
    """The record of a reply to Get or Read, or the state that there is none. Raises BadFrame."""
    header, body = reply
    if tuple(map(type, header)) != (int, int, int, bytes, int, int, bytes):
        raise BadFrame("a reply to Get has other fields")
    return Found(header[5], header[6], body, header[4] == LIVE)
