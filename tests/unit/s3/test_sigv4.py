"""Signature verification: botocore and AWS's published examples say what must pass; everything
that differs by one byte from such a request must not."""

from __future__ import annotations

import hashlib
import hmac
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from ssastore.s3 import sigv4
from ssastore.s3.errors import S3Error
from ssastore.s3.principal import PayloadMode, Principal, SignedRequest
from ssastore.s3.sigv4 import authenticate, form_credential

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
EMPTY = hashlib.sha256(b"").hexdigest()
AWS_NOW_MS = 1369353600000
"2013-05-24T00:00:00Z, the time of all examples in AWS's documentation."


def verify(request: SignedRequest, now_ms: int, **options: Any) -> Principal:
    arguments: dict[str, Any] = {"region": REGION, "secret_of": {ACCESS_KEY: SECRET}.get}
    return authenticate(request, now_ms=now_ms, **(arguments | options))


def refusal(request: SignedRequest, now_ms: int, **options: Any) -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(request, now_ms, **options)
    return caught.value


def rewritten(request: SignedRequest, name: bytes, value: bytes | None) -> SignedRequest:
    """``request`` with a header set to ``value``, or without it."""
    headers = [header for header in request.headers if header[0].lower() != name]
    if value is not None:
        headers.append((name, value))
    return replace(request, headers=headers)


# -- what must pass ---------------------------------------------------------------------------------

ODD_KEY = "a b+c%/~é/../x//y?&=#'\"<>\\^`{|}*!()@:,;$"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("list_buckets", {}),
        ("create_bucket", {"Bucket": "photos"}),
        ("get_object", {"Bucket": "photos", "Key": "cat.jpg", "Range": "bytes=0-9", "IfMatch": '"x"'}),
        ("get_object", {"Bucket": "photos", "Key": ODD_KEY, "VersionId": "a/b+c=="}),
        ("head_object", {"Bucket": "photos", "Key": "/a//b/."}),
        ("put_object", {"Bucket": "photos", "Key": ODD_KEY, "Body": b"hello", "Metadata": {"Two": "a  b"}}),
        ("put_object", {"Bucket": "photos", "Key": "k", "Body": b"", "ContentType": "text/plain; x=y"}),
        ("list_objects_v2", {"Bucket": "photos", "Prefix": "a b/+é&=~*'", "Delimiter": "/", "MaxKeys": 7}),
        ("list_objects", {"Bucket": "photos", "Marker": "%2F", "EncodingType": "url"}),
        ("copy_object", {"Bucket": "photos", "Key": "k", "CopySource": {"Bucket": "b", "Key": ODD_KEY}}),
        ("delete_objects", {"Bucket": "photos", "Delete": {"Objects": [{"Key": "a"}, {"Key": ODD_KEY}]}}),
        ("create_multipart_upload", {"Bucket": "photos", "Key": "k"}),
        ("upload_part", {"Bucket": "b-1", "Key": "k", "UploadId": "u=+/", "PartNumber": 3, "Body": b"x"}),
        ("get_bucket_location", {"Bucket": "photos"}),
    ],
)
def test_what_boto3_sends_is_accepted(
    capture: Callable[..., Any], call: str, arguments: dict[str, Any]
) -> None:
    sent = capture(call, **arguments)
    principal = verify(sent.signed(), sent.now_ms)
    assert principal.access_key == ACCESS_KEY
    assert principal.payload is PayloadMode.SIGNED
    assert principal.payload_sha256 == hashlib.sha256(sent.body).digest()
    assert not principal.is_presigned


def test_boto3_over_https_leaves_the_body_to_a_trailer(capture: Callable[..., Any]) -> None:
    arguments = {"Bucket": "photos", "Key": "k", "Body": io.BytesIO(b"x" * 70_000)}
    sent = capture("put_object", endpoint="https://localhost:7482", **arguments)
    principal = verify(sent.signed(), sent.now_ms)
    assert principal.payload is PayloadMode.UNSIGNED_TRAILER
    assert (principal.payload_sha256, principal.chain) == (None, None)


@pytest.mark.parametrize(
    ("call", "method", "parameters"),
    [
        ("get_object", "GET", {"Bucket": "photos", "Key": ODD_KEY}),
        ("put_object", "PUT", {"Bucket": "photos", "Key": "k"}),
        ("get_object", "GET", {"Bucket": "photos", "Key": "k", "ResponseContentType": "text/plain; a=b c"}),
    ],
)
def test_presigned_urls_of_boto3_are_accepted(
    boto: Callable[..., Any], signer: Callable[..., Any], call: str, method: str, parameters: dict[str, str]
) -> None:
    url = urlsplit(boto().generate_presigned_url(call, Params=parameters, ExpiresIn=60))
    query = dict(pair.split("=") for pair in url.query.split("&"))
    now_ms = signer(timestamp=query["X-Amz-Date"]).now_ms
    request = SignedRequest(method, url.path.encode(), url.query.encode(), [(b"Host", url.netloc.encode())])
    principal = verify(request, now_ms)
    assert principal == Principal(ACCESS_KEY, PayloadMode.UNSIGNED, None, None, True, now_ms)
    assert verify(request, now_ms + 60_000).is_presigned
    assert refusal(request, now_ms + 61_000).message == "Request has expired"


AWS_HOST = (b"Host", b"examplebucket.s3.amazonaws.com")
AWS_DATE = (b"x-amz-date", b"20130524T000000Z")
AWS_EMPTY = (b"x-amz-content-sha256", EMPTY.encode())


def aws_authorization(signed_headers: str, signature: str) -> tuple[bytes, bytes]:
    credential = f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request"
    claim = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed_headers},Signature={signature}"
    return b"Authorization", claim.encode()


AWS_EXAMPLES = {
    "get with range": SignedRequest(
        "GET",
        b"/test.txt",
        b"",
        [
            AWS_HOST,
            (b"Range", b"bytes=0-9"),
            AWS_EMPTY,
            AWS_DATE,
            aws_authorization(
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
        ],
    ),
    "put, dated by Date": SignedRequest(
        "PUT",
        b"/test%24file.text",
        b"",
        [
            AWS_HOST,
            (b"Date", b"Fri, 24 May 2013 00:00:00 GMT"),
            AWS_DATE,
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            (b"x-amz-content-sha256", b"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            aws_authorization(
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
        ],
    ),
    "sub-resource without value": SignedRequest(
        "GET",
        b"/",
        b"lifecycle",
        [
            AWS_HOST,
            AWS_DATE,
            AWS_EMPTY,
            aws_authorization(
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
        ],
    ),
    "list": SignedRequest(
        "GET",
        b"/",
        b"max-keys=2&prefix=J",
        [
            AWS_HOST,
            AWS_DATE,
            AWS_EMPTY,
            aws_authorization(
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ],
    ),
    "presigned": SignedRequest(
        "GET",
        b"/test.txt",
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1"
        b"%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        b"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        [AWS_HOST],
    ),
}


@pytest.mark.parametrize("example", AWS_EXAMPLES)
def test_examples_of_the_aws_documentation_are_accepted(example: str) -> None:
    assert verify(AWS_EXAMPLES[example], AWS_NOW_MS).access_key == ACCESS_KEY


def test_the_order_of_query_parameters_does_not_matter() -> None:
    request = replace(AWS_EXAMPLES["list"], query=b"prefix=%4A&max-keys=2")
    assert verify(request, AWS_NOW_MS).access_key == ACCESS_KEY


def test_white_space_in_header_values_is_folded(signer: Callable[..., Any]) -> None:
    sent = signer(headers={"x-amz-meta-a": "one two"})
    request = rewritten(sent.signed(), b"x-amz-meta-a", b"  one \t  two ")
    assert verify(request, sent.now_ms).access_key == ACCESS_KEY


def test_repeated_headers_are_signed_as_one(signer: Callable[..., Any]) -> None:
    sent = signer(headers={"x-amz-meta-a": "one,two"})
    request = rewritten(sent.signed(), b"x-amz-meta-a", None)
    request = replace(
        request, headers=[*request.headers, (b"X-Amz-Meta-A", b"one"), (b"x-amz-meta-a", b"two")]
    )
    assert verify(request, sent.now_ms).access_key == ACCESS_KEY


def test_a_plus_in_the_query_is_a_blank_as_in_the_parsed_query(signer: Callable[..., Any]) -> None:
    sent = signer(query="prefix=a%20b")
    assert verify(replace(sent.signed(), query=b"prefix=a+b"), sent.now_ms)
    assert refusal(replace(sent.signed(), query=b"prefix=a%2Bb"), sent.now_ms).code == "SignatureDoesNotMatch"


def test_the_date_header_alone_can_date_a_request(signer: Callable[..., Any]) -> None:
    date = "Fri, 02 Jan 2026 03:04:05 GMT"
    sent = signer(headers={"date": date}, unsigned=("x-amz-date",))
    request = rewritten(sent.signed(), b"x-amz-date", None)
    assert verify(request, sent.now_ms).access_key == ACCESS_KEY


def test_a_date_without_a_zone_is_not_read_in_the_zone_of_this_machine(
    signer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = signer(headers={"date": "Fri, 02 Jan 2026 03:04:05 -0000"}, unsigned=("x-amz-date",))
    request = rewritten(sent.signed(), b"x-amz-date", None)
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert verify(request, sent.now_ms).access_key == ACCESS_KEY
        finally:
            patched.undo()
            time.tzset()


# -- what must not pass: one byte off ---------------------------------------------------------------


@pytest.fixture(scope="module")
def put(capture: Callable[..., Any]) -> Any:
    """A rich request of boto3."""
    arguments = {"Bucket": "photos", "Key": "a b/ü", "Body": b"hello", "Metadata": {"one": "1"}}
    return capture("put_object", ContentType="text/plain", **arguments)


def test_every_character_of_the_signature_counts(put: Any) -> None:
    request = put.signed()
    authorization = put.header("authorization").encode()
    assert len(authorization.rpartition(b"=")[2]) == 64
    for position in range(len(authorization) - 64, len(authorization)):
        wrong = b"0" if authorization[position : position + 1] != b"0" else b"1"
        changed = authorization[:position] + wrong + authorization[position + 1 :]
        error = refusal(rewritten(request, b"authorization", changed), put.now_ms)
        assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("mutate", [bytes.upper, lambda s: s[:-1], lambda s: s + b"0", lambda s: b"z" * 64])
def test_a_signature_of_another_shape_is_refused(put: Any, mutate: Callable[[bytes], bytes]) -> None:
    head, equals, signature = put.header("authorization").encode().rpartition(b"=")
    request = rewritten(put.signed(), b"authorization", head + equals + mutate(signature))
    assert refusal(request, put.now_ms).code == "SignatureDoesNotMatch"


def test_every_signed_header_counts(put: Any) -> None:
    authorization = put.header("authorization")
    names = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "content-type", "x-amz-meta-one", "x-amz-content-sha256", "x-amz-date"} <= set(names)
    for name in names:
        request = put.signed()
        value = put.header(name).encode()
        changed = b"0" * 64 if name == "x-amz-content-sha256" else value[:-1] + b"~"
        assert refusal(rewritten(request, name.encode(), changed), put.now_ms).status == 403
        assert refusal(rewritten(request, name.encode(), None), put.now_ms).status in (400, 403)
        assert verify(rewritten(request, name.encode(), value), put.now_ms)  # only its place has changed


def test_every_byte_of_the_path_counts(put: Any) -> None:
    request = put.signed()
    for position in range(len(request.path)):
        path = bytearray(request.path)
        path[position] ^= 1
        assert refusal(replace(request, path=bytes(path)), put.now_ms).code == "SignatureDoesNotMatch"
    # Another spelling of the same key was not signed either.
    spelled = request.path.replace(b"%20", b"%2520")
    assert refusal(replace(request, path=spelled), put.now_ms).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("query", [b"", b"list-type=2", b"list-type=2&prefix=b", b"list-type=2&prefix=a&x="])
def test_the_query_counts(signer: Callable[..., Any], query: bytes) -> None:
    sent = signer(query="list-type=2&prefix=a")
    assert verify(sent.signed(), sent.now_ms)
    assert refusal(replace(sent.signed(), query=query), sent.now_ms).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("method", ["GET", "DELETE", "get", ""])
def test_the_method_counts(put: Any, method: str) -> None:
    assert refusal(replace(put.signed(), method=method), put.now_ms).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "name",
    [
        b"x-amz-copy-source",
        b"X-Amz-Acl",
        b"x-amz-meta-two",
        b"x-amz-tagging",
        b"x-amz-server-side-encryption",
    ],
)
def test_an_x_amz_header_that_was_not_signed_is_refused(put: Any, name: bytes) -> None:
    for request, now_ms in ((put.signed(), put.now_ms), (AWS_EXAMPLES["presigned"], AWS_NOW_MS)):
        added = replace(request, headers=[*request.headers, (name, b"/other/key")])
        error = refusal(added, now_ms)
        assert (error.code, error.status) == ("AccessDenied", 403)
        assert error.fields["HeadersNotSigned"] == name.decode().lower()


def test_presigned_urls_are_bound_to_method_key_host_and_parameters() -> None:
    request = AWS_EXAMPLES["presigned"]
    for changed in (
        replace(request, method="PUT"),
        replace(request, path=b"/test2.txt"),
        replace(request, headers=[(b"Host", b"other.example")]),
        replace(request, query=request.query + b"&versionId=1"),
        replace(request, query=request.query.replace(b"=86400", b"=86401")),
        replace(request, query=request.query.replace(b"T000000Z", b"T000001Z")),
    ):
        error = refusal(changed, AWS_NOW_MS)
        assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


# -- what must not pass: rules ----------------------------------------------------------------------

NOW = {"timestamp": "20260102T030405Z"}


@pytest.mark.parametrize(
    ("order", "code", "status"),
    [
        ({"access_key": "AKIAUNKNOWN"}, "InvalidAccessKeyId", 403),
        ({"access_key": "x" * 200}, "InvalidAccessKeyId", 403),
        ({"access_key": "a/b"}, "AuthorizationHeaderMalformed", 403),
        ({"secret": "other"}, "SignatureDoesNotMatch", 403),
        ({"date": "20260103"}, "SignatureDoesNotMatch", 403),
        ({"region": "eu-west-1"}, "AuthorizationHeaderMalformed", 403),
        ({"region": ""}, "AuthorizationHeaderMalformed", 403),
        ({"service": "ec2"}, "SignatureDoesNotMatch", 403),
        ({"terminator": "aws5_request"}, "SignatureDoesNotMatch", 403),
        ({"signed": ["x-amz-content-sha256", "x-amz-date"]}, "SignatureDoesNotMatch", 403),
        ({"signed": ["host", "range", "x-amz-content-sha256", "x-amz-date"]}, "SignatureDoesNotMatch", 403),
        ({"signed": ["x-amz-date", "host", "x-amz-content-sha256"]}, "SignatureDoesNotMatch", 403),
        ({"signed": ["host", "host", "x-amz-content-sha256", "x-amz-date"]}, "SignatureDoesNotMatch", 403),
        ({"signed": ["Host", "host", "x-amz-content-sha256", "x-amz-date"]}, "SignatureDoesNotMatch", 403),
        ({"signed": ["host", "x-amz-content-sha256"]}, "AccessDenied", 403),
        ({"payload": None}, "InvalidRequest", 400),
        ({"payload": "abc"}, "InvalidArgument", 403),
        ({"payload": EMPTY.upper()}, "InvalidArgument", 403),
        ({"payload": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}, "InvalidArgument", 403),
        ({"headers": {"x-amz-security-token": "t"}}, "InvalidToken", 403),
        ({"query": "a=%zz"}, "InvalidURI", 400),
        ({"extra_headers": (("X-Amz-Date", "20260102T030405Z"),)}, "InvalidArgument", 400),
        ({"extra_headers": (("Host", "other"),)}, "InvalidArgument", 400),
        ({"extra_headers": (("Authorization", "x"),)}, "InvalidArgument", 400),
        ({"query": "X-Amz-Signature=" + "0" * 64}, "InvalidArgument", 400),
        ({"query": "X-Amz-Credential=x"}, "InvalidArgument", 400),
    ],
)
def test_consistently_signed_requests_that_break_a_rule_are_refused(
    signer: Callable[..., Any], order: dict[str, Any], code: str, status: int
) -> None:
    sent = signer(**(NOW | order))
    error = refusal(sent.signed(), sent.now_ms)
    assert (error.code, error.status) == (code, status)


def test_a_wrong_region_names_the_right_one(signer: Callable[..., Any]) -> None:
    sent = signer(region="eu-west-1")
    assert refusal(sent.signed(), sent.now_ms).fields["Region"] == REGION
    assert verify(sent.signed(), sent.now_ms, region="eu-west-1").access_key == ACCESS_KEY


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "InvalidArgument"),
        ("A" * 1_000_000, "InvalidArgument"),
        ("AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=", "InvalidRequest"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a, SignedHeaders=host, Signature=b", "InvalidRequest"),
        ("Basic dXNlcjpwYXNz", "InvalidRequest"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a/20260102/us-east-1/s3/aws4_request", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=x", "AuthorizationHeaderMalformed"),
        (
            "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c, Signature=d",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c, Other=d",
            "AuthorizationHeaderMalformed",
        ),
    ],
)
def test_malformed_authorization_headers_are_refused(
    signer: Callable[..., Any], authorization: str, code: str
) -> None:
    sent = signer()
    request = rewritten(sent.signed(), b"authorization", authorization.encode())
    error = refusal(request, sent.now_ms)
    assert (error.code, error.status) == (code, 400)


def test_a_request_without_credentials_is_denied(signer: Callable[..., Any]) -> None:
    sent = signer()
    error = refusal(rewritten(sent.signed(), b"authorization", None), sent.now_ms)
    assert (error.code, error.status) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    ("timestamp", "late_ms", "code"),
    [
        ("20260102T030405Z", 15 * 60_000, None),
        ("20260102T030405Z", -15 * 60_000, None),
        ("20260102T030405Z", 15 * 60_000 + 1, "RequestTimeTooSkewed"),
        ("20260102T030405Z", -15 * 60_000 - 1, "RequestTimeTooSkewed"),
        ("20260102T235959Z", 60_000, None),
        ("19690102T030405Z", None, "RequestTimeTooSkewed"),
        ("99991231T235959Z", None, "RequestTimeTooSkewed"),
        ("20260230T030405Z", None, "AccessDenied"),
        ("00000102T030405Z", None, "AccessDenied"),
        ("20260102T030460Z", None, "AccessDenied"),
        ("20260102 030405Z", None, "AccessDenied"),
        ("+0260102T030405Z", None, "AccessDenied"),
        ("20260102T030405", None, "AccessDenied"),
        ("Fri, 02 Jan 2026 03:04:05 GMT", None, "AccessDenied"),
        ("", None, "AccessDenied"),
    ],
)
def test_requests_are_good_for_fifteen_minutes_around_their_time(
    signer: Callable[..., Any], timestamp: str, late_ms: int | None, code: str | None
) -> None:
    sent = signer(timestamp=timestamp, date=timestamp[:8].replace(",", " "))
    now_ms = sent.now_ms + late_ms if late_ms is not None else signer().now_ms
    if code is None:
        assert verify(sent.signed(), now_ms)
    else:
        assert (refusal(sent.signed(), now_ms).code, refusal(sent.signed(), now_ms).status) == (code, 403)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"X-Amz-Signature=", b"X-Amz-Other=", 400),
        (b"X-Amz-Credential=", b"X-Amz-Other=", 400),
        (b"X-Amz-Algorithm=", b"X-Amz-Other=", 400),
        (b"X-Amz-Date=", b"X-Amz-Other=", 400),
        (b"X-Amz-SignedHeaders=", b"X-Amz-Other=", 400),
        (b"X-Amz-Expires=86400", b"X-Amz-Other=1", 400),
        (b"=86400", b"=0", 400),
        (b"=86400", b"=-1", 400),
        (b"=86400", b"=1e9", 400),
        (b"=86400", b"=604801", 400),
        (b"=86400", b"=" + b"9" * 5000, 400),
        (b"=86400", b"=%D9%A1", 400),
        (b"=86400", b"=86400&X-Amz-Expires=86400", 400),
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA512", 400),
        (b"20130524T000000Z", b"20130230T000000Z", 400),
        (b"%2Fus-east-1", b"%2Feu-west-1", 403),
        (b"%2Fs3", b"%2Fs4", 403),
        (b"=host", b"=range", 403),
        (b"=host", b"=host&X-Amz-Content-Sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER", 400),
        (b"AKIAIOSFODNN7EXAMPLE", b"AKIAUNKNOWN", 403),
    ],
)
def test_malformed_presigned_urls_are_refused(old: bytes, new: bytes, status: int) -> None:
    request = AWS_EXAMPLES["presigned"]
    assert request.query.count(old) == 1
    error = refusal(replace(request, query=request.query.replace(old, new)), AWS_NOW_MS)
    assert error.status == status


def test_presigned_urls_begin_and_end() -> None:
    request = AWS_EXAMPLES["presigned"]
    day_ms = 86_400_000
    assert verify(request, AWS_NOW_MS + day_ms).is_presigned
    expired = refusal(request, AWS_NOW_MS + day_ms + 1)
    assert (expired.code, expired.status, expired.message) == ("AccessDenied", 403, "Request has expired")
    assert expired.fields["Expires"] == "2013-05-25T00:00:00Z"
    assert verify(request, AWS_NOW_MS - 15 * 60_000).is_presigned
    assert refusal(request, AWS_NOW_MS - 15 * 60_000 - 1).code == "AccessDenied"


def test_session_tokens_are_refused_in_the_query_too() -> None:
    request = AWS_EXAMPLES["presigned"]
    request = replace(request, query=request.query + b"&X-Amz-Security-Token=t")
    assert (refusal(request, AWS_NOW_MS).code, refusal(request, AWS_NOW_MS).status) == ("InvalidToken", 403)


def test_header_and_query_must_agree_on_the_payload_of_a_presigned_url() -> None:
    request = AWS_EXAMPLES["presigned"]
    request = replace(
        request,
        query=request.query + b"&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD",
        headers=[*request.headers, (b"x-amz-content-sha256", EMPTY.encode())],
    )
    assert refusal(request, AWS_NOW_MS).code == "InvalidArgument"


# -- payload modes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(PayloadMode))
def test_each_payload_mode_says_what_the_body_must_match(
    signer: Callable[..., Any], mode: PayloadMode
) -> None:
    payload = EMPTY if mode is PayloadMode.SIGNED else mode.value
    sent = signer(payload=payload)
    principal = verify(sent.signed(), sent.now_ms)
    assert principal.payload is mode
    assert (principal.payload_sha256 is not None) == (mode is PayloadMode.SIGNED)
    assert (principal.chain is not None) == mode.signs_chunks
    assert mode.is_aws_chunked == payload.startswith("STREAMING-")
    assert mode.has_trailer == payload.endswith("-TRAILER")


@pytest.mark.parametrize("mode", [PayloadMode.UNSIGNED, PayloadMode.UNSIGNED_TRAILER])
def test_unsigned_bodies_can_be_forbidden(signer: Callable[..., Any], mode: PayloadMode) -> None:
    sent = signer(payload=mode.value)
    error = refusal(sent.signed(), sent.now_ms, allow_unsigned_payload=False)
    assert (error.code, error.status) == ("AccessDenied", 403)
    assert verify(AWS_EXAMPLES["presigned"], AWS_NOW_MS, allow_unsigned_payload=False).is_presigned


@pytest.mark.parametrize("mode", [mode for mode in PayloadMode if mode is not PayloadMode.SIGNED])
def test_a_false_signature_is_refused_in_every_payload_mode(
    signer: Callable[..., Any], mode: PayloadMode
) -> None:
    sent = signer(payload=mode.value, secret="other")
    assert refusal(sent.signed(), sent.now_ms).code == "SignatureDoesNotMatch"


# -- keys -------------------------------------------------------------------------------------------


def test_unknown_keys_cost_the_same_as_wrong_signatures(
    signer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both derive a key, sign, and compare.

    Method: count the HMACs and comparisons of a refused request, with nothing cached.
    """
    calls: list[str] = []

    class Counting:
        @staticmethod
        def digest(key: bytes, message: bytes, name: str) -> bytes:
            calls.append("digest")
            return hmac.digest(key, message, name)

        @staticmethod
        def compare_digest(left: bytes, right: bytes) -> bool:
            calls.append("compare")
            return hmac.compare_digest(left, right)

    monkeypatch.setattr(sigv4, "hmac", Counting)
    costs = []
    for order in ({"access_key": "AKIAUNKNOWN"}, {"secret": "wrong"}):
        sigv4._signing_key.cache_clear()
        sent = signer(**order)
        calls.clear()
        refusal(sent.signed(), sent.now_ms)
        costs.append(list(calls))
    assert costs[0] == costs[1] == ["digest"] * 5 + ["compare"]


def test_a_changed_secret_never_meets_the_cached_key_of_the_old_one(signer: Callable[..., Any]) -> None:
    old, new = signer(secret="old"), signer(secret="new")
    assert verify(old.signed(), old.now_ms, secret_of=lambda key: "old")
    assert refusal(old.signed(), old.now_ms, secret_of=lambda key: "new").code == "SignatureDoesNotMatch"
    assert verify(new.signed(), new.now_ms, secret_of=lambda key: "new")
    assert refusal(new.signed(), new.now_ms, secret_of=lambda key: None).code == "InvalidAccessKeyId"


def test_refusals_do_not_contain_the_secret(signer: Callable[..., Any]) -> None:
    sent = signer(headers={"x-amz-meta-a": "b"})
    error = refusal(rewritten(sent.signed(), b"x-amz-meta-a", b"c"), sent.now_ms)
    assert "x-amz-meta-a:c" in error.fields["CanonicalRequest"]
    expected = verify(sent.signed(), sent.now_ms)
    assert SECRET not in f"{error}{error.fields}{expected!r}"
    # Nor the signature that would have been right.
    assert sent.header("authorization").rpartition("=")[2] not in str(error.fields.values())


@pytest.mark.parametrize("header", [b"authorization", b"x-amz-date", b"host", b"x-amz-content-sha256"])
def test_bytes_that_are_no_text_are_refused_and_do_not_crash(
    signer: Callable[..., Any], header: bytes
) -> None:
    sent = signer()
    for junk in (
        b"\xff\xfe",
        b"\x00",
        b"AWS4-HMAC-SHA256 Credential=\xff/a/b/s3/aws4_request,SignedHeaders=host,Signature=\xff",
    ):
        assert refusal(rewritten(sent.signed(), header, junk), sent.now_ms).status in (400, 403)
    request = replace(sent.signed(), path=b"/\xff\xfe", query=b"\xff=\xfe")
    assert refusal(request, sent.now_ms).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("date", ["", "2026", "2026112x", "20261129" * 100])
def test_the_date_of_a_forms_key_is_one(date: str) -> None:
    """A signing key is kept for each."""
    with pytest.raises(S3Error, match="date"):
        form_credential(f"AKID/{date}/eu-test-1/s3/aws4_request", "eu-test-1")
