"""Policies of forms: every form of condition, and who is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from ssastore.s3.errors import S3Error
from ssastore.s3.postpolicy import Claim, SizeRange, check_policy

NOW_MS = 1_700_000_000_000
LATER = "2033-01-01T00:00:00Z"
FIELDS = {"key": "user/a.txt", "bucket": "b", "acl": "private", "content-type": "image/png, image/gif"}
ALL: list[Any] = [
    {"bucket": "b"},
    ["starts-with", "$key", ""],
    {"acl": "private"},
    ["starts-with", "$Content-Type", ""],
]


def encoded(conditions: Any, expiration: Any = LATER, **more: Any) -> str:
    return b64encode(
        json.dumps({"expiration": expiration, "conditions": conditions, **more}).encode()
    ).decode()


def check(conditions: Any, fields: dict[str, str] | None = None, **more: Any) -> SizeRange:
    return check_policy(encoded(conditions, **more), fields or FIELDS, NOW_MS, 100)


@pytest.mark.parametrize(
    "conditions",
    [
        ALL,
        [*ALL, ["eq", "$key", "user/a.txt"]],
        [*ALL, ["STARTS-with", "$KeY", "user/"]],
        [*ALL, {"KEY": "user/a.txt"}],
        [*ALL, ["starts-with", "$Content-Type", "image/"]],
        [*ALL, ["starts-with", "$x-amz-meta-missing", ""]],
        [*ALL, ["eq", "$x-amz-meta-missing", ""]],
    ],
)
def test_what_is_allowed(conditions: Any) -> None:
    assert check(conditions) == SizeRange(0, 100)


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        (["content-length-range", 5, 50], SizeRange(5, 50)),
        (["content-length-range", "5", "50"], SizeRange(5, 50)),
        (["Content-Length-Range", 0, 10**15], SizeRange(0, 100)),
    ],
)
def test_bounds_of_the_file(condition: Any, bounds: SizeRange) -> None:
    assert check([*ALL, condition]) == bounds


def test_sizes_are_compared_with_their_bounds() -> None:
    SizeRange(1, 2).check(1)
    for size, code in ((0, "EntityTooSmall"), (3, "EntityTooLarge")):
        with pytest.raises(S3Error) as caught:
            SizeRange(1, 2).check(size)
        assert (caught.value.code, caught.value.status) == (code, 400)


@pytest.mark.parametrize(
    "conditions",
    [
        ALL[1:],
        [*ALL[1:], {"bucket": "other"}],
        ALL[:-1],
        [*ALL, ["eq", "$key", "user/"]],
        [*ALL, ["eq", "$key", "USER/A.TXT"]],
        [*ALL, ["starts-with", "$key", "other/"]],
        [*ALL, ["starts-with", "$x-amz-meta-missing", "x"]],
        [*ALL, ["starts-with", "$Content-Type", "image/p"]],
        [],
    ],
)
def test_what_is_denied(conditions: Any) -> None:
    with pytest.raises(S3Error) as caught:
        check(conditions)
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    "name", ["file", "policy", "x-amz-signature", "x-ignore-me", "x-amz-checksum-sha256"]
)
def test_fields_that_need_no_condition(name: str) -> None:
    check(ALL, FIELDS | {name: "x"})


@pytest.mark.parametrize("name", ["x-amz-meta-a", "success_action_status", "tagging", "x-amz-date", "submit"])
def test_every_other_field_needs_one(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        check(ALL, FIELDS | {name: "x"})
    assert caught.value.code == "AccessDenied" and name in caught.value.message
    check([*ALL, {name: "x"}], FIELDS | {name: "x"})


@pytest.mark.parametrize("expiration", ["2023-11-14T22:13:20Z", "2001-01-01T00:00:00.000Z"])
def test_policy_that_has_expired(expiration: str) -> None:
    with pytest.raises(S3Error) as caught:
        check(ALL, expiration=expiration)
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        b64encode(b"not json").decode(),
        b64encode(b"[]").decode(),
        b64encode(b"[" * 100_000).decode(),
        encoded(None),
        encoded(ALL, None),
        encoded(ALL, 5),
        encoded(ALL, "2033-01-01 00:00:00+00:00"),
        encoded([*ALL, {}]),
        encoded([*ALL, {"a": "b", "c": "d"}]),
        encoded([*ALL, {"a": 5}]),
        encoded([*ALL, "text"]),
        encoded([*ALL, ["eq", "$key"]]),
        encoded([*ALL, ["eq", "key", "x"]]),
        encoded([*ALL, ["ends-with", "$key", "x"]]),
        encoded([*ALL, [5, "$key", "x"]]),
        encoded([*ALL, ["content-length-range", 0]]),
        encoded([*ALL, ["content-length-range", -1, 0]]),
        encoded([*ALL, ["content-length-range", True, 9]]),
        encoded([*ALL, ["content-length-range", 0, 1.5]]),
    ],
)
def test_policy_that_is_none(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        check_policy(text, FIELDS, NOW_MS, 100)
    assert (caught.value.code, caught.value.status) == ("InvalidPolicyDocument", 400)


V4 = {
    "policy": "cG9saWN5",
    "x-amz-algorithm": "AWS4-HMAC-SHA256",
    "x-amz-credential": "AKID/20330101/eu/s3/aws4_request",
    "x-amz-date": "20330101T000000Z",
    "x-amz-signature": "00" * 32,
}


def test_form_without_a_policy_is_anonymous() -> None:
    assert Claim.of_form({"key": "k"}, "eu") is None


@pytest.mark.parametrize("missing", [name for name in V4 if name != "policy"])
def test_every_part_of_a_signature_is_needed(missing: str) -> None:
    with pytest.raises(S3Error) as caught:
        Claim.of_form({name: value for name, value in V4.items() if name != missing}, "eu")
    assert (caught.value.code, caught.value.status) == ("InvalidArgument", 400)


def test_older_signature_needs_its_own() -> None:
    with pytest.raises(S3Error):
        Claim.of_form({"policy": "cG9saWN5", "awsaccesskeyid": "AKID"}, "eu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-algorithm", "AWS4-HMAC-MD5"),
        ("x-amz-credential", "AKID"),
        ("x-amz-credential", "AKID/20330101/mars/s3/aws4_request"),
        ("x-amz-credential", "AKID/20330101/eu/ec2/aws4_request"),
    ],
)
def test_credential_that_is_not_for_here(name: str, value: str) -> None:
    with pytest.raises(S3Error):
        Claim.of_form(V4 | {name: value}, "eu")


@pytest.mark.parametrize("signature", ["", "00" * 32, "ü"])
def test_wrong_signature(signature: str) -> None:
    for fields in (
        V4 | {"x-amz-signature": signature},
        {"policy": "cG9saWN5", "awsaccesskeyid": "AKID", "signature": signature},
    ):
        claim = Claim.of_form(fields, "eu")
        assert claim is not None
        with pytest.raises(S3Error) as caught:
            claim.verify("secret")
        assert (caught.value.code, caught.value.status) == ("SignatureDoesNotMatch", 403)
