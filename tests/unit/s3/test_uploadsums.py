"""Checksums of objects made of parts: what S3 has, combined as if the bytes had been read."""

from __future__ import annotations

import base64
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.parts import PartOf
from ssastore.s3.checksums import ALGORITHMS, encode_digest
from ssastore.s3.errors import S3Error
from ssastore.s3.uploadsums import UploadSum, judge_completion
from ssastore.s3.xmlread import NamedPart

FULL = ["CRC32", "CRC32C", "CRC64NVME"]
COMPOSITE = ["CRC32", "CRC32C", "SHA1", "SHA256"]


def digest(name: str, data: bytes) -> bytes:
    hasher = ALGORITHMS[name].new()
    hasher.update(data)
    return hasher.digest()


def parts_of(name: str, texts: list[bytes]) -> list[PartOf]:
    return [PartOf(at, len(text), digest(name, text)) for at, text in enumerate(texts, 1)]


def named(name: str, parts: list[PartOf]) -> list[NamedPart]:
    return [NamedPart(part.number, "e", {name: encode_digest(part.checksum)}) for part in parts]


def begun(name: str, kind: str = "") -> UploadSum:
    made = UploadSum.of_headers({"x-amz-checksum-algorithm": name, "x-amz-checksum-type": kind})
    assert made is not None
    return made


@pytest.mark.parametrize("name", FULL)
@given(texts=st.lists(st.binary(max_size=50), min_size=1, max_size=6))
def test_full_object_is_the_digest_of_all_bytes(name: str, texts: list[bytes]) -> None:
    assert begun(name, "FULL_OBJECT").of_parts(parts_of(name, texts)) == digest(name, b"".join(texts))


@pytest.mark.parametrize(
    ("name", "text"),
    [  # of parts of 5 MiB of A, B and C, as other implementations have them
        ("CRC32", "WgDhBQ=="),
        ("CRC32C", "xU+Krw=="),
        ("CRC64NVME", "i+6LR0y3eFo="),
        ("SHA256", "uWBwpe1dxI4Vw8Gf0X9ynOdw/SS6VBzfWm9giiv1sf4=-3"),
        ("SHA1", "sizjvY4eud3MrcHdZM3cQ/ol39o=-3"),
    ],
)
def test_published_values(name: str, text: str) -> None:
    parts = parts_of(name, [letter * 5 * 1024 * 1024 for letter in (b"A", b"B", b"C")])
    wanted = begun(name, "FULL_OBJECT" if name in FULL else "")
    assert wanted.text(wanted.of_parts(parts), 3) == text


@pytest.mark.parametrize("name", COMPOSITE)
def test_composite_is_the_digest_of_digests(name: str) -> None:
    parts, wanted = parts_of(name, [b"one", b"two"]), begun(name)
    joined = digest(name, b"".join(part.checksum for part in parts))
    assert wanted.type == "COMPOSITE" and wanted.of_parts(parts) == joined
    assert wanted.text(joined, 2) == base64.b64encode(joined).decode() + "-2"


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({}, None),
        ({"x-amz-checksum-algorithm": "crc64nvme"}, True),
        ({"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"}, False),
        ({"x-amz-checksum-algorithm": "SHA1", "x-amz-checksum-type": "FULL_OBJECT"}, False),
        ({"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "FULL_OBJECT"}, False),
        ({"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "COMPOSITE"}, True),
        ({"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "HALF"}, False),
        ({"x-amz-checksum-algorithm": "MD5"}, False),
        ({"x-amz-checksum-type": "COMPOSITE"}, False),
    ],
)
def test_what_an_upload_may_ask_for(headers: dict[str, str], is_taken: bool | None) -> None:
    if is_taken is False:
        with pytest.raises(S3Error) as caught:
            UploadSum.of_headers(headers)
        assert (caught.value.code, caught.value.status) == ("InvalidRequest", 400)
        return
    made = UploadSum.of_headers(headers)
    assert (made is not None) == bool(is_taken)
    if made:
        assert UploadSum.of_upload({"object": made.kept()}) == made
        assert made.headers()["x-amz-checksum-type"] == made.type


TEXTS = [Random(1).randbytes(9), b"", b"last"]


def judged(name: str, kind: str, headers: dict[str, str], edit: Any = None) -> dict[str, Any]:
    parts = parts_of(name, TEXTS)
    said = named(name, parts)
    if edit:
        said = edit(said)
    return judge_completion(headers, said, {"object": begun(name, kind).kept()}, parts)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_right_completion_is_kept(name: str) -> None:
    kind = "FULL_OBJECT" if name in FULL else "COMPOSITE"
    wanted = begun(name, kind)
    whole = wanted.of_parts(parts_of(name, TEXTS))
    text = wanted.text(whole, 3)
    header = ALGORITHMS[name].header
    kept = {"checksum": {name: text}, "checksum_type": kind}
    assert judged(name, kind, {}) == kept
    assert judged(name, kind, {header: text, "x-amz-checksum-type": kind}) == kept
    assert judged(name, kind, {header: encode_digest(whole), "x-amz-mp-object-size": "13"}) == kept
    assert judged(name, kind, {}, lambda said: [NamedPart(p.number, "e", {}) for p in said]) == kept


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-checksum-sha256": "bad"}, "BadDigest"),
        ({"x-amz-checksum-sha256": encode_digest(bytes(32)) + "-3"}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "InvalidRequest"),
        ({"x-amz-checksum-type": "FULL_OBJECT"}, "InvalidRequest"),
        ({"x-amz-mp-object-size": "12"}, "InvalidRequest"),
        ({"x-amz-mp-object-size": "much"}, "InvalidArgument"),
    ],
)
def test_wrong_completion(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        judged("SHA256", "COMPOSITE", headers)
    assert (caught.value.code, caught.value.status) == (code, 400)


def test_part_with_another_checksum() -> None:
    with pytest.raises(S3Error) as caught:
        judged("SHA256", "COMPOSITE", {}, lambda said: [*said[:2], NamedPart(3, "e", {"SHA256": "other"})])
    assert caught.value.code == "InvalidPart"


def test_upload_without_an_algorithm() -> None:
    parts = [PartOf(1, 4)]
    said = [NamedPart(1, "e", {"CRC32": "AAAAAA=="})]
    assert judge_completion({}, said, {"object": {}}, parts) == {}
    with pytest.raises(S3Error):
        judge_completion({"x-amz-checksum-crc32": "AAAAAA=="}, said, {"object": {}}, parts)
