"""GetObjectAttributes, and reads of one part of an object by its number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.parts import PartOf, parts_of
from ssastore.limits import LIST_KEYS_MAX, PARTS_MAX
from ssastore.s3 import xml
from ssastore.s3.checksums import encode_digest
from ssastore.s3.encryption import Encryption, said_headers
from ssastore.s3.entity import STORAGE_CLASS, checksum_type, http_date, narrow
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number
from ssastore.s3.request import Request, Response
from ssastore.s3.versioning import of_versions, read_version, wanted_version

_ATTRIBUTES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
_WANTED = "x-amz-object-attributes"


def read_part(
    request: Request, response: Response, size: int, parts: Sequence[PartOf]
) -> tuple[int, int] | None:
    """First and last byte of the part that a read asks for, of which ``response`` tells from now on.

    An object that was not made of parts is its own part 1.  None for the whole of an object without bytes.

    Args:
        request: with ``partNumber``.
        response: to a read of the whole object, whose ``size`` is in bytes.
        parts: of the object.

    Raises:
        S3Error: InvalidPart when there is none of that number; InvalidRequest beside a Range.
    """
    number = parse_number("partNumber", request.query["partNumber"], least=1, most=PARTS_MAX)
    if "Range" in request.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    spans = {part.number: part for part in parts} or {1: PartOf(1, size)}
    if number not in spans:
        raise S3Error("InvalidPart", "The requested partnumber is not satisfiable", PartNumber=number)
    if parts:
        response.headers["x-amz-mp-parts-count"] = str(len(parts))
    ends = dict(zip(spans, accumulate(part.size for part in spans.values()), strict=True))
    part, end = spans[number], ends[number]
    if not size:
        return None
    kept = {name: response.headers[name] for name in response.headers if name.startswith("x-amz-checksum-")}
    span = (end - part.size, end - 1)
    narrow(response, span, size)
    if not part.size:
        response.headers["Content-Range"] = f"bytes */{size}"
    response.headers |= _part_checksum(kept, part) if parts else kept
    return span


def _part_checksum(of_object: dict[str, str], part: PartOf) -> dict[str, str]:
    """The headers of an object's checksum, as those of a part of it."""
    headers = dict(of_object)
    for name in of_object:
        if name != "x-amz-checksum-type":
            headers[name] = encode_digest(part.checksum)
    return headers if part.checksum else {}


class AttributeOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects, encryption: Encryption) -> None:
        self._objects = objects
        self._encryption = encryption

    async def get_object_attributes(self, request: Request) -> Response:
        """What is known of an object, as far as it was asked for."""
        assert request.bucket is not None and request.key is not None
        wanted = [name.strip() for name in request.headers.get(_WANTED, "").split(",")]
        if not all(name in _ATTRIBUTES for name in wanted):
            raise S3Error("InvalidArgument", "Invalid attribute name specified.", ArgumentName=_WANTED)
        version = wanted_version(request.query)
        finding = self._objects.find(request.bucket, request.key, version, head_only=True)
        found = await of_versions(self._objects, request.bucket, request.key, version, finding)
        info = self._objects.reader(request.key, found).info
        known = found.metadata
        self._encryption.of(known.extra, request.bucket, request.key, request.headers)
        told = {
            "ETag": xml.attribute("ETag", known.etag),
            "StorageClass": xml.attribute("StorageClass", STORAGE_CLASS),
            "ObjectSize": xml.attribute("ObjectSize", known.size),
        }
        if checksum := known.extra.get("checksum"):
            told["Checksum"] = xml.attribute_checksum(checksum, checksum_type(known.extra))
        if "ObjectParts" in wanted and (parts := await parts_of(self._objects.blobs, known)):
            told["ObjectParts"] = _page(request, known, parts)
        content = [told[name] for name in _ATTRIBUTES if name in wanted and name in told]
        response = Response.xml(xml.object_attributes(*content))
        response.headers["Last-Modified"] = http_date(info.modified_ms // 1000)
        response.headers |= read_version(self._objects.buckets.cached(request.bucket), info)
        response.headers |= said_headers(known.extra, request.headers)
        return response


def _page(request: Request, known: Metadata, parts: Sequence[PartOf]) -> str:
    """One page of an object's parts."""
    headers = request.headers
    most = parse_number("x-amz-max-parts", headers.get("x-amz-max-parts", str(LIST_KEYS_MAX)), least=0)
    limit = min(most, LIST_KEYS_MAX)
    text = headers.get("x-amz-part-number-marker", "0")
    marker = parse_number("x-amz-part-number-marker", text, least=0)
    names = list(known.extra.get("checksum", ()))
    later = [part for part in parts if part.number > marker]
    return xml.attribute_parts(
        count=len(parts),
        marker=marker,
        max_parts=limit,
        is_truncated=len(later) > limit > 0,
        parts=[
            xml.ListedPart(
                part.number,
                0,
                "",
                part.size,
                {name: encode_digest(part.checksum) for name in names if part.checksum},
            )
            for part in later[:limit]
        ],
    )
