"""Conditions of a read, and of the source of a copy. Pure.

RFC 9110 section 13.2.2: ETags come first, a time counts only where no ETag was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_etags

OF_COPY_SOURCE = "x-amz-copy-source-"
"Before the names of the conditions that a copy's source must meet."


def is_modified(headers: Mapping[str, str], etag: str, modified_ms: int, prefix: str = "") -> bool:
    """Whether the reader needs it: False is a 304 for a read.

    Args:
        headers: case-insensitive.
        etag: of the object, without quotes.
        modified_ms: of the object; HTTP's times have whole seconds.
        prefix: of the names of the headers.

    Raises:
        S3Error: PreconditionFailed, for what must match and does not.
    """
    names = _names(prefix)
    if not any(name in headers for name in names):
        return True
    if_match, if_none_match, if_unmodified, if_modified = names
    modified = datetime.fromtimestamp(modified_ms // 1000, UTC)
    wanted = parse_etags(if_match, headers.get(if_match))
    unwanted = parse_etags(if_none_match, headers.get(if_none_match))
    if wanted is not None:
        if not wanted.matches(etag):
            raise S3Error("PreconditionFailed", Condition=if_match)
    elif (before := _http_date(headers, if_unmodified)) and modified > before:
        raise S3Error("PreconditionFailed", Condition=if_unmodified)
    if unwanted is not None:
        return not unwanted.matches_weakly(etag)
    since = _http_date(headers, if_modified)
    return since is None or modified > since


def is_range_wanted(headers: Mapping[str, str], etag: str, modified_ms: int) -> bool:
    """Whether a Range counts: not beside an If-Range that names another state (RFC 9110, section 13.1.5)."""
    text = headers.get("If-Range")
    if text is None or text.strip() == f'"{etag}"':
        return True
    return _http_date(headers, "If-Range") == datetime.fromtimestamp(modified_ms // 1000, UTC)


@lru_cache(maxsize=2)
def _names(prefix: str) -> tuple[str, ...]:
    return tuple(
        prefix + name for name in ("If-Match", "If-None-Match", "If-Unmodified-Since", "If-Modified-Since")
    )


def check_copy_source(headers: Mapping[str, str], etag: str, modified_ms: int) -> None:
    """The conditions that a copy sets for its source. S3Error PreconditionFailed."""
    if not is_modified(headers, etag, modified_ms, OF_COPY_SOURCE):
        raise S3Error("PreconditionFailed", Condition=f"{OF_COPY_SOURCE}If-None-Match")


def _http_date(headers: Mapping[str, str], name: str) -> datetime | None:
    """A date header; one that is no date is ignored, as RFC 9110 asks."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
