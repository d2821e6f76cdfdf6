"""Every operation asked with every kind of wrong credentials: none is ever reached.

Each operation is replaced by one that records its calls, so that a refusal further down cannot hide that a
request got through.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from ssastore.s3.request import Request, Response
from tests.s3.gateways import ACCESS_KEY, REGION, Gateway
from tests.s3.raw import Sent, Signing, Site, now, presign, sign, timestamp_at

UPLOAD = "uploadId=" + "0" * 32
BODY = b"<body/>"


@dataclass(frozen=True)
class Operation:
    """A request that reaches an operation; ``{}`` stands for the bucket."""

    method: str
    target: str
    body: bytes = b""
    source: str = ""
    "Of a copy."


OPERATIONS = {
    "ListBuckets": Operation("GET", "/"),
    "CreateBucket": Operation("PUT", "/{}-new", BODY),
    "HeadBucket": Operation("HEAD", "/{}"),
    "DeleteBucket": Operation("DELETE", "/{}"),
    "GetBucketLocation": Operation("GET", "/{}?location="),
    "ListObjects": Operation("GET", "/{}?list-type=2"),
    "GetObject": Operation("GET", "/{}/kept"),
    "HeadObject": Operation("HEAD", "/{}/kept"),
    "PutObject": Operation("PUT", "/{}/kept", BODY),
    "DeleteObject": Operation("DELETE", "/{}/kept"),
    "DeleteObjects": Operation("POST", "/{}?delete=", BODY),
    "CreateMultipartUpload": Operation("POST", "/{}/kept?uploads="),
    "UploadPart": Operation("PUT", f"/{{}}/kept?partNumber=1&{UPLOAD}", BODY),
    "CompleteMultipartUpload": Operation("POST", f"/{{}}/kept?{UPLOAD}", BODY),
    "AbortMultipartUpload": Operation("DELETE", f"/{{}}/kept?{UPLOAD}"),
    "ListParts": Operation("GET", f"/{{}}/kept?{UPLOAD}"),
    "ListMultipartUploads": Operation("GET", "/{}?uploads="),
    "CopyObject": Operation("PUT", "/{}/new", source="/{}/kept"),
    "UploadPartCopy": Operation("PUT", f"/{{}}/kept?partNumber=1&{UPLOAD}", source="/{}/kept"),
    "GetBucketVersioning": Operation("GET", "/{}?versioning="),
    "PutBucketVersioning": Operation("PUT", "/{}?versioning=", BODY),
    "ListObjectVersions": Operation("GET", "/{}?versions="),
    "GetBucketLifecycleConfiguration": Operation("GET", "/{}?lifecycle="),
    "PutBucketLifecycleConfiguration": Operation("PUT", "/{}?lifecycle=", BODY),
    "DeleteBucketLifecycle": Operation("DELETE", "/{}?lifecycle="),
    "GetObjectLockConfiguration": Operation("GET", "/{}?object-lock="),
    "PutObjectLockConfiguration": Operation("PUT", "/{}?object-lock=", BODY),
    "GetObjectRetention": Operation("GET", "/{}/kept?retention="),
    "PutObjectRetention": Operation("PUT", "/{}/kept?retention=", BODY),
    "GetObjectLegalHold": Operation("GET", "/{}/kept?legal-hold="),
    "PutObjectLegalHold": Operation("PUT", "/{}/kept?legal-hold=", BODY),
    "GetObjectAttributes": Operation("GET", "/{}/kept?attributes="),
    "GetObjectTagging": Operation("GET", "/{}/kept?tagging="),
    "PutObjectTagging": Operation("PUT", "/{}/kept?tagging=", BODY),
    "DeleteObjectTagging": Operation("DELETE", "/{}/kept?tagging="),
    "GetBucketTagging": Operation("GET", "/{}?tagging="),
    "PutBucketTagging": Operation("PUT", "/{}?tagging=", BODY),
    "DeleteBucketTagging": Operation("DELETE", "/{}?tagging="),
    "GetBucketCors": Operation("GET", "/{}?cors="),
    "PutBucketCors": Operation("PUT", "/{}?cors=", BODY),
    "DeleteBucketCors": Operation("DELETE", "/{}?cors="),
    "GetBucketAccelerateConfiguration": Operation("GET", "/{}?accelerate="),
    "GetBucketEncryption": Operation("GET", "/{}?encryption="),
    "PutBucketEncryption": Operation("PUT", "/{}?encryption=", BODY),
    "DeleteBucketEncryption": Operation("DELETE", "/{}?encryption="),
    "GetBucketLogging": Operation("GET", "/{}?logging="),
    "GetBucketNotificationConfiguration": Operation("GET", "/{}?notification="),
    "GetBucketReplication": Operation("GET", "/{}?replication="),
    "GetBucketRequestPayment": Operation("GET", "/{}?requestPayment="),
    "GetBucketWebsite": Operation("GET", "/{}?website="),
    "PutBucketLogging": Operation("PUT", "/{}?logging=", BODY),
    "PutBucketNotificationConfiguration": Operation("PUT", "/{}?notification=", BODY),
    "PutBucketRequestPayment": Operation("PUT", "/{}?requestPayment=", BODY),
    "DeleteBucketReplication": Operation("DELETE", "/{}?replication="),
    "DeleteBucketWebsite": Operation("DELETE", "/{}?website="),
    "GetBucketAcl": Operation("GET", "/{}?acl="),
    "PutBucketAcl": Operation("PUT", "/{}?acl=", BODY),
    "GetObjectAcl": Operation("GET", "/{}/kept?acl="),
    "PutObjectAcl": Operation("PUT", "/{}/kept?acl=", BODY),
    "GetBucketPolicy": Operation("GET", "/{}?policy="),
    "PutBucketPolicy": Operation("PUT", "/{}?policy=", BODY),
    "DeleteBucketPolicy": Operation("DELETE", "/{}?policy="),
    "GetBucketPolicyStatus": Operation("GET", "/{}?policyStatus="),
    "GetPublicAccessBlock": Operation("GET", "/{}?publicAccessBlock="),
    "PutPublicAccessBlock": Operation("PUT", "/{}?publicAccessBlock=", BODY),
    "DeletePublicAccessBlock": Operation("DELETE", "/{}?publicAccessBlock="),
    "GetBucketOwnershipControls": Operation("GET", "/{}?ownershipControls="),
    "PutBucketOwnershipControls": Operation("PUT", "/{}?ownershipControls=", BODY),
    "DeleteBucketOwnershipControls": Operation("DELETE", "/{}?ownershipControls="),
}


class Asked:
    """One operation of one bucket, to be signed in any way."""

    def __init__(self, site: Site, operation: Operation) -> None:
        self.host = site.gateway.host
        self.method = operation.method
        self.target = operation.target.format(site.bucket)
        self.body = operation.body
        source = operation.source.format(site.bucket)
        self.headers = [("x-amz-copy-source", source)] if source else []

    def sign(self, method: str = "", target: str = "", **signing: str) -> Sent:
        signed = sign(
            self.host,
            method or self.method,
            target or self.target,
            self.body,
            self.headers,
            signing=Signing(**signing),
        )
        return replace(signed, method=self.method, target=self.target)

    def presign(self, expires: int = 300, **signing: str) -> Sent:
        return presign(
            self.host,
            self.method,
            self.target,
            self.body,
            expires=expires,
            headers=self.headers,
            signing=Signing(**signing),
        )


def late(ms: int) -> str:
    return timestamp_at(time.time() * 1000 - ms)


def made_up(asked: Asked) -> str:
    """The target with a signature of Version 2 that nobody has made."""
    joint = "&" if "?" in asked.target else "?"
    expires = int(time.time()) + 300
    return f"{asked.target}{joint}AWSAccessKeyId={ACCESS_KEY}&Expires={expires}&Signature=c2lnbmF0dXJl"


def other(method: str) -> str:
    return "GET" if method == "DELETE" else "DELETE"


GOOD: dict[str, Callable[[Asked], Sent]] = {
    "header": lambda asked: asked.sign(),
    "unsigned payload": lambda asked: asked.sign(payload="UNSIGNED-PAYLOAD"),
    "presigned": lambda asked: asked.presign(),
    "14 minutes late": lambda asked: asked.sign(timestamp=late(14 * 60_000)),
}
BAD: dict[str, Callable[[Asked], Sent]] = {
    "none": lambda asked: asked.sign().with_header("Authorization", None),
    "empty": lambda asked: asked.sign().with_header("Authorization", ""),
    "bearer": lambda asked: asked.sign().with_header("Authorization", f"Bearer {ACCESS_KEY}"),
    "signature V2": lambda asked: asked.sign().with_header("Authorization", f"AWS {ACCESS_KEY}:c2lnbmF0dXJl"),
    "unknown key": lambda asked: asked.sign(access_key="AKIDNOBODY"),
    "wrong secret": lambda asked: asked.sign(secret_key="wrong"),
    "no secret": lambda asked: asked.sign(secret_key=""),
    "another key's": lambda asked: asked.sign(access_key="AKIDOTHER"),
    "wrong region": lambda asked: asked.sign(region="mars-1"),
    "wrong service": lambda asked: asked.sign(service="ec2"),
    "wrong scope": lambda asked: asked.sign(scope=f"20200101/{REGION}/s3/aws4_request"),
    "no scope": lambda asked: asked.sign(scope=f"{now()[:8]}/{REGION}"),
    "late": lambda asked: asked.sign(timestamp=late(16 * 60_000)),
    "for another method": lambda asked: asked.sign(method=other(asked.method)),
    "for another path": lambda asked: asked.sign(target="/elsewhere/kept"),
    "for less": lambda asked: asked.sign(target=asked.target.partition("?")[0] + "?less="),
    "payload made unsigned": lambda asked: asked.sign().with_header(
        "x-amz-content-sha256", "UNSIGNED-PAYLOAD"
    ),
    "payload replaced": lambda asked: asked.sign().with_header(
        "x-amz-content-sha256", hashlib.sha256(b"other").hexdigest()
    ),
    "no payload digest": lambda asked: asked.sign().with_header("x-amz-content-sha256", None),
    "host not signed": lambda asked: asked.sign(signed_headers="x-amz-content-sha256;x-amz-date"),
    "a header added": lambda asked: asked.sign().plus(("x-amz-acl", "private")),
    "a session token": lambda asked: asked.sign().plus(("x-amz-security-token", "token")),
    "presigned, expired": lambda asked: asked.presign(60, timestamp=late(61_000)),
    "presigned, from the future": lambda asked: asked.presign(timestamp=late(-16 * 60_000)),
    "presigned, wrong secret": lambda asked: asked.presign(secret_key="wrong"),
    "presigned, unknown key": lambda asked: asked.presign(access_key="AKIDNOBODY"),
    "presigned, wrong region": lambda asked: asked.presign(region="mars-1"),
    "presigned, for ever": lambda asked: asked.presign(10**9),
    "presigned, a header added": lambda asked: asked.presign().plus(("x-amz-acl", "private")),
    "presigned, more asked for": lambda asked: replace(
        asked.presign(), target=asked.presign().target + "&x=y"
    ),
    "presigned, without signature": lambda asked: replace(
        asked.presign(), target=asked.presign().target.partition("&X-Amz-Signature")[0]
    ),
    "presigned by V2, made up": lambda asked: replace(
        asked.sign(), headers=(("Host", asked.host),), target=made_up(asked)
    ),
    "both": lambda asked: asked.presign().plus(("Authorization", asked.sign().header("Authorization"))),
}


Reached = Callable[[Sent], tuple[int, list[tuple[str, Request]]]]


@pytest.fixture
def reached(gateway: Gateway) -> Reached:
    """Status of a request's answer, and the operations that it reached, while all of them only record."""

    def send(sent: Sent) -> tuple[int, list[tuple[str, Request]]]:
        calls: list[tuple[str, Request]] = []

        def recorder(name: str) -> Callable[[Request], object]:
            async def record(request: Request) -> Response:
                calls.append((name, request))
                return Response(200)

            return record

        operations = gateway.server._operations
        with pytest.MonkeyPatch.context() as patch:
            for name in operations:
                patch.setitem(operations, name, recorder(name))
            status = Site.exchange(gateway, sent).status
        return status, calls

    return send


def test_every_operation_is_asked(gateway: Gateway) -> None:
    # A form says who asks (``test_post``).
    assert set(OPERATIONS) == set(gateway.server._operations) - {"PostObject"}


@pytest.mark.parametrize("credentials", GOOD)
@pytest.mark.parametrize("name", OPERATIONS)
def test_good_credentials_reach_the_operation(
    site: Site, reached: Reached, name: str, credentials: str
) -> None:
    asked = Asked(site, OPERATIONS[name])
    status, calls = reached(GOOD[credentials](asked))
    assert (status, [(called, request.principal.access_key) for called, request in calls]) == (
        200,
        [(name, ACCESS_KEY)],
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_bad_credentials_reach_nothing(site: Site, reached: Reached, name: str) -> None:
    asked = Asked(site, OPERATIONS[name])
    for credentials, build in BAD.items():
        status, calls = reached(build(asked))
        assert (calls, status in (400, 403)) == ([], True), (credentials, status)


@pytest.mark.parametrize("name", ["PutObject", "DeleteObjects", "CompleteMultipartUpload", "CreateBucket"])
def test_a_replaced_body_changes_nothing(site: Site, name: str) -> None:
    """The digest in the signature is that of another body: found out while it is read, before it counts."""
    sent = Asked(site, OPERATIONS[name]).sign()
    answer = Site.exchange(site.gateway, replace(sent, body=b"<bady/>"))
    if name == "DeleteObjects":  # asks for a checksum first
        assert (answer.status, answer.code) == (400, "InvalidRequest")
    else:
        assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")


def test_an_operation_takes_only_who_was_authenticated() -> None:
    """The type asks for a principal, and only ``sigv4.authenticate`` makes one."""
    with pytest.raises(TypeError, match="principal"):
        Request(method="GET", bucket="b", key="k", query={}, headers={}, request_id="")  # type: ignore[call-arg]
