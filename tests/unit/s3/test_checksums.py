"""Digests of bodies: known answers, agreement with zlib and boto3, and every way to be wrong."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.s3.checksums import (
    ALGORITHMS,
    BodyCheck,
    DeclaredChecksum,
    declared_checksum,
    encode_digest,
    parse_content_md5,
)
from ssastore.s3.errors import S3Error


def refusal(call: Callable[[], object]) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("name", "check"),
    [  # the check values that the catalogue of CRC algorithms gives for these nine digits
        ("CRC32", "cbf43926"),
        ("CRC32C", "e3069283"),
        ("CRC64NVME", "ae8b14860a799888"),
        ("SHA1", hashlib.sha1(b"123456789").hexdigest()),
        ("SHA256", hashlib.sha256(b"123456789").hexdigest()),
    ],
)
def test_algorithms_have_their_published_check_values(name: str, check: str) -> None:
    algorithm = ALGORITHMS[name]
    hasher = algorithm.new()
    for piece in (b"1234", b"", b"56789"):
        hasher.update(piece)
    assert hasher.digest().hex() == check
    assert len(hasher.digest()) == algorithm.size
    assert algorithm.header == f"x-amz-checksum-{name.lower()}"


def test_the_crc32c_of_the_aws_example_is_what_its_documentation_says() -> None:
    hasher = ALGORITHMS["CRC32C"].new()
    hasher.update(b"a" * 66560)
    assert encode_digest(hasher.digest()) == "sOO8/Q=="


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_crc32_agrees_with_zlib_however_it_is_fed(pieces: list[bytes]) -> None:
    hasher = ALGORITHMS["CRC32"].new()
    for piece in pieces:
        hasher.update(piece)
    assert hasher.digest() == zlib.crc32(b"".join(pieces)).to_bytes(4, "big")


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_what_boto3_declares_for_a_body_verifies(capture: Callable[..., Any], algorithm: str) -> None:
    sent = capture("put_object", Bucket="photos", Key="k", Body=b"hello", ChecksumAlgorithm=algorithm)
    declared = declared_checksum(dict(sent.headers))
    assert declared is not None
    assert declared.algorithm.name == algorithm
    check = BodyCheck(declared=declared, sha256=bytes.fromhex(sent.header("x-amz-content-sha256")))
    check.update(sent.body)
    check.verify()
    assert check.md5_digest() == hashlib.md5(b"hello").digest()
    assert check.checksum_digest() == declared.digest


def test_no_checksum_is_declared_by_headers_that_only_look_alike() -> None:
    headers = {
        "x-amz-checksum-mode": "ENABLED",
        "X-Amz-Checksum-Algorithm": "CRC32",
        "x-amz-checksum-type": "FULL_OBJECT",
    }
    assert declared_checksum(headers) is None
    assert declared_checksum({}) is None


CRC32_OF_NOTHING = "AAAAAA=="


@pytest.mark.parametrize(
    ("headers", "trailers"),
    [
        ({"x-amz-checksum-crc32": CRC32_OF_NOTHING, "x-amz-checksum-crc32c": CRC32_OF_NOTHING}, ()),
        ({"x-amz-checksum-crc32": CRC32_OF_NOTHING}, ("x-amz-checksum-sha1",)),
        ({}, ("x-amz-checksum-crc32", "x-amz-checksum-sha1")),
        ({"x-amz-checksum-md4": CRC32_OF_NOTHING}, ()),
        ({}, ("x-amz-checksum-md4",)),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, ()),
        ({"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": CRC32_OF_NOTHING}, ()),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, ("x-amz-checksum-crc32c",)),
    ],
)
def test_checksums_that_cannot_be_meant_are_refused(
    headers: dict[str, str], trailers: tuple[str, ...]
) -> None:
    error = refusal(lambda: declared_checksum(headers, trailers))
    assert (error.code, error.status) == ("InvalidRequest", 400)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crc32", "AAAAAA"),
        ("crc32", "AAAAAAA="),
        ("crc32", ""),
        ("crc32", "AAA_AA=="),
        ("crc32", "AAA AAA=="),
        ("crc32", "AAAAÄA=="),
        ("sha256", CRC32_OF_NOTHING),
    ],
)
def test_value_that_is_no_digest_is_that_of_no_body(name: str, value: str) -> None:
    error = refusal(lambda: declared_checksum({f"x-amz-checksum-{name}": value}))
    assert (error.code, error.status) == ("BadDigest", 400)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_changed_body_fails_each_checksum(name: str) -> None:
    algorithm = ALGORITHMS[name]
    hasher = algorithm.new()
    hasher.update(b"hello")
    text = encode_digest(hasher.digest())
    for headers, announced, trailers in (
        ({algorithm.header: text}, (), {}),
        ({}, (algorithm.header,), {algorithm.header: text}),
    ):
        for body, passes in ((b"hello", True), (b"hellO", False), (b"hell", False), (b"", False)):
            check = BodyCheck(declared=declared_checksum(headers, announced), with_md5=False)
            for at in range(len(body)):
                check.update(body[at : at + 1])
            if passes:
                check.verify(trailers)
            else:
                error = refusal(lambda check=check, trailers=trailers: check.verify(trailers))
                assert (error.code, error.status) == ("BadDigest", 400)
                assert name in error.message


def test_a_trailer_must_carry_the_checksum_that_was_announced() -> None:
    declared = DeclaredChecksum(ALGORITHMS["CRC32"], None)
    assert refusal(BodyCheck(declared=declared).verify).code == "MalformedTrailerError"
    trailers = {"x-amz-checksum-crc32": "not base64"}
    assert refusal(lambda: BodyCheck(declared=declared).verify(trailers)).code == "BadDigest"
    BodyCheck(declared=declared).verify({"x-amz-checksum-crc32": CRC32_OF_NOTHING})


def test_a_body_must_match_the_hash_that_was_signed() -> None:
    check = BodyCheck(sha256=hashlib.sha256(b"hello").digest())
    check.update(b"hello!")
    error = refusal(check.verify)
    assert (error.code, error.status) == ("XAmzContentSHA256Mismatch", 400)


def test_a_body_must_match_its_content_md5() -> None:
    wanted = parse_content_md5(b64encode(hashlib.md5(b"hello").digest()).decode())
    check = BodyCheck(md5=wanted, with_md5=False)
    check.update(b"hello")
    check.verify()
    check.update(b"!")
    assert refusal(check.verify).code == "BadDigest"


@pytest.mark.parametrize(
    "value", ["", "x", "AWS4 HAHAHA", b64encode(b"x" * 15).decode(), b64encode(b"x" * 17).decode(), "ü" * 24]
)
def test_a_content_md5_that_is_no_md5_is_an_invalid_digest(value: str) -> None:
    error = refusal(lambda: parse_content_md5(value))
    assert (error.code, error.status) == ("InvalidDigest", 400)


def test_without_a_content_md5_there_is_nothing_to_compare() -> None:
    assert parse_content_md5(None) is None
    assert BodyCheck().checksum_digest() is None
    BodyCheck().verify()
