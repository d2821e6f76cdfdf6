"""What a write demands of the object that it replaces or deletes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.core.found import Found
from ssastore.core.registers import When, when
from ssastore.core.versionnames import shown_ms
from ssastore.errors import ObjectNotFound, PreconditionFailed


@dataclass(frozen=True, slots=True)
class Demand:
    """Preconditions of a write; all that are given must hold.

    ``if_match`` and ``if_none_match`` are an ETag without quotes, or ``*`` for any object.
    """

    if_match: str | None = None
    if_none_match: str | None = None
    modified_s: int | None = None
    "Time of the last change, in seconds since the epoch."
    size: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether anything at all will do."""
        return self == NOTHING

    @property
    def condition(self) -> When | None:
        """The same as a condition that the record itself evaluates; None when it cannot."""
        if self.modified_s is not None or self.size is not None:
            return None
        if self.if_none_match is not None and (self.if_none_match != "*" or self.if_match is not None):
            return None
        return when(self.if_match, self.if_none_match)

    def check(self, found: Found) -> None:
        """Raise PreconditionFailed, or ObjectNotFound when there should be something to compare."""
        if not found.is_live:
            if self.if_match is not None or self.modified_s is not None or self.size is not None:
                raise ObjectNotFound("no such object to match")
            return
        etag = found.metadata.etag
        if self.if_match not in (None, "*", etag):
            raise PreconditionFailed("the object has another ETag")
        if self.if_none_match in ("*", etag):
            raise PreconditionFailed("there is such an object")
        if self.modified_s is not None and shown_ms(found) // 1000 != self.modified_s:
            raise PreconditionFailed("the object was changed at another time")
        if self.size is not None and found.metadata.size != self.size:
            raise PreconditionFailed("the object has another size")


NOTHING = Demand()
