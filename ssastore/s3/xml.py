"""The XML of S3 responses. Standard library only; ``xmlread`` reads requests'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ssastore.core.objects import Listed
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.s3.errors import S3Error
from ssastore.s3.xmltext import bare_document, iso8601
from ssastore.s3.xmltext import document as _document
from ssastore.s3.xmltext import element as _element
from ssastore.s3.xmltext import encoder as _encoder
from ssastore.s3.xmltext import escape as _escape
from ssastore.s3.xmltext import written as _written

CONTENT_TYPE = "application/xml"
_STORAGE_CLASS = "STANDARD"


def _etag(etag: str) -> str:
    return f"<ETag>&quot;{_escape(etag)}&quot;</ETag>"


def check_encoding_type(value: str | None) -> str | None:
    """An ``encoding-type`` parameter. S3Error InvalidArgument if it is anything but ``url``."""
    if value not in (None, "url"):
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified", ArgumentName="encoding-type")
    return value


@dataclass(frozen=True, slots=True)
class ListedPart:
    """One uploaded part."""

    number: int
    modified_ms: int
    etag: str
    size: int
    checksum: Mapping[str, str] = field(default_factory=dict)
    "Base64 by algorithm."


@dataclass(frozen=True, slots=True)
class ListedUpload:
    """One open multipart upload."""

    key: str
    upload_id: str
    initiated_ms: int
    owner: str
    initiator: str
    checksum_of: tuple[str | None, str | None] = (None, None)
    "Algorithm and type."


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """An object that DeleteObjects could not delete, and why."""

    key: str
    version_id: str | None
    error: S3Error


def error(failure: S3Error, *, resource: str, request_id: str) -> bytes:
    """The body of an answer that is not a success. S3 gives it no namespace."""
    fields = "".join(_element(name, value) for name, value in failure.fields.items())
    return bare_document(
        "Error",
        _element("Code", failure.code),
        _element("Message", failure.message),
        fields,
        _element("Resource", resource),
        _element("RequestId", request_id),
    )


def posted_object(*, url: str, bucket: str, key: str, etag: str) -> bytes:
    """The answer of an upload by a form that asks for status 201."""
    return bare_document(
        "PostResponse",
        _element("Location", url),
        _element("Bucket", bucket),
        _element("Key", key),
        _etag(etag),
    )


def _person(role: str, name: str) -> str:
    return f"<{role}>{_element('ID', name)}{_element('DisplayName', name)}</{role}>"


def list_buckets(
    owner: str,
    buckets: Iterable[tuple[str, int]],
    *,
    prefix: str = "",
    next_token: str | None = None,
    region: str | None = None,
) -> bytes:
    """``buckets`` are (name, time of creation in ms), all of one region."""
    listed = "".join(
        f"<Bucket>{_element('Name', name)}{_element('CreationDate', iso8601(created_ms))}"
        f"{_element('BucketRegion', region)}</Bucket>"
        for name, created_ms in buckets
    )
    return _document(
        "ListAllMyBucketsResult",
        _person("Owner", owner),
        f"<Buckets>{listed}</Buckets>",
        _element("Prefix", prefix or None),
        _element("ContinuationToken", next_token),
    )


def location(region: str) -> bytes:
    """The answer of GetBucketLocation; us-east-1 is the empty one, as in S3."""
    return _document("LocationConstraint", "" if region == "us-east-1" else _escape(region))


def _contents(objects: Sequence[Listed], encoding_type: str | None, owner: str | None) -> str:
    """``owner`` is the bucket's; None: nothing is said of owners."""
    end = f"{_element('StorageClass', _STORAGE_CLASS)}</Contents>"
    ends = {
        name: f"</Size>{'' if owner is None else _person('Owner', name or owner)}{end}"
        for name in {listed.owner for listed in objects}
    }
    keys = _written([entry.key for entry in objects], encoding_type)
    etags = _written([entry.etag for entry in objects], None)
    return "".join(
        [
            f"<Contents><Key>{key}</Key><LastModified>{iso8601(entry.modified_ms)}</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{entry.size}{ends[entry.owner]}"
            for key, etag, entry in zip(keys, etags, objects, strict=True)
        ]
    )


def _common_prefixes(prefixes: Iterable[str], encode: Callable[[str], str]) -> str:
    return "".join(
        f"<CommonPrefixes>{_element('Prefix', encode(prefix))}</CommonPrefixes>" for prefix in prefixes
    )


def _encoded(name: str, value: str | None, encode: Callable[[str], str]) -> str:
    return _element(name, None if value is None else encode(value))


def list_objects_v2(
    *,
    bucket: str,
    prefix: str,
    max_keys: int,
    objects: Sequence[Listed],
    common_prefixes: Sequence[str] = (),
    delimiter: str | None = None,
    encoding_type: str | None = None,
    start_after: str | None = None,
    continuation_token: str | None = None,
    next_token: str | None = None,
    owner: str | None = None,
) -> bytes:
    """One page of ListObjectsV2; truncated if there is a ``next_token``; ``owner`` for fetch-owner."""
    encode = _encoder(encoding_type)
    return _document(
        "ListBucketResult",
        _element("Name", bucket),
        _encoded("Prefix", prefix, encode),
        _encoded("Delimiter", delimiter, encode),
        _element("MaxKeys", max_keys),
        _element("EncodingType", encoding_type),
        _element("KeyCount", len(objects) + len(common_prefixes)),
        _element("IsTruncated", next_token is not None),
        _element("ContinuationToken", continuation_token),
        _element("NextContinuationToken", next_token),
        _encoded("StartAfter", start_after, encode),
        _contents(objects, encoding_type, owner),
        _common_prefixes(common_prefixes, encode),
    )


def list_objects_v1(
    *,
    bucket: str,
    prefix: str,
    marker: str,
    max_keys: int,
    is_truncated: bool,
    objects: Sequence[Listed],
    owner: str,
    common_prefixes: Sequence[str] = (),
    delimiter: str | None = None,
    encoding_type: str | None = None,
    next_marker: str | None = None,
) -> bytes:
    """One page of ListObjects; S3 sends ``next_marker`` only where a delimiter was given.

    The prefix is as it is, whatever the encoding type: SDKs decode all names of this answer but that one.
    """
    encode = _encoder(encoding_type)
    return _document(
        "ListBucketResult",
        _element("Name", bucket),
        _element("Prefix", prefix),
        _encoded("Marker", marker, encode),
        _encoded("NextMarker", next_marker, encode),
        _encoded("Delimiter", delimiter, encode),
        _element("MaxKeys", max_keys),
        _element("EncodingType", encoding_type),
        _element("IsTruncated", is_truncated),
        _contents(objects, encoding_type, owner),
        _common_prefixes(common_prefixes, encode),
    )


def _checksums(found: Mapping[str, str]) -> str:
    """Elements for kept checksums: algorithm name to base64."""
    return "".join(_element(f"Checksum{name}", value) for name, value in found.items())


def copied_object(
    etag: str, modified_ms: int, checksum: Mapping[str, str], checksum_type: str | None = None
) -> bytes:
    """The answer of CopyObject."""
    return _document(
        "CopyObjectResult",
        _element("LastModified", iso8601(modified_ms)),
        _etag(etag),
        _checksums(checksum),
        _element("ChecksumType", checksum_type if checksum else None),
    )


def copied_part(etag: str, modified_ms: int, checksum: Mapping[str, str]) -> bytes:
    """The answer of UploadPartCopy."""
    modified = _element("LastModified", iso8601(modified_ms))
    return _document("CopyPartResult", modified, _etag(etag), _checksums(checksum))


def object_attributes(*content: str) -> bytes:
    """The answer of GetObjectAttributes: what was asked for, of the functions below."""
    return _document("GetObjectAttributesResponse", *content)


def attribute(name: str, value: str | int) -> str:
    """One that is a text or number."""
    return _element(name, value)


def attribute_checksum(checksum: Mapping[str, str], checksum_type: str) -> str:
    """The object's checksum."""
    return f"<Checksum>{_checksums(checksum)}{_element('ChecksumType', checksum_type)}</Checksum>"


def attribute_parts(
    *, count: int, marker: int, max_parts: int, is_truncated: bool, parts: Sequence[ListedPart]
) -> str:
    """One page of the object's parts."""
    listed = "".join(
        f"<Part>{_element('PartNumber', part.number)}{_element('Size', part.size)}"
        f"{_checksums(part.checksum)}</Part>"
        for part in parts
    )
    return (
        f"<ObjectParts>{_element('PartsCount', count)}{_element('PartNumberMarker', marker)}"
        f"{_element('NextPartNumberMarker', parts[-1].number if parts else marker)}"
        f"{_element('MaxParts', max_parts)}{_element('IsTruncated', is_truncated)}{listed}</ObjectParts>"
    )


def initiated_upload(*, bucket: str, key: str, upload_id: str) -> bytes:
    """The answer of CreateMultipartUpload."""
    return _document(
        "InitiateMultipartUploadResult",
        _element("Bucket", bucket),
        _element("Key", key),
        _element("UploadId", upload_id),
    )


def completed_upload(
    *,
    url: str,
    bucket: str,
    key: str,
    etag: str,
    checksum: Mapping[str, str],
    checksum_type: str | None = None,
) -> bytes:
    """The answer of CompleteMultipartUpload; ``url`` is where the object is now."""
    return _document(
        "CompleteMultipartUploadResult",
        _element("Location", url),
        _element("Bucket", bucket),
        _element("Key", key),
        _etag(etag),
        _checksums(checksum),
        _element("ChecksumType", checksum_type),
    )


@dataclass(frozen=True, slots=True)
class DeletedObject:
    """What DeleteObjects has deleted; ``marker`` is the id of the marker that it made, or deleted."""

    key: str
    version_id: str | None
    marker: str = ""


def delete_result(deleted: Iterable[DeletedObject], failures: Iterable[DeleteFailure]) -> bytes:
    """The answer of DeleteObjects; ``deleted`` is empty in quiet mode."""
    return _document(
        "DeleteResult",
        "".join(
            f"<Deleted>{_element('Key', one.key)}{_element('VersionId', one.version_id)}"
            f"{_element('DeleteMarker', True if one.marker else None)}"
            f"{_element('DeleteMarkerVersionId', one.marker or None)}</Deleted>"
            for one in deleted
        ),
        "".join(
            f"<Error>{_element('Key', failure.key)}{_element('VersionId', failure.version_id)}"
            f"{_element('Code', failure.error.code)}{_element('Message', failure.error.message)}</Error>"
            for failure in failures
        ),
    )


def list_versions(
    *,
    bucket: str,
    wanted: Wanted,
    max_keys: int,
    entries: Sequence[ListedVersion],
    owner: str,
    common_prefixes: Sequence[str] = (),
    encoding_type: str | None = None,
    next_marker: tuple[str, str] | None = None,
) -> bytes:
    """One page of ListObjectVersions; truncated if there is a ``next_marker`` (key, and id or nothing)."""
    encode = _encoder(encoding_type)

    def listed(entry: ListedVersion) -> str:
        role = "DeleteMarker" if entry.is_marker else "Version"
        content = "" if entry.is_marker else f"{_etag(entry.etag)}{_element('Size', entry.size)}"
        storage = "" if entry.is_marker else _element("StorageClass", _STORAGE_CLASS)
        return (
            f"<{role}>{_element('Key', encode(entry.key))}{_element('VersionId', entry.version)}"
            f"{_element('IsLatest', entry.is_latest)}{_element('LastModified', iso8601(entry.modified_ms))}"
            f"{content}{_person('Owner', entry.owner or owner)}{storage}</{role}>"
        )

    next_key, next_id = next_marker or (None, None)
    return _document(
        "ListVersionsResult",
        _element("Name", bucket),
        _encoded("Prefix", wanted.prefix, encode),
        _encoded("KeyMarker", wanted.key_marker, encode),
        _element("VersionIdMarker", wanted.id_marker),
        _encoded("NextKeyMarker", next_key, encode),
        _element("NextVersionIdMarker", next_id or None),
        _encoded("Delimiter", wanted.delimiter or None, encode),
        _element("MaxKeys", max_keys),
        _element("EncodingType", encoding_type),
        _element("IsTruncated", next_marker is not None),
        "".join(map(listed, entries)),
        _common_prefixes(common_prefixes, encode),
    )


def list_parts(
    *,
    bucket: str,
    key: str,
    upload_id: str,
    owner: str,
    initiator: str,
    part_number_marker: int,
    max_parts: int,
    is_truncated: bool,
    parts: Sequence[ListedPart],
    encoding_type: str | None = None,
    checksum_of: tuple[str | None, str | None] = (None, None),
) -> bytes:
    """One page of ListParts; ``checksum_of`` is the upload's algorithm and type."""
    listed = "".join(
        f"<Part>{_element('PartNumber', part.number)}{_element('LastModified', iso8601(part.modified_ms))}"
        f"{_etag(part.etag)}{_element('Size', part.size)}{_checksums(part.checksum)}</Part>"
        for part in parts
    )
    return _document(
        "ListPartsResult",
        _element("Bucket", bucket),
        _element("EncodingType", encoding_type),
        _encoded("Key", key, _encoder(encoding_type)),
        _element("UploadId", upload_id),
        _person("Initiator", initiator),
        _person("Owner", owner),
        _element("StorageClass", _STORAGE_CLASS),
        _element("PartNumberMarker", part_number_marker),
        _element("NextPartNumberMarker", parts[-1].number if parts else part_number_marker),
        _element("MaxParts", max_parts),
        _element("IsTruncated", is_truncated),
        _element("ChecksumAlgorithm", checksum_of[0]),
        _element("ChecksumType", checksum_of[1]),
        listed,
    )


def list_uploads(
    *,
    bucket: str,
    prefix: str,
    key_marker: str,
    upload_id_marker: str,
    max_uploads: int,
    uploads: Sequence[ListedUpload],
    common_prefixes: Sequence[str] = (),
    delimiter: str | None = None,
    encoding_type: str | None = None,
    next_marker: tuple[str, str] | None = None,
) -> bytes:
    """One page of ListMultipartUploads; truncated if there is a ``next_marker`` (key, upload id)."""
    encode = _encoder(encoding_type)
    listed = "".join(
        f"<Upload>{_element('Key', encode(upload.key))}{_element('UploadId', upload.upload_id)}"
        f"{_person('Initiator', upload.initiator)}{_person('Owner', upload.owner)}"
        f"{_element('StorageClass', _STORAGE_CLASS)}{_element('Initiated', iso8601(upload.initiated_ms))}"
        f"{_element('ChecksumAlgorithm', upload.checksum_of[0])}"
        f"{_element('ChecksumType', upload.checksum_of[1])}</Upload>"
        for upload in uploads
    )
    next_key, next_upload_id = next_marker or (None, None)
    return _document(
        "ListMultipartUploadsResult",
        _element("Bucket", bucket),
        _encoded("KeyMarker", key_marker, encode),
        _element("UploadIdMarker", upload_id_marker),
        _encoded("NextKeyMarker", next_key, encode),
        _element("NextUploadIdMarker", next_upload_id),
        _encoded("Prefix", prefix, encode),
        _encoded("Delimiter", delimiter, encode),
        _element("EncodingType", encoding_type),
        _element("MaxUploads", max_uploads),
        _element("IsTruncated", next_marker is not None),
        listed,
        _common_prefixes(common_prefixes, encode),
    )


def access_control(owner: str, grants: Iterable[tuple[str, str]]) -> bytes:
    """GetBucketAcl and GetObjectAcl. A grantee is a user's name, or the URI of a group."""
    rows = []
    for grantee, permission in grants:
        is_group = grantee.startswith("http:")
        kind = "Group" if is_group else "CanonicalUser"
        inner = _element("URI", grantee) if is_group else _user(grantee)
        rows.append(
            '<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:type="{kind}">{inner}</Grantee>{_element("Permission", permission)}</Grant>'
        )
    listed = f"<AccessControlList>{''.join(rows)}</AccessControlList>"
    return _document("AccessControlPolicy", f"<Owner>{_user(owner)}</Owner>", listed)


def _user(name: str) -> str:
    return _element("ID", name) + _element("DisplayName", name)


def settings(root: str, values: Iterable[tuple[str, str | bool]]) -> bytes:
    """A configuration that is a flat list of texts and truth values."""
    return _document(root, *[_element(name, value) for name, value in values])


def ownership_controls(ownership: str) -> bytes:
    """GetBucketOwnershipControls."""
    return _document("OwnershipControls", f"<Rule>{_element('ObjectOwnership', ownership)}</Rule>")
