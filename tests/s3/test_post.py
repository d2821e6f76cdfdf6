"""Uploads by HTML forms: as boto3 makes them for pages, and as they must not be."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
from base64 import b64encode
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.s3.gateways import ACCESS_KEY, SECRET_KEY, Gateway
from tests.s3.raw import exchange
from tests.s3.test_boto3 import MIB, error_of

BOUNDARY = "----a-page"
NOBODY = "AKIDNOBODY/20330101/eu-test-1/s3/aws4_request"


def form_of(fields: dict[str, str], data: bytes, filename: str = "photo.jpg", kind: str = "") -> bytes:
    """A form as a browser sends it; the file comes last."""
    body = b""
    for name, value in fields.items():
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    head += f"Content-Type: {kind}\r\n\r\n" if kind else "\r\n"
    return body + head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def send(gateway: Gateway, bucket: str, body: bytes, kind: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and body of what a form is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    headers = {"Content-Type": kind or f"multipart/form-data; boundary={BOUNDARY}"}
    try:
        connection.request("POST", f"/{bucket}", body, headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def signed(s3: Any, bucket: str, key: str, *conditions: Any, **fields: str) -> dict[str, str]:
    """The fields of a form by boto3, which signs by SigV4; what is in ``fields`` is allowed by its policy."""
    made = s3.generate_presigned_post(
        bucket, key, Fields=dict(fields), Conditions=[*conditions, *[{n: v} for n, v in fields.items()]]
    )
    found: dict[str, str] = made["fields"]
    return found


def signed_before(bucket: str, *conditions: Any, secret: str = SECRET_KEY, **fields: str) -> dict[str, str]:
    """The fields of a form with the signature that S3 had first."""
    document = {"expiration": "2099-01-01T00:00:00Z", "conditions": [{"bucket": bucket}, *conditions]}
    policy = b64encode(json.dumps(document).encode()).decode()
    signature = b64encode(hmac.digest(secret.encode(), policy.encode(), "sha1")).decode()
    return {**fields, "AWSAccessKeyId": ACCESS_KEY, "policy": policy, "signature": signature}


def code_of(body: bytes) -> str:
    return ElementTree.fromstring(body).findtext("Code") or ""


class TestUploads:
    @pytest.mark.parametrize("size", [0, 3, 64 * 1024 + 1, 9 * MIB + 17])
    def test_file_is_stored(self, gateway: Gateway, s3: Any, bucket: str, size: int) -> None:
        data = random.Random(size).randbytes(size)
        more = {"Content-Type": "image/jpeg", "x-amz-meta-who": "me", "x-amz-tagging-not": "x"}
        fields = signed(s3, bucket, "photos/${filename}", **more)
        status, headers, body = send(gateway, bucket, form_of(fields, data))
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        assert (status, body, headers["etag"]) == (204, b"", etag)
        assert headers["location"] == f"/{bucket}/photos/photo.jpg"
        found = s3.get_object(Bucket=bucket, Key="photos/photo.jpg")
        assert found["Body"].read() == data and found["ETag"] == etag
        assert (found["ContentType"], found["Metadata"]) == ("image/jpeg", {"who": "me"})

    def test_a_bad_acl_is_refused_before_the_file_has_come(
        self, gateway: Gateway, s3: Any, bucket: str
    ) -> None:
        body = form_of(signed(s3, bucket, "k", acl="nobodys"), b"x" * MIB)
        head = (
            f"POST /{bucket} HTTP/1.1\r\nHost: {gateway.host}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        answer = exchange(gateway.port, head.encode() + body[: -MIB // 2], timeout=3)
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_the_first_signature_is_taken_too(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        fields = signed_before(bucket, ["starts-with", "$key", "f"], key="foo.txt")
        assert send(gateway, bucket, form_of(fields, b"bar"))[0] == 204
        assert s3.get_object(Bucket=bucket, Key="foo.txt")["Body"].read() == b"bar"

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"success_action_status": "200"}, 200),
            ({"success_action_status": "201"}, 201),
            ({"success_action_status": "404"}, 204),
            ({"success_action_redirect": "javascript:alert(1)"}, 204),
        ],
    )
    def test_answers(
        self, gateway: Gateway, s3: Any, bucket: str, fields: dict[str, str], status: int
    ) -> None:
        answer = send(gateway, bucket, form_of(signed(s3, bucket, "a key", **fields), b"x"))
        assert answer[0] == status
        if status != 201:
            assert answer[2] == b""
            return
        told = ElementTree.fromstring(answer[2])
        found = {name: told.findtext(name) for name in ("Bucket", "Key", "ETag", "Location")}
        assert found == {
            "Bucket": bucket,
            "Key": "a key",
            "ETag": answer[1]["etag"],
            "Location": f"/{bucket}/a%20key",
        }

    @pytest.mark.parametrize(
        ("url", "joint"), [("http://example.net/done", "?"), ("https://e.net/?a=b", "&")]
    )
    def test_browser_is_sent_on(self, gateway: Gateway, s3: Any, bucket: str, url: str, joint: str) -> None:
        fields = signed(s3, bucket, "a/ü", success_action_redirect=url)
        status, headers, _ = send(gateway, bucket, form_of(fields, b"x"))
        etag = hashlib.md5(b"x").hexdigest()
        told = f"{url}{joint}bucket={bucket}&key=a%2F%C3%BC&etag=%22{etag}%22"
        assert (status, headers["location"]) == (303, told)

    def test_tags_checksum_and_acl_come_as_fields(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        tags = "<Tagging><TagSet><Tag><Key>a b</Key><Value>ü&amp;</Value></Tag></TagSet></Tagging>"
        wrong = send(gateway, bucket, form_of(signed(s3, bucket, "k", tagging=tags), b"bar"))
        assert (wrong[0], code_of(wrong[2])) == (400, "InvalidTag")
        tags = tags.replace("&amp;", "")
        fields = signed(s3, bucket, "k", tagging=tags, acl="private")
        checksum = b64encode(hashlib.sha256(b"bar").digest()).decode()
        good = {**fields, "x-amz-checksum-sha256": checksum}
        assert send(gateway, bucket, form_of(good, b"bar"))[0] == 204
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a b", "Value": "ü"}]
        assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum
        for wrong_sum in (checksum.swapcase(), "sailorjerry"):
            bad = {**fields, "x-amz-checksum-sha256": wrong_sum}
            answer = send(gateway, bucket, form_of(bad, b"baz"))
            assert (answer[0], code_of(answer[2])) == (400, "BadDigest")
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"bar"

    def test_bucket_that_anybody_may_write_to(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        assert send(gateway, bucket, form_of({"key": "k"}, b"x"))[0] == 403
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
        assert send(gateway, bucket, form_of({"key": "k"}, b"x"))[0] == 204
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"

    def test_versions_are_told(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        _, headers, _ = send(gateway, bucket, form_of(signed(s3, bucket, "k"), b"x"))
        version = headers["x-amz-version-id"]
        assert s3.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"x"


class TestRefusals:
    def check(
        self, gateway: Gateway, s3: Any, bucket: str, answer: tuple[int, Any, bytes], error: tuple[str, int]
    ) -> None:
        assert (code_of(answer[2]), answer[0]) == error
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket), "nothing is stored"

    @pytest.mark.parametrize(
        ("bounds", "error"),
        [((0, 2), ("EntityTooLarge", 400)), ((4, 9), ("EntityTooSmall", 400)), ((3, 3), None)],
    )
    def test_file_of_another_size(
        self, gateway: Gateway, s3: Any, bucket: str, bounds: tuple[int, int], error: Any
    ) -> None:
        answer = send(
            gateway, bucket, form_of(signed(s3, bucket, "k", ["content-length-range", *bounds]), b"bar")
        )
        if error is None:
            assert answer[0] == 204
        else:
            self.check(gateway, s3, bucket, answer, error)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"key": "other"}, ("AccessDenied", 403)),
            ({"x-amz-meta-more": "x"}, ("AccessDenied", 403)),
            ({"x-amz-signature": "0" * 64}, ("SignatureDoesNotMatch", 403)),
            ({"x-amz-signature": None}, ("InvalidArgument", 400)),
            (
                {"x-amz-credential": "AKIDNOBODY/20330101/eu-test-1/s3/aws4_request"},
                ("InvalidAccessKeyId", 403),
            ),
            ({"x-amz-algorithm": None}, ("InvalidArgument", 400)),
            ({"policy": "e30="}, ("SignatureDoesNotMatch", 403)),
            ({"policy": None}, ("AccessDenied", 403)),
            ({"key": None}, ("InvalidArgument", 400)),
            ({"key": ""}, ("InvalidArgument", 400)),
            ({"key": "k" * 1025}, ("KeyTooLongError", 400)),
        ],
    )
    def test_form_that_was_changed(
        self, gateway: Gateway, s3: Any, bucket: str, change: dict[str, str | None], error: tuple[str, int]
    ) -> None:
        fields: dict[str, str | None] = {**signed(s3, bucket, "k"), **change}
        kept = {name: value for name, value in fields.items() if value is not None}
        self.check(gateway, s3, bucket, send(gateway, bucket, form_of(kept, b"bar")), error)

    def test_form_for_another_bucket(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        fields = signed(s3, f"{bucket}-other", "k")
        self.check(gateway, s3, bucket, send(gateway, bucket, form_of(fields, b"x")), ("AccessDenied", 403))

    @pytest.mark.parametrize(
        ("body", "kind", "error"),
        [
            (b"a=b", "application/x-www-form-urlencoded", ("PreconditionFailed", 412)),
            (b"junk", "", ("MalformedPOSTRequest", 400)),
            (form_of({"key": "k" * 30_000}, b""), "", ("MaxPostPreDataLengthExceeded", 400)),
        ],
    )
    def test_body_that_is_no_form(
        self, gateway: Gateway, s3: Any, bucket: str, body: bytes, kind: str, error: tuple[str, int]
    ) -> None:
        self.check(gateway, s3, bucket, send(gateway, bucket, body, kind), error)

    def test_form_that_is_cut_short_stores_nothing(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
        body = form_of({"key": "k"}, bytes(5 * MIB))
        answer = send(gateway, bucket, body[:-8])
        self.check(gateway, s3, bucket, answer, ("MalformedPOSTRequest", 400))

    def test_bucket_that_is_not_there(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        answer = send(gateway, "not-there", form_of(signed(s3, "not-there", "k"), b"x"))
        assert (code_of(answer[2]), answer[0]) == ("NoSuchBucket", 404)
        assert error_of(s3.head_bucket, Bucket="not-there") == ("404", 404)
