"""Names of versions (``core.versions``). Pure.

    12 hexadecimal digits of 2^48 - 1 less the time in ms | 20 of a hash of the operation
    the same 12                                           | 16 of it, and the word "null"

In byte order the newest comes first.  Users see the name as the version's id, and of the second form
only the word: of an object there is one such version at most.
"""

from __future__ import annotations

import re

from blake3 import blake3

from ssastore.core.found import Found

NAME_LENGTH = 32
NULL = "null"
"The id of the version that is written while a bucket does not make versions."

_ENDING_LENGTH = 20
_TIME_DIGITS = 12
_LAST_MS = (1 << 48) - 1
_ID = re.compile("[0-9a-f]{32}")


def ending_of(origin: bytes, *, is_null: bool) -> str:
    """The end of the name of what an operation writes; ``origin`` tells operations apart."""
    digits = blake3(b"version" + origin).hexdigest(length=_ENDING_LENGTH // 2)
    return digits[: -len(NULL)] + NULL if is_null else digits


def is_from(name: str, origin: bytes) -> bool:
    """Whether a version was written by this operation, as what kind of version ever."""
    start = _TIME_DIGITS, NAME_LENGTH - len(NULL)
    return name[slice(*start)] == ending_of(origin, is_null=False)[: -len(NULL)]


def name_of(modified_ms: int, ending: str) -> str:
    """The whole name of a version that was written at that time."""
    return f"{_LAST_MS - modified_ms:0{_TIME_DIGITS}x}{ending}"


def time_of(name: str) -> int:
    """The time of a version, in ms since the epoch."""
    return _LAST_MS - int(name[:_TIME_DIGITS], 16)


def is_null(name: str) -> bool:
    """Whether it is the version without an id; also the empty name, of a record that was given none."""
    return not name or name.endswith(NULL)


def id_of(name: str) -> str:
    """A version's id as users see it."""
    return NULL if is_null(name) else name


def is_id(text: str) -> bool:
    """Whether a version can have this id."""
    return text == NULL or _ID.fullmatch(text) is not None


def name_in(found: Found) -> str:
    """The whole name of the version that a record is; empty when it was given none."""
    return whole_name(found.metadata.version.name, found.modified_ms) if found.metadata.version else ""


def whole_name(name: str, modified_ms: int) -> str:
    """The name in a record, with the record's own time in front unless it has one already."""
    return name if len(name) == NAME_LENGTH else name_of(modified_ms, name)


def shown_ms(found: Found) -> int:
    """Since when a version is as it is: what became current again has its time in its name."""
    name = name_in(found)
    return time_of(name) if name else found.modified_ms


def version_key(key: bytes, name: str) -> bytes:
    """Key of the record of a version that is kept."""
    return key + b"\0" + name.encode()


def split_version_key(stored: bytes) -> tuple[bytes, str]:
    """Inverse of ``version_key``."""
    key, _, name = stored.partition(b"\0")
    return key, name.decode()
