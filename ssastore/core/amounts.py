"""What records count against a quota: bytes and objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.core.metadata import summary
from ssastore.core.register import LIVE, Value
from ssastore.messages import Kind


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes and objects."""

    size: int = 0
    objects: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.size + other.size, self.objects + other.objects)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.size - other.size, self.objects - other.objects)

    def beyond(self, other: Amount) -> Amount:
        """What it has more than another one, of each."""
        return Amount(max(0, self.size - other.size), max(0, self.objects - other.objects))

    def most(self, other: Amount) -> Amount:
        """The larger of each."""
        return Amount(max(self.size, other.size), max(self.objects, other.objects))

    def least(self, other: Amount) -> Amount:
        """The smaller of each."""
        return Amount(min(self.size, other.size), min(self.objects, other.objects))

    def fits(self, other: Amount) -> bool:
        """Whether it is no more than another one, in both."""
        return self.size <= other.size and self.objects <= other.objects


ZERO = Amount()

_SIZE_MAX = 1 << 50
"Of one record: far above any object, and a shard's sum stays a number that can be stored."


def amount_of_row(kind: int, etag: str, size: int) -> Amount:
    """What a live record counts. A mark that an object was deleted has neither ETag nor bytes.

    A size that cannot be is a client's lie, and no reason to credit anybody anything.
    """
    size = min(max(size, 0), _SIZE_MAX)
    if kind == Kind.PART:
        return Amount(size, 0)
    if kind == Kind.OBJECT or (kind == Kind.VERSION and (etag or size)):
        return Amount(size, 1)
    return ZERO


def amount_of(kind: int, value: Value) -> Amount:
    """What a record's value counts. Raises CorruptObject."""
    return amount_of_row(kind, *summary(value.metadata)) if value.state == LIVE else ZERO
