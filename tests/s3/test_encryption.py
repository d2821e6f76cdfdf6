"""Server-side encryption through an unmodified boto3, and what lies on the disks meanwhile."""

from __future__ import annotations

import base64
import hashlib
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ssastore.core.ciphers import ENCRYPTION
from ssastore.errors import EncryptedObject
from ssastore.limits import INLINE_BYTES_MAX
from ssastore.s3.server import S3Server
from ssastore.store.lmdb import LmdbStore
from tests.s3.gateways import WRAPPING_KEY, Gateway
from tests.s3.raw import Site
from tests.s3.test_boto3 import FIRST_PART, MIB, error_of, keys_of
from tests.s3.test_post import form_of, send, signed

KEY, OTHER = b"k" * 31 + b"1", b"o" * 31 + b"2"
AES = {"ServerSideEncryption": "AES256"}
SIZES = [0, 1, INLINE_BYTES_MAX - 28, INLINE_BYTES_MAX - 27, 9 * MIB + 17]


def customer(key: bytes, prefix: str = "") -> dict[str, str]:
    """What boto3 takes for a key; not for all operations does it compute the MD5 itself."""
    named = {"Algorithm": "AES256", "Key": base64.b64encode(key).decode()}
    named["KeyMD5"] = base64.b64encode(hashlib.md5(key).digest()).decode()
    return {f"{prefix}SSECustomer{name}": value for name, value in named.items()}


MINE, OTHERS, OF_SOURCE = customer(KEY), customer(OTHER), customer(KEY, "CopySource")
KINDS: dict[str, dict[str, str]] = {"not": {}, "SSE-S3": AES, "SSE-C": MINE}


def with_key(asked: dict[str, Any]) -> dict[str, str]:
    """What a read has to say of an object that was written so."""
    return asked if asked in (MINE, OTHERS) else {}


def data_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def default(s3: Any, bucket: str, algorithm: str = "AES256") -> Any:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}
    return s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def upload(s3: Any, bucket: str, key: str, parts: list[bytes], **asked: Any) -> Any:
    """Complete an upload of these parts, each sent twice."""
    again = with_key(asked)
    sums = {name: asked[name] for name in asked if name == "ChecksumAlgorithm"}
    opened = s3.create_multipart_upload(Bucket=bucket, Key=key, **asked)
    request = {"Bucket": bucket, "Key": key, "UploadId": opened["UploadId"], **again}
    named = []
    for number, part in enumerate(parts, 1):
        s3.upload_part(PartNumber=number, Body=part[::-1], **request, **sums)
        answer = s3.upload_part(PartNumber=number, Body=part, **request, **sums)
        told = {name: answer[name] for name in ("ETag", "ChecksumSHA256") if name in answer}
        named.append({"PartNumber": number, **told})
    return s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **request)


# -- what comes back --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["SSE-S3", "SSE-C"])
def test_bytes_and_headers_come_back(s3: Any, bucket: str, kind: str, size: int) -> None:
    asked, data = KINDS[kind], data_of(size)
    md5 = hashlib.md5(data).hexdigest()
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, Metadata={"x": "y"}, **asked)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **with_key(asked))
    head = s3.head_object(Bucket=bucket, Key="k", **with_key(asked))
    assert got["Body"].read() == data and got["Metadata"] == {"x": "y"}
    assert put["ETag"] == got["ETag"] == head["ETag"] and (put["ETag"] == f'"{md5}"') == (kind == "SSE-S3")
    assert got["ContentLength"] == head["ContentLength"] == size
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    for answer in (put, got, head):
        assert answer.get("ServerSideEncryption") == ("AES256" if kind == "SSE-S3" else None)
        if kind == "SSE-C":
            assert answer["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(KEY).digest()).decode()
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert (listed["Size"], listed["ETag"]) == (size, put["ETag"])


@pytest.mark.parametrize("kind", ["SSE-S3", "SSE-C"])
def test_ranges_of_parts_come_back(s3: Any, bucket: str, kind: str) -> None:
    """Across pieces and parts: a piece is 28 bytes below 4 MiB, a part here five and a bit."""
    asked, parts = KINDS[kind], [FIRST_PART + b"1", FIRST_PART[::-1], b"the last one"]
    whole = b"".join(parts)
    upload(s3, bucket, "k", parts, **asked)
    assert s3.get_object(Bucket=bucket, Key="k", **with_key(asked))["Body"].read() == whole
    piece = 4 * MIB - 28
    edges = [0, 1, piece - 1, piece, piece + 1, 5 * MIB, 5 * MIB + 1, 5 * MIB + 1 + piece, len(whole) - 12]
    for first in edges:
        for last in (first, first + 1, min(first + piece, len(whole) - 1), len(whole) - 1):
            if last < len(whole):
                request = {"Bucket": bucket, "Key": "k", "Range": f"bytes={first}-{last}", **with_key(asked)}
                assert s3.get_object(**request)["Body"].read() == whole[first : last + 1], (first, last)
    for number, part in enumerate(parts, 1):
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=number, **with_key(asked))
        assert found["Body"].read() == part and found["PartsCount"] == 3


def test_an_upload_says_how_it_is_encrypted(s3: Any, bucket: str) -> None:
    opened = s3.create_multipart_upload(Bucket=bucket, Key="k", **AES)
    request = {"Bucket": bucket, "Key": "k", "UploadId": opened["UploadId"]}
    part = s3.upload_part(PartNumber=1, Body=b"1", **request)
    listed = s3.list_parts(**request)
    named = [{"PartNumber": 1, "ETag": part["ETag"]}]
    assert [(row["Size"], row["ETag"]) for row in listed["Parts"]] == [(1, part["ETag"])]
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **request)
    assert {answer["ServerSideEncryption"] for answer in (opened, part, done)} == {"AES256"}
    again = s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **request)
    assert again["ETag"] == done["ETag"] and again["ServerSideEncryption"] == "AES256"


@pytest.mark.parametrize(
    "asked", [{"Range": "bytes=99-"}, {"PartNumber": 2}, {"IfMatch": '"x"'}, {"IfNoneMatch": "*"}]
)
def test_an_error_tells_nothing_to_who_has_not_the_key(s3: Any, bucket: str, asked: dict[str, Any]) -> None:
    """Neither size nor ETag, which a condition or a range could try out."""
    s3.put_object(Bucket=bucket, Key="c", Body=b"secret", **MINE)
    for wrong in ({}, OTHERS):
        call = {"Bucket": bucket, "Key": "c", **asked, **wrong}
        assert error_of(s3.get_object, **call) == ("InvalidRequest", 400)
        assert error_of(s3.head_object, **call) == ("400", 400)


@pytest.mark.parametrize("checksum", [{}, {"ChecksumAlgorithm": "CRC32"}])
def test_parts_need_the_key_of_their_upload(s3: Any, bucket: str, checksum: dict[str, str]) -> None:
    """As AWS, what reads no bytes needs it with checksums alone; but a wrong one is refused."""
    refused = ("InvalidRequest", 400)
    opened = s3.create_multipart_upload(Bucket=bucket, Key="k", **MINE, **checksum)
    request = {"Bucket": bucket, "Key": "k", "UploadId": opened["UploadId"]}
    for wrong in ({}, OTHERS):
        assert error_of(s3.upload_part, PartNumber=1, Body=b"1", **request, **wrong) == refused
    etag = s3.upload_part(PartNumber=1, Body=b"1", **request, **MINE)["ETag"]
    parts = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
    for wrong in ({}, OTHERS) if checksum else (OTHERS,):
        assert error_of(s3.list_parts, **request, **wrong) == refused
        assert error_of(s3.complete_multipart_upload, **request, **parts, **wrong) == refused
    key = MINE if checksum else {}
    assert s3.list_parts(**request, **key)["Parts"][0]["Size"] == 1
    s3.complete_multipart_upload(**request, **parts, **key)
    for wrong in ({}, OTHERS) if checksum else (OTHERS,):
        assert error_of(s3.complete_multipart_upload, **request, **parts, **wrong) == refused, "repeated"
    s3.complete_multipart_upload(**request, **parts, **key)
    assert s3.get_object(Bucket=bucket, Key="k", **MINE)["Body"].read() == b"1"
    plain = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    call = {"Bucket": bucket, "Key": "k", "UploadId": plain, "PartNumber": 1, "Body": b"1", **MINE}
    assert error_of(s3.upload_part, **call) == refused


def test_reads_need_the_right_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="c", Body=b"secret", **MINE)
    s3.put_object(Bucket=bucket, Key="s", Body=b"secret", **AES)
    attributes = {"ObjectAttributes": ["ETag", "ObjectSize"]}
    for wrong in ({}, OTHERS):
        assert error_of(s3.get_object, Bucket=bucket, Key="c", **wrong) == ("InvalidRequest", 400)
        assert error_of(s3.head_object, Bucket=bucket, Key="c", **wrong) == ("400", 400)
        call = {"Bucket": bucket, "Key": "c", **attributes, **wrong}
        assert error_of(s3.get_object_attributes, **call) == ("InvalidRequest", 400)
    assert error_of(s3.get_object, Bucket=bucket, Key="s", **MINE) == ("InvalidRequest", 400)
    assert s3.get_object_attributes(Bucket=bucket, Key="c", **attributes, **MINE)["ObjectSize"] == 6
    assert s3.get_object_attributes(Bucket=bucket, Key="s", **attributes)["ObjectSize"] == 6


def test_kms_is_refused_by_name(s3: Any, bucket: str) -> None:
    kms = {"ServerSideEncryption": "aws:kms"}
    for asked in (kms, kms | {"SSEKMSKeyId": "k"}, kms | {"BucketKeyEnabled": True}):
        for call in (s3.put_object, s3.create_multipart_upload):
            assert error_of(call, Bucket=bucket, Key="k", **asked) == ("NotImplemented", 501)
    assert error_of(default, s3=s3, bucket=bucket, algorithm="aws:kms") == ("NotImplemented", 501)
    assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []


def test_a_header_where_it_means_nothing_is_refused(site: Site) -> None:
    asked = [("x-amz-server-side-encryption", "AES256")]
    for method, key, query in (
        ("GET", site.KEY, ""),
        ("HEAD", site.KEY, ""),
        ("GET", "", "list-type=2"),
        ("DELETE", site.KEY, ""),
        ("PUT", site.KEY, "partNumber=1&uploadId=x"),
    ):
        answer = site.send(site.sign(method, key, headers=asked, query=query))
        assert answer.status == 400 and answer.code in ("InvalidArgument", "")
    hoisted = site.sign("PUT", "new", b"x", query="x-amz-server-side-encryption=AES256")
    assert site.send(hoisted).code == "InvalidArgument"


def test_native_client_does_not_take_it_for_the_object(gateway: Gateway, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="small", Body=b"secret", **AES)
    s3.put_object(Bucket=bucket, Key="large", Body=FIRST_PART, **MINE)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"the word encryption", Metadata={"encryption": "no"})

    async def read(key: str) -> bytes:
        found: bytes = await gateway.client.bucket(bucket).get(key)
        return found

    for key in ("small", "large"):
        with pytest.raises(EncryptedObject):
            gateway.run(read(key))
    assert gateway.run(read("plain")) == b"the word encryption"


# -- buckets, forms, policies -----------------------------------------------------------------------


def test_default_of_a_bucket(s3: Any, bucket: str) -> None:
    missing = ("ServerSideEncryptionConfigurationNotFoundError", 404)
    assert error_of(s3.get_bucket_encryption, Bucket=bucket) == missing
    s3.put_object(Bucket=bucket, Key="before", Body=b"1")
    default(s3, bucket)
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="c", Body=b"1", **MINE)
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/before")
    assert copied["ServerSideEncryption"] == "AES256"
    upload(s3, bucket, "parts", [b"1"])
    assert s3.head_object(Bucket=bucket, Key="parts")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="before")
    s3.delete_bucket_encryption(Bucket=bucket)
    assert error_of(s3.get_bucket_encryption, Bucket=bucket) == missing
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="after", Body=b"1")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


def test_forms_say_it_in_their_fields(gateway: Gateway, s3: Any, bucket: str) -> None:
    field = "x-amz-server-side-encryption"
    fields = signed(s3, bucket, "k", **{field: "AES256"})
    status, said, _ = send(gateway, bucket, form_of(fields, b"data"))
    assert (status, said[field]) == (204, "AES256")
    found = s3.get_object(Bucket=bucket, Key="k")
    assert (found["Body"].read(), found["ServerSideEncryption"]) == (b"data", "AES256")
    for name, value, status in ((field, "aws:kms", 501), (f"{field}-new", "x", 400), (field, "x", 400)):
        assert send(gateway, bucket, form_of(signed(s3, bucket, "n", **{name: value}), b"1"))[0] == status
    assert keys_of(s3.list_objects_v2(Bucket=bucket)) == ["k"]


def test_a_policy_can_demand_it(s3: Any, alice: Any, mine: str) -> None:
    condition = '{"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}'
    deny = f'"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Condition": {condition}'
    policy = f'{{"Version": "2012-10-17", "Statement": [{{{deny}, "Resource": "arn:aws:s3:::{mine}/*"}}]}}'
    alice.put_bucket_policy(Bucket=mine, Policy=policy)
    assert error_of(alice.put_object, Bucket=mine, Key="n", Body=b"") == ("AccessDenied", 403)
    wrong = {"Bucket": mine, "Key": "n", "ServerSideEncryption": "aws:kms"}
    assert error_of(alice.put_object, **wrong) == ("AccessDenied", 403)
    alice.put_object(Bucket=mine, Key="n", Body=b"", **AES)


# -- what else an object has ------------------------------------------------------------------------


def test_versions_locks_tags_and_conditions(s3: Any) -> None:
    bucket = "encrypted-versions"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = datetime.now(UTC) + timedelta(days=1)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="a=b", IfNoneMatch="*", **lock, **AES)
    second = s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART, IfMatch=first["ETag"], **MINE)
    assert error_of(s3.put_object, Bucket=bucket, Key="k", IfMatch=first["ETag"], **AES)[1] == 412
    named = {"Bucket": bucket, "Key": "k", "VersionId": first["VersionId"]}
    s3.put_object_tagging(Tagging={"TagSet": [{"Key": "c", "Value": "d"}]}, **named)
    assert s3.get_object_tagging(**named)["TagSet"] == [{"Key": "c", "Value": "d"}]
    found = s3.get_object(**named)
    assert (found["Body"].read(), found["ObjectLockMode"]) == (b"1", "GOVERNANCE")
    assert error_of(s3.delete_object, **named) == ("AccessDenied", 403)
    current = s3.get_object(Bucket=bucket, Key="k", **MINE)
    assert current["Body"].read() == FIRST_PART and current["VersionId"] == second["VersionId"]
    unchanged = {"Bucket": bucket, "Key": "k", "IfNoneMatch": second["ETag"]}
    assert error_of(s3.get_object, **unchanged, **MINE) == ("304", 304)
    assert error_of(s3.get_object, **unchanged) == ("InvalidRequest", 400)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=second["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1", "the version before took its place"


# -- copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 5 * MIB + 3])
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_copies_between_all_kinds(s3: Any, bucket: str, source: str, target: str, size: int) -> None:
    was, will, data = KINDS[source], KINDS[target], data_of(size)
    will = OTHERS if will == MINE else will
    of_source = OF_SOURCE if was == MINE else {}
    s3.put_object(Bucket=bucket, Key="k", Body=data, Metadata={"x": "y"}, Tagging="a=b", **was)
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", **will, **of_source)
    s3.delete_object(Bucket=bucket, Key="k")
    found = s3.get_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED", **with_key(will))
    assert found["Body"].read() == data and found["Metadata"] == {"x": "y"} and found["TagCount"] == 1
    assert copied["CopyObjectResult"]["ETag"] == found["ETag"]
    assert (found["ETag"] == f'"{hashlib.md5(data).hexdigest()}"') == (will != OTHERS)
    for answer in (copied, found):
        assert answer.get("ServerSideEncryption") == will.get("ServerSideEncryption")
        assert answer.get("SSECustomerAlgorithm") == will.get("SSECustomerAlgorithm")


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_copied_parts_between_all_kinds(s3: Any, bucket: str, source: str, target: str) -> None:
    was, will = KINDS[source], KINDS[target]
    will = OTHERS if will == MINE else will
    of_source = OF_SOURCE if was == MINE else {}
    s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART, **was)
    opened = s3.create_multipart_upload(Bucket=bucket, Key="c", **will)
    request = {"Bucket": bucket, "Key": "c", "UploadId": opened["UploadId"], **with_key(will)}
    copy = {"CopySource": f"{bucket}/k", **of_source, **request}
    parts = [s3.upload_part_copy(PartNumber=1, **copy)]
    parts.append(s3.upload_part_copy(PartNumber=2, CopySourceRange="bytes=7-4194311", **copy))
    assert parts[0].get("ServerSideEncryption") == will.get("ServerSideEncryption")
    if of_source:
        less = {name: value for name, value in copy.items() if name not in of_source}
        assert error_of(s3.upload_part_copy, PartNumber=3, **less) == ("InvalidRequest", 400)
    named = [
        {"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]} for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **request)
    found = s3.get_object(Bucket=bucket, Key="c", **with_key(will))
    assert found["Body"].read() == FIRST_PART + FIRST_PART[7:4194312]


def test_a_copy_of_parts_by_the_server_s_key_moves_no_bytes(gateway: Gateway, s3: Any, bucket: str) -> None:
    parts = [FIRST_PART, b"last"]
    upload(s3, bucket, "k", parts, **AES)
    record = gateway.run(gateway.client.objects.find(bucket, "k")).metadata
    s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", **AES)
    copy = gateway.run(gateway.client.objects.find(bucket, "c")).metadata
    assert copy.segments == record.segments
    assert copy.extra[ENCRYPTION]["key"] != record.extra[ENCRYPTION]["key"], "wrapped anew"
    s3.delete_object(Bucket=bucket, Key="k")
    assert s3.get_object(Bucket=bucket, Key="c", PartNumber=2)["Body"].read() == b"last"
    s3.copy_object(Bucket=bucket, Key="d", CopySource=f"{bucket}/c", ChecksumAlgorithm="SHA256", **AES)
    found = s3.get_object(Bucket=bucket, Key="d", ChecksumMode="ENABLED")
    expected = base64.b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()
    assert found["Body"].read() == b"".join(parts) and found["ChecksumSHA256"] == expected


def test_a_copy_that_is_written_anew_is_not_made_of_parts(s3: Any, bucket: str) -> None:
    parts = [FIRST_PART, b"last"]
    upload(s3, bucket, "k", parts, ChecksumAlgorithm="SHA256")
    s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", **AES)
    found = s3.get_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")
    digest = base64.b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()
    assert (found["ChecksumSHA256"], found["ChecksumType"]) == (digest, "FULL_OBJECT")
    assert found["ETag"] == f'"{hashlib.md5(b"".join(parts)).hexdigest()}"'
    assert found["Body"].read() == b"".join(parts) and "PartsCount" not in found


def test_a_copy_onto_itself_can_encrypt(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART, Metadata={"x": "y"})
    itself = {"Bucket": bucket, "Key": "k", "CopySource": f"{bucket}/k"}
    assert error_of(s3.copy_object, **itself) == ("InvalidRequest", 400)
    for asked, of_source in ((AES, {}), (MINE, {}), (AES, OF_SOURCE)):
        s3.copy_object(**itself, **asked, **of_source)
        found = s3.get_object(Bucket=bucket, Key="k", **with_key(asked))
        assert found["Body"].read() == FIRST_PART and found["Metadata"] == {"x": "y"}


# -- on the disks, and the keys ---------------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose nodes store in files below ``tmp_path``."""
    with Gateway(
        nodes=2, make_store=lambda index: LmdbStore.open(tmp_path / f"{index}", map_bytes=256 * MIB)
    ) as gateway:
        yield gateway


def is_stored(directory: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [40, 5 * MIB])
def test_plain_bytes_are_on_no_disk(on_disk: Gateway, tmp_path: Path, size: int) -> None:
    s3 = on_disk.boto()
    s3.create_bucket(Bucket="disk")
    texts = {name: f"these are the bytes of {name:<16}".encode() for name in (*KINDS, "parts", "copy")}
    for name, asked in KINDS.items():
        s3.put_object(Bucket="disk", Key=name, Body=texts[name] * (size // 39 + 1), **asked)
    upload(s3, "disk", "parts", [texts["parts"] * (5 * MIB // 39 + 1), texts["parts"]], **AES)
    s3.put_object(Bucket="disk", Key="source", Body=(texts["copy"] * (size // 39 + 1))[:size], **AES)
    s3.copy_object(Bucket="disk", Key="copy", CopySource="disk/source", **MINE)
    assert is_stored(tmp_path, texts["not"]), "else nothing would be found, whatever was there"
    for name in ("SSE-S3", "SSE-C", "parts", "copy"):
        assert not is_stored(tmp_path, texts[name]), name
    for secret in (KEY, base64.b64encode(KEY), WRAPPING_KEY, WRAPPING_KEY.hex().encode()):
        assert not is_stored(tmp_path, secret)


def exchange(gateway: Gateway, *keys: tuple[str, bytes]) -> None:
    """The gateway as it is after a restart with these wrapping keys."""
    server: S3Server = gateway.make_server(keys)
    gateway.server._operations = server._operations


def test_wrapping_keys_are_exchanged(caplog: pytest.LogCaptureFixture) -> None:
    old, new = ("old", b"1" * 32), ("new", b"2" * 32)
    with Gateway(wrapping_keys=[old]) as gateway:
        s3 = gateway.boto()
        s3.create_bucket(Bucket="keys")
        s3.put_object(Bucket="keys", Key="k", Body=FIRST_PART, **AES)
        opened = s3.create_multipart_upload(Bucket="keys", Key="u", **AES)
        exchange(gateway, old, new)
        request = {"Bucket": "keys", "Key": "u", "UploadId": opened["UploadId"]}
        etag = s3.upload_part(PartNumber=1, Body=b"part", **request)["ETag"]
        named = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        s3.complete_multipart_upload(MultipartUpload=named, **request)
        s3.put_object(Bucket="keys", Key="n", Body=b"new", **AES)
        for key, body in (("k", FIRST_PART), ("u", b"part"), ("n", b"new")):
            assert s3.get_object(Bucket="keys", Key=key)["Body"].read() == body
        s3.copy_object(Bucket="keys", Key="k", CopySource="keys/k", **AES)
        exchange(gateway, new)
        assert s3.get_object(Bucket="keys", Key="k")["Body"].read() == FIRST_PART, "wrapped anew by the copy"
        assert s3.get_object(Bucket="keys", Key="n")["Body"].read() == b"new"
        assert error_of(s3.get_object, Bucket="keys", Key="u") == ("InternalError", 500)
        assert any("wrapping key old is not in" in str(record.__dict__) for record in caplog.records)
        exchange(gateway)
        assert error_of(s3.put_object, Bucket="keys", Key="x", **AES) == ("NotImplemented", 501)
        assert error_of(default, s3=s3, bucket="keys") == ("NotImplemented", 501)


@pytest.mark.parametrize("asked", [AES, MINE])
def test_a_repeated_conditional_write_is_the_first(site: Site, s3: Any, asked: dict[str, str]) -> None:
    """Its second attempt has another data key, which must not take the first one's place."""
    start = "x-amz-server-side-encryption"
    told = [(start, "AES256")]
    if asked == MINE:
        told = [(f"{start}-customer-algorithm", "AES256"), (f"{start}-customer-key", MINE["SSECustomerKey"])]
        told += [(f"{start}-customer-key-md5", MINE["SSECustomerKeyMD5"])]
    told += [("If-None-Match", "*"), ("amz-sdk-invocation-id", "11111111-2222-3333-4444-555555555555")]
    etags = set()
    for attempt in (1, 2):
        headers = [*told, ("amz-sdk-request", f"attempt={attempt}; max=3")]
        answer = site.send(site.sign("PUT", "once", FIRST_PART, headers))
        assert answer.status == 200, answer
        etags.add(answer.headers.get("ETag") or answer.headers["etag"])
    found = s3.get_object(Bucket=site.bucket, Key="once", **with_key(asked))
    assert found["Body"].read() == FIRST_PART and {found["ETag"]} == etags
    s3.delete_object(Bucket=site.bucket, Key="once")


@pytest.mark.parametrize("source", ["", "kept"])
def test_a_conditional_write_under_another_key_is_another(site: Site, s3: Any, source: str) -> None:
    """It is refused, not told that what is there opens by the key that it named."""
    start = "x-amz-server-side-encryption-customer-"
    told = [("If-None-Match", "*"), ("amz-sdk-invocation-id", "11111111-2222-3333-4444-666666666666")]
    told += [("x-amz-copy-source", f"{site.bucket}/{source}")] if source else []
    statuses = []
    for attempt, key in ((1, MINE), (2, OTHERS), (3, MINE), (4, {})):
        headers = [*told, ("amz-sdk-request", f"attempt={attempt}; max=5")]
        if key:
            headers += [(f"{start}algorithm", "AES256"), (f"{start}key", key["SSECustomerKey"])]
            headers += [(f"{start}key-md5", key["SSECustomerKeyMD5"])]
        body = b"" if source else FIRST_PART
        statuses.append(site.send(site.sign("PUT", "once", body, headers)).status)
    assert statuses == [200, 412, 200, 412]
    s3.get_object(Bucket=site.bucket, Key="once", **MINE)
    s3.delete_object(Bucket=site.bucket, Key="once")


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_needs_the_header_that_it_was_made_for(
    gateway: Gateway, s3: Any, bucket: str, version: str
) -> None:
    """Version 2 repeats it in the query, where nothing reads it."""
    client = gateway.boto(config={"signature_version": version})
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k", **AES})
    assert put_to(url, {}) == 403
    assert put_to(url, {"x-amz-server-side-encryption": "AES256"}) == 200
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"


def put_to(url: str, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, b"data", {"Content-Type": "", **headers}, method="PUT")
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_key_is_in_no_answer_to_a_wrong_signature(
    gateway: Gateway, s3: Any, bucket: str, version: str
) -> None:
    """Answers get into logs of proxies and clients."""
    secret = MINE["SSECustomerKey"]
    names = {
        "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
        "SSECustomerKey": "x-amz-server-side-encryption-customer-key",
        "SSECustomerKeyMD5": "x-amz-server-side-encryption-customer-key-md5",
    }
    headers = {name: MINE[field] for field, name in names.items()}
    client = gateway.boto(secret_key="wrong", config={"signature_version": version})
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k", **MINE})
    request = urllib.request.Request(url, b"data", {"Content-Type": "", **headers}, method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    told = caught.value.read().decode()
    assert "SignatureDoesNotMatch" in told and "(left out)" in told and secret not in told
