"""What the names and headers of a request mean: bucket, key, query, range, ETags, user metadata.

Everything arrives as the bytes that were signed and is decoded once, strictly: a
bad escape, a NUL or bytes that are not UTF-8 are refused, nothing is normalised.
A key is an opaque string; ``.``, ``..`` and ``//`` in it mean nothing.

    /                    the service
    /bucket  /bucket/    the bucket
    /bucket/key          the object; the key begins after the second slash, so
    /bucket//key         is the object named "/key"

``%2F`` and ``/`` in a key are the same key: the signature covers the spelling, the
name is what it decodes to.  ``+`` is a plus in a path and a space in a query, as in S3.

All work is linear in the input; the only unbounded inputs are bounded by the HTTP
server's limits on request line and headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from ssastore.limits import KEY_BYTES_MAX, USER_METADATA_BYTES_MAX
from ssastore.s3.errors import S3Error

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_ESCAPES = {
    bytes((high, low)): bytes.fromhex(chr(high) + chr(low)) for high in _HEX_DIGITS for low in _HEX_DIGITS
}

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_BUCKET_CHARACTERS = _LETTERS | frozenset(".-")
# Names to which SDKs give another meaning (access points, S3 Express, tables) must never be buckets.
_BUCKET_PREFIXES = ("xn--", "sthree-")
_BUCKET_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_BUCKETS_RESERVED = frozenset({"admin"})
"Kept free for paths that an operator may want to serve beside the buckets."

_RANGE_CHARACTERS_MAX = 128
_ETAGS_CHARACTERS_MAX = 4096
_NUMBER_DIGITS_MAX = 30
_METADATA_PREFIX = "x-amz-meta-"


# -- decoding ---------------------------------------------------------------------------------------


def percent_decode(raw: bytes) -> bytes:
    """Undo percent-encoding. S3Error InvalidURI for an escape without two hex digits."""
    if b"%" not in raw:
        return raw
    first, *rest = raw.split(b"%")
    try:
        return first + b"".join([_ESCAPES[piece[:2]] + piece[2:] for piece in rest])
    except KeyError:
        raise S3Error("InvalidURI") from None


def _decode_text(raw: bytes) -> str:
    return _text(percent_decode(raw) if b"%" in raw else raw)


def _text(data: bytes) -> str:
    if b"\0" in data:
        raise S3Error("InvalidURI", "A name must not contain NUL.")
    try:
        return data.decode("utf-8")  # strict: refuses overlong forms and surrogates as well
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "A name must be UTF-8.") from None


def parse_query(raw: bytes) -> dict[str, str]:
    """Parameters of a query string (without ``?``). InvalidArgument if one comes twice.

    A parameter given twice is refused whatever it is: two readers of one request must not be able
    to see different values.
    """
    parameters: dict[str, str] = {}
    for pair in _text(raw.replace(b"+", b" ")).split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if "%" in pair:
            name, value = _decode_text(name.encode()), _decode_text(value.encode())
        if name in parameters:
            raise S3Error("InvalidArgument", "A query parameter was given twice.", ArgumentName=name)
        parameters[name] = value
    return parameters


def parse_number(name: str, text: str, *, least: int, most: int | None = None) -> int:
    """A decimal number of a query or header. InvalidArgument if it is none or out of bounds."""
    if text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX:
        number = int(text)
        if least <= number and (most is None or number <= most):
            return number
    bounds = f"at least {least}" if most is None else f"between {least} and {most}"
    raise S3Error(
        "InvalidArgument", f"{name} must be an integer {bounds}.", ArgumentName=name, ArgumentValue=text[:64]
    )


# -- buckets and keys -------------------------------------------------------------------------------


def check_bucket_name(name: str) -> None:
    """S3's rules for bucket names. S3Error InvalidBucketName if one is broken."""
    if not 3 <= len(name) <= 63 or not _is_bucket_name(name):
        raise S3Error("InvalidBucketName", BucketName=name[:64])


@lru_cache(maxsize=1024)
def _is_bucket_name(name: str) -> bool:
    if not _BUCKET_CHARACTERS.issuperset(name):
        return False
    if name[0] not in _LETTERS or name[-1] not in _LETTERS:
        return False
    if ".." in name or ".-" in name or "-." in name:
        return False
    labels = name.split(".")
    if len(labels) == 4 and all(label.isdigit() for label in labels):
        return False  # looks like an IPv4 address
    return not (
        name in _BUCKETS_RESERVED or name.startswith(_BUCKET_PREFIXES) or name.endswith(_BUCKET_SUFFIXES)
    )


def check_key(key: str) -> None:
    """Whether ``key`` can name an object. S3Error KeyTooLongError or InvalidArgument if not."""
    if not key:
        raise S3Error("InvalidArgument", "A key must not be empty.", ArgumentName="Key")
    size = len(key.encode("utf-8"))
    if size > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", Size=size, MaxSizeAllowed=KEY_BYTES_MAX)


def decode_key(raw: bytes) -> str:
    """The key in the part of a raw path after ``/bucket/``."""
    key = _decode_text(raw)
    check_key(key)
    return key


def split_path(raw: bytes) -> tuple[str | None, str | None]:
    """Bucket and key of a raw, path-style request path; both None for the service itself.

    S3Error: InvalidURI, InvalidBucketName, KeyTooLongError.
    """
    if not raw.startswith(b"/"):
        raise S3Error("InvalidURI")
    raw_bucket, _, raw_key = raw[1:].partition(b"/")
    if not raw_bucket:
        if raw_key:
            raise S3Error("InvalidBucketName", BucketName="")
        return None, None
    bucket = _decode_text(raw_bucket)
    check_bucket_name(bucket)
    return bucket, decode_key(raw_key) if raw_key else None


def bucket_of_host(host: str, domain: str) -> bytes:
    """The bucket that a Host header names: what stands before ``domain``; empty for path style.

    Not decoded and not checked: it goes in front of the path, as if it had been sent there.
    """
    name = host.lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    return (
        name.removesuffix(f".{domain}").encode("utf-8", "surrogateescape")
        if name.endswith(f".{domain}")
        else b""
    )


def parse_copy_source(value: str) -> tuple[str, str, str | None]:
    """Bucket, key and version of an ``x-amz-copy-source``: ``[/]bucket/key[?versionId=id]``, encoded."""
    # Header values reach us as text; what was not ASCII comes back as the bytes that were sent.
    raw, question, raw_version = value.encode("utf-8", "surrogateescape").partition(b"?")
    bucket, key = split_path(raw if raw.startswith(b"/") else b"/" + raw)
    if bucket is None or key is None:
        raise S3Error(
            "InvalidArgument", "Copy source must name bucket and key.", ArgumentName="x-amz-copy-source"
        )
    if not question:
        return bucket, key, None
    parameters = parse_query(raw_version)
    if set(parameters) != {"versionId"} or not parameters["versionId"]:
        raise S3Error(
            "InvalidArgument", "Copy source may only name a versionId.", ArgumentName="x-amz-copy-source"
        )
    return bucket, key, parameters["versionId"]


# -- Range ------------------------------------------------------------------------------------------


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that a ``Range`` header asks for, or None for the whole body (200).

    As S3: another unit, several ranges, or a range that runs backwards is ignored; a range that
    begins after the end, or the last 0 bytes, is InvalidRange (416).
    """
    spec = _range_spec(value)
    if value is None or spec is None:
        return None
    first, last = spec
    if first is None:  # the last so many bytes
        span = (max(0, size - (last or 0)), size - 1)
    else:
        span = (first, size - 1 if last is None else min(last, size - 1))
    if span[0] >= size:
        headers = {"Content-Range": f"bytes */{size}"}
        raise S3Error("InvalidRange", headers=headers, RangeRequested=value, ActualObjectSize=size)
    return span


def parse_copy_range(value: str, size: int) -> tuple[int, int]:
    """First and last byte of an ``x-amz-copy-source-range``, which must be exact: ``bytes=first-last``."""
    first, last = _range_spec(value) or (None, None)
    if first is None or last is None:
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last.",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=value[:_RANGE_CHARACTERS_MAX],
        )
    if last >= size:
        raise S3Error("InvalidRange", f"Range lies outside the source, which has {size} bytes.", status=400)
    return first, last


def _range_spec(value: str | None) -> tuple[int | None, int | None] | None:
    """(first, last) of one byte range; (None, n) for the last n bytes; None if it is no such thing."""
    if value is None or len(value) > _RANGE_CHARACTERS_MAX or not value.startswith("bytes="):
        return None
    first_text, dash, last_text = value[6:].strip().partition("-")
    digits = first_text + last_text
    if not dash or not digits or not (digits.isascii() and digits.isdigit()):
        return None
    first = int(first_text) if first_text else None
    last = int(last_text) if last_text else None
    if first is not None and last is not None and first > last:
        return None
    return first, last


# -- conditions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ETags:
    """The tags of an ``If-Match`` or ``If-None-Match`` header, without their quotes."""

    any: bool = False
    "The header was ``*``."
    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()

    def matches(self, etag: str) -> bool:
        """Strong comparison, for ``If-Match`` and for writes: a weak tag equals nothing."""
        return self.any or etag in self.strong

    def matches_weakly(self, etag: str) -> bool:
        """Weak comparison, for ``If-None-Match`` on reads."""
        return self.matches(etag) or etag in self.weak


def parse_etags(name: str, value: str | None) -> ETags | None:
    """Read the header ``name``; None if it is absent, InvalidArgument if it is malformed.

    As S3, tags may come without quotes.
    """
    if value is None:
        return None
    text = value.strip()
    if text == "*":
        return ETags(any=True)
    if not text or len(text) > _ETAGS_CHARACTERS_MAX:
        raise _malformed_etags(name)
    strong: list[str] = []
    weak: list[str] = []
    position = 0
    while position < len(text):
        is_weak, tag, position = _next_etag(name, text, position)
        (weak if is_weak else strong).append(tag)
    return ETags(strong=tuple(strong), weak=tuple(weak))


def _next_etag(name: str, text: str, start: int) -> tuple[bool, str, int]:
    """One tag of the list from ``start`` on: whether it is weak, the tag, where the next one begins."""
    while text[start : start + 1].isspace():
        start += 1
    is_weak = text.startswith('W/"', start)
    if is_weak:
        start += 2
    if text.startswith('"', start):
        end = text.find('"', start + 1)
        if end < 0:
            raise _malformed_etags(name)
        tag, comma = text[start + 1 : end], text.find(",", end)
        comma = comma if comma >= 0 else len(text)
        if text[end + 1 : comma].strip():
            raise _malformed_etags(name)
    else:
        comma = text.find(",", start)
        comma = comma if comma >= 0 else len(text)
        tag = text[start:comma].rstrip()
        if not tag or tag == "*" or '"' in tag or len(tag.split()) > 1:
            raise _malformed_etags(name)
    if comma == len(text) - 1:
        raise _malformed_etags(name)  # a comma with nothing after it
    return is_weak, tag, comma + 1


def _malformed_etags(name: str) -> S3Error:
    return S3Error("InvalidArgument", f"{name} is not a list of ETags.", ArgumentName=name)


# -- times ------------------------------------------------------------------------------------------


def parse_time(name: str, value: str) -> int:
    """A time of ISO 8601, or as HTTP writes it, in ms since the epoch. S3Error InvalidArgument."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = parse(value.strip())
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return int(at.timestamp() * 1000)
        except (ValueError, TypeError, OverflowError):
            continue
    raise S3Error("InvalidArgument", f"{name} is no time.", ArgumentName=name)


# -- user metadata ----------------------------------------------------------------------------------


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """What the ``x-amz-meta-`` headers say, names in lower case without the prefix.

    ``headers`` may be a multi-dict; values of a repeated header are joined by a comma, as in S3.
    S3Error InvalidArgument for text that a response header could not carry back unchanged,
    MetadataTooLarge above S3's 2 KiB for all names and values.
    """
    metadata: dict[str, str] = {}
    for header, value in headers.items():
        name = header.lower()
        if not name.startswith(_METADATA_PREFIX):
            continue
        name = name[len(_METADATA_PREFIX) :]
        # The printable characters of ASCII, and the tab: CR and LF would split the response.
        if not value.replace("\t", " ").isprintable() or not value.isascii() or not name:
            raise S3Error(
                "InvalidArgument", "User metadata must be printable ASCII.", ArgumentName=header[:64]
            )
        metadata[name] = f"{metadata[name]},{value}" if name in metadata else value
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > USER_METADATA_BYTES_MAX:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=USER_METADATA_BYTES_MAX)
    return metadata
