"""Conditions of a read, and of the source of a copy. Pure.

RFC 9110 section 13.2.2: ETags come first, a time counts only where no ETag was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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
    modified = datetime.fromtimestamp(modified_ms // 1000, UTC)
    wanted = parse_etags(f"{prefix}If-Match", headers.get(f"{prefix}If-Match"))
    unwanted = parse_etags(f"{prefix}If-None-Match", headers.get(f"{prefix}If-None-Match"))
    if wanted is not None:
        if not wanted.matches(etag):
            raise S3Error("PreconditionFailed", Condition=f"{prefix}If-Match")
    elif (before := _http_date(headers, f"{prefix}If-Unmodified-Since")) and modified > before:
        raise S3Error("PreconditionFailed", Condition=f"{prefix}If-Unmodified-Since")
    if unwanted is not None:
        return not unwanted.matches_weakly(etag)
    since = _http_date(headers, f"{prefix}If-Modified-Since")
    return since is None or modified > since


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
