"""What a policy's conditions are told of a request: AWS's condition keys for S3. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ssastore.core.users import ANYBODY
from ssastore.s3 import sigv2
from ssastore.s3.errors import S3Error
from ssastore.s3.request import Request
from ssastore.s3.tags import tags_of_headers

_LISTINGS = ("ListBucket", "ListBucketVersions")
"Actions that prefix, delimiter and number of keys are conditions of."
_SETS_TAGS = ("PutObjectTagging", "PutObjectVersionTagging")


def circumstances(request: Request, action: str, version_id: str | None) -> Mapping[str, list[str]]:
    """Condition keys of a request, by the names of AWS's list for S3.

    Args:
        action: that is judged, without ``s3:``; some keys belong to some actions alone.
        version_id: that the action is about, if it names one.
    """
    now = datetime.fromtimestamp(request.received_ms / 1000, UTC)
    found = {
        "aws:securetransport": ["false"],
        "aws:currenttime": [now.isoformat()],
        "aws:epochtime": [str(request.received_ms // 1000)],
        "s3:signatureversion": [request.principal.version],
    }
    if request.user == ANYBODY:
        del found["s3:signatureversion"]
    else:
        found["aws:username"] = found["aws:userid"] = [request.user]
        found["aws:principalarn"] = [f"arn:aws:iam:::user/{request.user}"]
        # A URL of Version 2 does not say how old it is: as old as can be, for those who refuse old ones.
        signed_ms = 0 if request.principal.version == sigv2.VERSION else request.principal.signed_at_ms
        found["s3:signatureage"] = [str(max(0, request.received_ms - signed_ms))]
        found["s3:authtype"] = [_way(request)]
    if request.remote:
        found["aws:sourceip"] = [request.remote]
    for name, header in (("aws:useragent", "User-Agent"), ("aws:referer", "Referer")):
        if header in request.headers:
            found[name] = [request.headers[header]]
    for header, value in request.headers.items():
        if header.lower().startswith("x-amz-"):
            found[f"s3:{header.lower()}"] = [value]
    for parameter in ("prefix", "delimiter", "max-keys"):
        if parameter in request.query and action in _LISTINGS:
            found[f"s3:{parameter}"] = [request.query[parameter]]
    if version_id is not None:
        found["s3:versionid"] = [version_id]
    tags = request_tags(request, action)
    for name, value in tags.items():
        found[f"s3:requestobjecttag/{name.lower()}"] = [value]
    if tags:
        found["s3:requestobjecttagkeys"] = list(tags)
    return found


def _way(request: Request) -> str:
    """How a request was signed."""
    if not request.principal.access_key:
        return "POST"
    return "REST-QUERY-STRING" if request.principal.is_presigned else "REST-HEADER"


def request_tags(request: Request, action: str) -> dict[str, str]:
    """The tags that a request brings and an action sets; what is none the operation refuses."""
    if action in _SETS_TAGS and request.tags is not None:
        return request.tags
    if action not in ("PutObject", "PutObjectTagging"):
        return {}
    # Forms and the beginnings of uploads, which are POSTs, read the tags and not the source.
    is_copy = request.method == "PUT" and "x-amz-copy-source" in request.headers
    if is_copy and request.headers.get("x-amz-tagging-directive") != "REPLACE":
        return {}
    try:
        return tags_of_headers(request.headers)
    except S3Error:
        return {}
