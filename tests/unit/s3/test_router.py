"""Which operation a request is: never another one than the client means."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from ssastore.s3.errors import S3Error
from ssastore.s3.router import route

_MODEL: Any = botocore.session.get_session().get_service_model("s3")
_SAME = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "ListObjectsV2": "ListObjects",
    "ListDirectoryBuckets": "ListBuckets",
}
"Operations that are served as others are: the earlier names, and what one request cannot be told from."


@pytest.mark.parametrize("name", _MODEL.operation_names)
def test_every_operation_that_an_sdk_knows_is_itself_or_refused(name: str) -> None:
    """What is not known must not be taken for a put or a delete of the object, or of the bucket."""
    operation = _MODEL.operation_model(name)
    path, _, text = operation.http["requestUri"].partition("?")
    query = {pair.partition("=")[0]: pair.partition("=")[2] for pair in text.split("&") if pair}
    headers: dict[str, str] = {}
    shape = operation.input_shape
    for member in shape.required_members if shape else ():
        sent = shape.members[member].serialization
        where = {"querystring": query, "header": headers}.get(sent.get("location"))
        if where is not None:
            where[sent["name"].lower() if where is headers else sent["name"]] = "x"
    bucket = "b" if shape and "Bucket" in shape.members else None
    key = "k" if "{Key+}" in path else None
    try:
        found = route(operation.http["method"], bucket, key, query, headers)
    except S3Error as error:
        assert error.code in ("NotImplemented", "MethodNotAllowed")
    else:
        assert found == _SAME.get(name, name)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_change_of_what_is_not_known_is_refused_by_name(method: str, key: str | None) -> None:
    with pytest.raises(S3Error, match="next-years-idea") as caught:
        route(method, "b", key, {"next-years-idea": ""}, {})
    assert caught.value.code == "NotImplemented"


def test_parameters_that_mean_nothing_here_are_passed_over() -> None:
    """Browsers and logs get them: what only reads, has a value, or begins so as AWS lets it begin."""
    assert route("GET", "b", "k", {"12345": ""}, {}) == "GetObject"
    assert route("PUT", "b", "k", {"utm": "1", "x-trace": "", "X-Amz-Security-Token": ""}, {}) == "PutObject"
    assert route("DELETE", "b", "k", {"versionId": ""}, {}) == "DeleteObject"


@pytest.mark.parametrize(
    ("method", "query", "header"),
    [
        ("PUT", {}, "x-amz-write-offset-bytes"),
        ("PUT", {}, "x-amz-object-lock-event-hold"),
        ("POST", {"uploads": ""}, "x-amz-object-lock-event-hold-duration-days"),
        ("DELETE", {"uploadId": "u"}, "x-amz-if-match-initiated-time"),
    ],
)
def test_what_a_header_demands_is_done_or_refused(method: str, query: dict[str, str], header: str) -> None:
    """An append that is passed over replaces, a hold leaves unprotected, a condition aborts at any rate."""
    with pytest.raises(S3Error) as caught:
        route(method, "b", "k", query, {header: "5"})
    assert caught.value.code == "NotImplemented"
