"""URLs signed by botocore's signer of Version 2, and what becomes of them when anything is changed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ssastore.s3.authentication import authenticate
from ssastore.s3.errors import S3Error
from ssastore.s3.principal import PayloadMode, Principal, SignedRequest

KEY, SECRET = "AKIDTEST", "a secret of ours"
NOW_MS = 1_800_000_000_000
Headers = dict[str, str]


class Signer(HmacV1QueryAuth):
    """At our time."""

    def _get_date(self) -> str:
        return str(NOW_MS // 1000 + int(self._expires))


def signed(
    method: str = "GET",
    target: str = "/photos/a%20b",
    headers: Headers | None = None,
    *,
    expires: int = 60,
    secret: str = SECRET,
    key: str = KEY,
) -> SignedRequest:
    request = AWSRequest(method, f"http://host:80{target}", headers=dict(headers or {}))
    Signer(Credentials(key, secret), expires).add_auth(request)
    parts = urlsplit(request.url)
    sent = [("Host", "host:80"), *(headers or {}).items()]
    raw = [(name.encode(), value.encode()) for name, value in sent]
    return SignedRequest(method, parts.path.encode(), parts.query.encode(), raw)


def verify(request: SignedRequest, now_ms: int = NOW_MS) -> Principal:
    secrets = {KEY: SECRET}
    return authenticate(request, now_ms=now_ms, region="us-east-1", secret_of=secrets.get)


def refusal(request: SignedRequest, now_ms: int = NOW_MS) -> S3Error:
    with pytest.raises(S3Error) as caught:
        verify(request, now_ms)
    return caught.value


def changed(request: SignedRequest, **changes: Any) -> SignedRequest:
    fields = {name: getattr(request, name) for name in ("method", "path", "query", "headers")}
    return SignedRequest(**(fields | changes))


@pytest.mark.parametrize(
    "order",
    [
        {},
        {
            "method": "PUT",
            "headers": {"Content-Type": "text/plain", "x-amz-meta-b": "2", "X-Amz-Meta-A": "1"},
        },
        {"method": "PUT", "headers": {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}},
        {"method": "DELETE", "target": "/photos/%C3%BC/%2B?versionId=abc"},
        {"target": "/photos/k?response-content-type=text%2Fhtml&response-expires=a%20b%2Bc"},
        {"target": "/photos/k?tagging"},
        {"method": "PUT", "target": "/photos/k?uploadId=u%3D1&partNumber=2"},
        {"expires": 7 * 24 * 3600},
    ],
)
def test_what_botocore_signs_is_accepted(order: dict[str, Any]) -> None:
    principal = verify(signed(**order))
    assert principal == Principal(KEY, PayloadMode.UNSIGNED, None, None, True, NOW_MS, "AWS")


def test_a_parameter_that_only_looks_like_a_credential_is_for_version_4() -> None:
    assert (
        refusal(SignedRequest("GET", b"/b", b"prefix=AWSAccessKeyId", [(b"host", b"h")])).code
        == "AccessDenied"
    )


GOOD = signed(target="/photos/k?versionId=v")
WITH_TYPE = signed("PUT", "/photos/k", {"Content-Type": "text/plain"})


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (changed(GOOD, method="PUT"), "SignatureDoesNotMatch", 403),
        (changed(GOOD, path=b"/photos/l"), "SignatureDoesNotMatch", 403),
        (changed(GOOD, query=GOOD.query.replace(b"=v", b"=w", 1)), "SignatureDoesNotMatch", 403),
        (changed(GOOD, query=GOOD.query.replace(b"versionId=v&", b"")), "SignatureDoesNotMatch", 403),
        (changed(GOOD, query=GOOD.query + b"&tagging"), "SignatureDoesNotMatch", 403),
        (changed(GOOD, query=GOOD.query + b"&versionId=w"), "InvalidArgument", 400),
        (changed(GOOD, query=GOOD.query + b"&prefix=a"), "AccessDenied", 403),
        (changed(GOOD, query=GOOD.query + b"&attributes"), "AccessDenied", 403),
        (changed(GOOD, query=GOOD.query + b"&X-Amz-Signature=" + b"0" * 64), "AccessDenied", 403),
        (changed(GOOD, query=GOOD.query.replace(b"Expires=18", b"Expires=19")), "AccessDenied", 403),
        (changed(GOOD, query=GOOD.query.replace(b"Expires=", b"Expires=%2B")), "AccessDenied", 403),
        (changed(GOOD, query=GOOD.query.replace(b"60", b"61", 1)), "SignatureDoesNotMatch", 403),
        (changed(GOOD, query=GOOD.query.partition(b"&Signature")[0]), "AccessDenied", 403),
        (changed(GOOD, headers=[*GOOD.headers, (b"x-amz-acl", b"private")]), "SignatureDoesNotMatch", 403),
        (changed(GOOD, headers=[*GOOD.headers, (b"Authorization", b"AWS a:b")]), "InvalidArgument", 400),
        (changed(GOOD, headers=[*GOOD.headers, (b"x-amz-security-token", b"t")]), "InvalidToken", 403),
        (changed(WITH_TYPE, headers=[(b"host", b"h")]), "SignatureDoesNotMatch", 403),
        (changed(WITH_TYPE, headers=[(b"content-type", b"text/html")]), "SignatureDoesNotMatch", 403),
        (
            signed(headers={"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}),
            "InvalidRequest",
            400,
        ),
        (signed(secret="another"), "SignatureDoesNotMatch", 403),
        (signed(key="NOBODY"), "InvalidAccessKeyId", 403),
        (signed(key="N" * 200), "InvalidAccessKeyId", 403),
        (signed(expires=8 * 24 * 3600), "AccessDenied", 403),
    ],
)
def test_what_is_changed_or_not_signed_is_refused(request_: SignedRequest, code: str, status: int) -> None:
    error = refusal(request_)
    assert (error.code, error.status) == (code, status)


MERGED = [
    # An upload of a part must not become one of the whole object.
    ("PUT", "/photos/k?partNumber=1&uploadId=u", "/photos/k?partNumber=1%26uploadId%3Du"),
    # An old version must not become the current one, nor tags the object.
    ("GET", "/photos/k?response-expires=x&versionId=v", "/photos/k?response-expires=x%26versionId%3Dv"),
    ("GET", "/photos/k?response-expires=x&tagging", "/photos/k?response-expires=x%26tagging"),
    ("GET", "/photos/k?partNumber=1&tagging=&versionId=v", "/photos/k?partNumber=1&tagging=%26versionId%3Dv"),
]


@pytest.mark.parametrize(("method", "target", "other"), MERGED)
def test_a_parameter_cannot_hide_in_the_value_of_another(method: str, target: str, other: str) -> None:
    """What is signed of the two is the same text."""
    good, merged = signed(method, target), other.partition("?")[2].encode()
    verify(good)
    credentials = good.query[good.query.index(b"AWSAccessKeyId") :]
    assert refusal(changed(good, query=merged + b"&" + credentials)).code == "AccessDenied"


def test_an_ampersand_in_a_value_is_none_of_these() -> None:
    target = "/photos/k?response-content-disposition=filename%3D%22R%26D%20%26%20tagging.txt%22"
    verify(signed(target=target))


def test_it_expires() -> None:
    assert verify(GOOD, NOW_MS + 60_000).is_presigned
    error = refusal(GOOD, NOW_MS + 60_001)
    assert error.code == "AccessDenied" and "expired" in str(error)


def test_nobody_is_told_the_secret() -> None:
    error = refusal(changed(GOOD, method="PUT"))
    assert SECRET not in repr(vars(error)) + str(error)
    assert error.fields["StringToSign"].startswith("PUT\n\n\n1800000060\n/photos/k?versionId=v")
