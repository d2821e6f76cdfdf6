"""What an object keeps of the headers of its upload, and the headers that a read gives back. Pure."""

from __future__ import annotations

from base64 import b64encode
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from ssastore.core.objects import ObjectInfo
from ssastore.core.users import ANYBODY
from ssastore.limits import KIB
from ssastore.s3.checksums import ALGORITHMS, FULL_OBJECT
from ssastore.s3.chunked import stored_content_encoding
from ssastore.s3.conditions import is_modified
from ssastore.s3.errors import S3Error
from ssastore.s3.request import Request, Response, VerifiedBody
from ssastore.s3.tags import tags_of_headers

_ENTITY_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
_OVERRIDES = {f"response-{name}": name.title() for name in _ENTITY_HEADERS}
"Headers that the query of a read may replace, by its parameters."
_REDIRECT = "x-amz-website-redirect-location"
_REDIRECT_BYTES_MAX = 2 * KIB
_ENTITY_HEADERS_BYTES_MAX = 4 * KIB
"All of them together; with S3's 2 KiB of user metadata they fit METADATA_BYTES_MAX."
_DEFAULT_TYPE = "binary/octet-stream"
CHECKSUM_HEADERS = (*[algorithm.header for algorithm in ALGORITHMS.values()], "x-amz-checksum-type")
TAGS_COUNTED = "x-amz-tagging-count"
"How many tags an object has, for who may read them."
STORAGE_CLASS = "STANDARD"
"The only one: all objects are kept alike."


def entity_headers(request: Request) -> dict[str, str]:
    """The headers of an upload that are given back with the object.

    Raises:
        S3Error: InvalidArgument, MetadataTooLarge.
    """
    kept = {name: request.headers[name] for name in _ENTITY_HEADERS if name in request.headers}
    encoding = stored_content_encoding(kept.pop("content-encoding", None))
    if encoding:
        kept["content-encoding"] = encoding
    return _bounded(kept | redirect_header(request))


def _bounded(kept: dict[str, str]) -> dict[str, str]:
    for name, value in kept.items():
        if not value.isprintable() or not value.isascii():
            raise S3Error("InvalidArgument", f"{name} must be printable ASCII.", ArgumentName=name)
    size = sum(len(value) for value in kept.values())
    if size > _ENTITY_HEADERS_BYTES_MAX:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=_ENTITY_HEADERS_BYTES_MAX)
    return kept


def redirect_header(request: Request) -> dict[str, str]:
    """Where a web server is to redirect to; kept, and no web server here acts on it.

    Raises:
        S3Error: InvalidRedirectLocation.
    """
    location = request.headers.get(_REDIRECT)
    if location is None:
        return {}
    if not location.startswith(("/", "http://", "https://")) or len(location) > _REDIRECT_BYTES_MAX:
        raise S3Error("InvalidRedirectLocation")
    return _bounded({_REDIRECT: location})


def copied_headers(request: Request, found: dict[str, str]) -> dict[str, str]:
    """The source's headers as a copy has them: all but the redirect, which a copy says itself."""
    kept = {name: value for name, value in found.items() if name != _REDIRECT}
    return _bounded(kept | redirect_header(request))


def check_storage_class(request: Request) -> None:
    """S3Error InvalidStorageClass for any but the one that there is."""
    if request.headers.get("x-amz-storage-class", STORAGE_CLASS) != STORAGE_CLASS:
        raise S3Error("InvalidStorageClass")


def upload_extra(request: Request) -> dict[str, Any]:
    """What else an upload says of the object to be: its tags. S3Error InvalidTag, InvalidArgument."""
    tags = tags_of_headers(request.headers)
    return {"tags": tags} if tags else {}


def checksum_headers(found: dict[str, str]) -> dict[str, str]:
    """Response headers for kept checksums: algorithm name to base64."""
    return {f"x-amz-checksum-{name.lower()}": value for name, value in found.items()}


def object_checksum_headers(extra: dict[str, Any]) -> dict[str, str]:
    """Those of an object, which also say what its checksum is of."""
    headers = checksum_headers(extra.get("checksum", {}))
    return headers | {"x-amz-checksum-type": checksum_type(extra)} if headers else {}


def checksum_type(extra: dict[str, Any]) -> str:
    """What an object's checksum is of."""
    kept: str = extra.get("checksum_type", FULL_OBJECT)
    return kept


def kept_checksum(body: VerifiedBody) -> dict[str, str]:
    """The declared checksum as it is kept."""
    checksum = body.checksum()
    return {checksum[0]: b64encode(checksum[1]).decode()} if checksum else {}


def narrow(response: Response, span: tuple[int, int], size: int) -> None:
    """Make the answer for a whole object of ``size`` bytes one for its bytes ``span[0]`` to ``span[1]``."""
    response.status = 206
    response.length = span[1] - span[0] + 1
    response.headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{size}"
    for name in CHECKSUM_HEADERS:  # SDKs would compare the range with the checksum of the whole
        response.headers.pop(name, None)


@lru_cache(maxsize=1024)
def http_date(at_s: int) -> str:
    """A time, in seconds since the epoch, as HTTP writes it (RFC 9110 section 5.6.7)."""
    return formatdate(at_s, usegmt=True)


def describe(request: Request, info: ObjectInfo) -> Response:
    """Status and headers of a read, after its conditions.

    Raises:
        S3Error: PreconditionFailed; InvalidArgument for an override that no header can carry, InvalidRequest
            for nobody's.
    """
    headers = {
        "ETag": f'"{info.etag}"',
        "Last-Modified": http_date(info.modified_ms // 1000),
        "Accept-Ranges": "bytes",
    }
    if not is_modified(request.headers, info.etag, info.modified_ms):
        return Response(304, b"", headers)
    headers["Content-Type"] = _DEFAULT_TYPE
    for name, value in info.headers.items():
        headers[name if name == _REDIRECT else name.title()] = value
    if tags := info.extra.get("tags"):
        headers[TAGS_COUNTED] = str(len(tags))
    for name, value in info.metadata.items():
        headers[f"x-amz-meta-{name}"] = value
    for parameter, name in _OVERRIDES.items():
        if (override := request.query.get(parameter)) is not None:
            if request.user == ANYBODY:
                # As AWS: else anybody's link could show a page of ours as what it is not.
                text = "Request specific response headers cannot be used for anonymous GET requests."
                raise S3Error("InvalidRequest", text)
            if not override.isprintable() or not override.isascii():
                raise S3Error("InvalidArgument", ArgumentName=parameter)
            headers[name] = override
    if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= object_checksum_headers(info.extra)
    return Response(200, b"", headers)
