"""Objects made of parts, through boto3: their checksums, parts read by number, and what is told of them."""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ssastore.s3.checksums import ALGORITHMS
from tests.s3.gateways import Gateway
from tests.s3.test_boto3 import FIRST_PART, MIB, error_of

TEXTS = [FIRST_PART, random.Random(2).randbytes(5 * MIB + 7), b"the last one"]


def digest_of(name: str, data: bytes) -> str:
    hasher = ALGORITHMS[name].new()
    hasher.update(data)
    return base64.b64encode(hasher.digest()).decode()


def composite_of(name: str, texts: list[bytes]) -> str:
    joined = b"".join(base64.b64decode(digest_of(name, text)) for text in texts)
    return f"{digest_of(name, joined)}-{len(texts)}"


@pytest.fixture(scope="module")
def plain(gateway: Gateway) -> Any:
    """boto3 that adds no checksums of its own."""
    when = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    return gateway.boto(config=when)


class Upload:
    """One upload, part by part."""

    def __init__(self, s3: Any, bucket: str, key: str = "k", **options: Any) -> None:
        self.s3 = s3
        self.made = s3.create_multipart_upload(Bucket=bucket, Key=key, **options)
        self.name = {"Bucket": bucket, "Key": key, "UploadId": self.made["UploadId"]}
        self.parts: list[dict[str, Any]] = []

    def add(self, text: bytes, **options: Any) -> Any:
        number = len(self.parts) + 1
        answer = self.s3.upload_part(**self.name, PartNumber=number, Body=text, **options)
        found = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        self.parts.append({"PartNumber": number, "ETag": answer["ETag"], **found})
        return answer

    def arguments(self, **options: Any) -> dict[str, Any]:
        return {**self.name, "MultipartUpload": {"Parts": self.parts}, **options}

    def complete(self, **options: Any) -> Any:
        return self.s3.complete_multipart_upload(**self.arguments(**options))


class TestChecksums:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("CRC32", "COMPOSITE"),
            ("CRC32C", "COMPOSITE"),
            ("SHA1", "COMPOSITE"),
            ("SHA256", "COMPOSITE"),
            ("CRC32", "FULL_OBJECT"),
            ("CRC32C", "FULL_OBJECT"),
            ("CRC64NVME", "FULL_OBJECT"),
        ],
    )
    def test_every_algorithm_and_type(self, plain: Any, bucket: str, name: str, kind: str) -> None:
        element, text = f"Checksum{name}", digest_of(name, b"".join(TEXTS))
        if kind == "COMPOSITE":
            text = composite_of(name, TEXTS)
        upload = Upload(plain, bucket, ChecksumAlgorithm=name, ChecksumType=kind)
        assert (upload.made["ChecksumAlgorithm"], upload.made["ChecksumType"]) == (name, kind)
        upload.add(TEXTS[0], **{element: digest_of(name, TEXTS[0])})
        for part in TEXTS[1:]:
            upload.add(part)  # without one it is computed
        assert [part[element] for part in upload.parts] == [digest_of(name, part) for part in TEXTS]
        listed = plain.list_parts(**upload.name)
        assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (name, kind)
        assert [part[element] for part in listed["Parts"]] == [part[element] for part in upload.parts]
        made = upload.complete(**{element: text}, ChecksumType=kind, MpuObjectSize=sum(map(len, TEXTS)))
        assert (made[element], made["ChecksumType"]) == (text, kind)
        again = upload.complete(**{element: text})
        assert (again[element], again["ETag"]) == (text, made["ETag"]), "a completion may be repeated"
        whole = {"Bucket": bucket, "Key": "k"}
        assert element not in plain.head_object(**whole)
        head = plain.head_object(**whole, ChecksumMode="ENABLED")
        assert (head[element], head["ChecksumType"]) == (text, kind)
        for number, part in enumerate(TEXTS, 1):
            found = plain.get_object(**whole, PartNumber=number, ChecksumMode="ENABLED")
            assert (found[element], found["ChecksumType"]) == (digest_of(name, part), kind)
            assert found["Body"].read() == part

    def test_boto3_verifies_what_it_reads(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        for part in TEXTS:
            upload.add(part, ChecksumAlgorithm="CRC32")
        upload.complete()
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(TEXTS)

    def test_wrong_ones_complete_nothing(self, plain: Any, bucket: str) -> None:
        upload = Upload(plain, bucket, ChecksumAlgorithm="SHA256")
        upload.add(TEXTS[2])
        complete = plain.complete_multipart_upload
        for wrong in ("bad", digest_of("SHA256", b"other"), digest_of("SHA256", b"other") + "-1"):
            assert error_of(complete, **upload.arguments(ChecksumSHA256=wrong)) == ("BadDigest", 400)
        assert error_of(complete, **upload.arguments(ChecksumCRC32="AAAAAA==")) == ("InvalidRequest", 400)
        wrong_size = upload.arguments(MpuObjectSize=len(TEXTS[2]) + 1)
        assert error_of(complete, **wrong_size) == ("InvalidRequest", 400)
        wrong_type = upload.arguments(ChecksumType="FULL_OBJECT")
        assert error_of(complete, **wrong_type) == ("InvalidRequest", 400)
        named = {**upload.parts[0], "ChecksumSHA256": digest_of("SHA256", b"other")}
        wrong_part = upload.arguments(MultipartUpload={"Parts": [named]})
        assert error_of(complete, **wrong_part) == ("InvalidPart", 400)
        assert error_of(plain.head_object, Bucket=bucket, Key="k") == ("404", 404)
        upload.complete()
        assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == TEXTS[2]

    def test_a_part_is_by_its_upload_s_algorithm(self, plain: Any, bucket: str) -> None:
        upload = Upload(plain, bucket, ChecksumAlgorithm="SHA256")
        call = {**upload.name, "PartNumber": 1, "Body": b"x"}
        other = error_of(plain.upload_part, **call, ChecksumCRC32=digest_of("CRC32", b"x"))
        assert other == ("InvalidRequest", 400)
        wrong = error_of(plain.upload_part, **call, ChecksumSHA256=digest_of("SHA256", b"y"))
        assert wrong == ("BadDigest", 400)
        assert "Parts" not in plain.list_parts(**upload.name)

    @pytest.mark.parametrize(
        ("name", "kind"), [("SHA256", "FULL_OBJECT"), ("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")]
    )
    def test_types_that_an_algorithm_cannot_have(self, plain: Any, bucket: str, name: str, kind: str) -> None:
        call = {"Bucket": bucket, "Key": "k", "ChecksumAlgorithm": name, "ChecksumType": kind}
        assert error_of(plain.create_multipart_upload, **call) == ("InvalidRequest", 400)

    def test_copied_parts_have_theirs(self, plain: Any, bucket: str) -> None:
        """Of whole chunks, which stay where they are, and of bytes that are cut out."""
        data = random.Random(9).randbytes(12 * MIB)
        plain.put_object(Bucket=bucket, Key="source", Body=data)
        upload = Upload(plain, bucket, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT")
        spans = [(0, 8 * MIB), (3 * MIB, 8 * MIB + 1), (5, 9)]
        for number, (start, end) in enumerate(spans, 1):
            copied = plain.upload_part_copy(
                **upload.name,
                PartNumber=number,
                CopySource=f"{bucket}/source",
                CopySourceRange=f"bytes={start}-{end - 1}",
            )["CopyPartResult"]
            assert copied["ChecksumCRC32C"] == digest_of("CRC32C", data[start:end])
            assert copied["ETag"] == f'"{hashlib.md5(data[start:end]).hexdigest()}"'
            upload.parts.append({"PartNumber": number, "ETag": copied["ETag"]})
        made = upload.complete()
        whole = data[: 8 * MIB] + data[3 * MIB : 8 * MIB + 1] + data[5:9]
        assert made["ChecksumCRC32C"] == digest_of("CRC32C", whole)
        assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == whole

    def test_a_copy_has_the_one_that_it_asks_for(self, plain: Any, bucket: str) -> None:
        upload = Upload(plain, bucket, ChecksumAlgorithm="SHA256")
        for part in TEXTS:
            upload.add(part)
        upload.complete()
        copy = {"Bucket": bucket, "CopySource": f"{bucket}/k"}
        same = plain.copy_object(**copy, Key="same")["CopyObjectResult"]
        assert (same["ChecksumSHA256"], same["ChecksumType"]) == (composite_of("SHA256", TEXTS), "COMPOSITE")
        assert plain.get_object(Bucket=bucket, Key="same", PartNumber=2)["Body"].read() == TEXTS[1]
        whole = b"".join(TEXTS)
        for name in ("SHA256", "CRC32"):
            text = digest_of(name, whole)
            other = plain.copy_object(**copy, Key=name, ChecksumAlgorithm=name)["CopyObjectResult"]
            assert (other[f"Checksum{name}"], other["ChecksumType"]) == (
                text,
                "FULL_OBJECT",
            )
            assert plain.get_object(Bucket=bucket, Key=name)["Body"].read() == whole
        wrong = {"Key": "x", "ChecksumAlgorithm": "MD4"}
        assert error_of(plain.copy_object, **copy, **wrong) == ("InvalidRequest", 400)


class TestOpenUploads:
    KEYS = ("a", "dir/", "dir/a", "dir/b/c", "dir/b/c", "dir2/x", "z")

    @pytest.fixture
    def uploads(self, s3: Any, bucket: str) -> list[tuple[str, str]]:
        """Open uploads: (key, id), as they are listed."""
        made = [
            (key, s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA1")["UploadId"])
            for key in self.KEYS
        ]
        return sorted(made)

    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    @pytest.mark.parametrize(
        ("prefix", "listed", "prefixes"),
        [
            ("", ["a", "z"], ["dir/", "dir2/"]),
            ("dir", [], ["dir/", "dir2/"]),
            ("dir/", ["dir/", "dir/a"], ["dir/b/"]),
            ("none", [], []),
        ],
    )
    def test_common_prefixes_with_any_page_size(
        self,
        s3: Any,
        bucket: str,
        uploads: list[tuple[str, str]],
        size: int,
        prefix: str,
        listed: list[str],
        prefixes: list[str],
    ) -> None:
        pages = s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"PageSize": size}
        )
        keys: list[str] = []
        commons: list[str] = []
        for page in pages:
            keys += [upload["Key"] for upload in page.get("Uploads", [])]
            commons += [common["Prefix"] for common in page.get("CommonPrefixes", [])]
            assert page["Delimiter"] == "/"
        assert (keys, commons) == (listed, prefixes)

    def test_uploads_say_who_began_them_and_their_checksum(
        self, s3: Any, bucket: str, uploads: list[tuple[str, str]]
    ) -> None:
        found = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert [(upload["Key"], upload["UploadId"]) for upload in found] == uploads
        for upload in found:
            assert upload["Initiator"] == upload["Owner"] and upload["Initiator"]["ID"]
            assert (upload["ChecksumAlgorithm"], upload["ChecksumType"]) == ("SHA1", "COMPOSITE")

    def test_object_lock_comes_with_the_upload_or_by_default(self, s3: Any, bucket: str) -> None:
        name = f"{bucket}-locked"
        s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        until = datetime.now(UTC) + timedelta(days=1)
        held = Upload(s3, name, "held", ObjectLockLegalHoldStatus="ON")
        kept = Upload(s3, name, "kept", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
        plain = Upload(s3, name, "plain")
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}
        s3.put_object_lock_configuration(
            Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        for upload in (held, kept, plain):
            upload.add(b"x")
            upload.complete()
        head = s3.head_object(Bucket=name, Key="kept")
        assert abs(head["ObjectLockRetainUntilDate"] - until) < timedelta(seconds=2)
        for key in ("held", "plain"):
            head = s3.head_object(Bucket=name, Key=key)
            assert head["ObjectLockMode"] == "GOVERNANCE"
            assert head["ObjectLockRetainUntilDate"] - until > timedelta(hours=23)
            assert head.get("ObjectLockLegalHoldStatus") == ("ON" if key == "held" else None)


class TestPartNumber:
    def test_parts_are_read_by_number(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        for text in TEXTS:
            upload.add(text)
        del upload.parts[0]  # numbers need not begin at 1
        etag = upload.complete()["ETag"]
        name = {"Bucket": bucket, "Key": "k"}
        first = len(TEXTS[1])
        for number, text, start in ((2, TEXTS[1], 0), (3, TEXTS[2], first)):
            head = s3.head_object(**name, PartNumber=number)
            found = s3.get_object(**name, PartNumber=number)
            for answer in (head, found):
                assert answer["PartsCount"] == 2 and answer["ETag"] == etag
                assert answer["ContentLength"] == len(text)
                status = answer["ResponseMetadata"]["HTTPStatusCode"]
                span = answer["ResponseMetadata"]["HTTPHeaders"]["content-range"]
                whole = first + len(TEXTS[2])
                assert (status, span) == (206, f"bytes {start}-{start + len(text) - 1}/{whole}")
            assert found["Body"].read() == text
        for number in (1, 4):
            assert error_of(s3.get_object, **name, PartNumber=number) == ("InvalidPart", 400)
            assert error_of(s3.head_object, **name, PartNumber=number) == ("400", 400)
        both = {"PartNumber": 2, "Range": "bytes=0-1"}
        assert error_of(s3.get_object, **name, **both) == ("InvalidRequest", 400)
        assert error_of(s3.get_object, **name, PartNumber=0) == ("InvalidArgument", 400)
        assert "PartsCount" not in s3.head_object(**name)

    @pytest.mark.parametrize("data", [b"", b"body"])
    def test_an_object_that_was_put_is_its_own_part(self, s3: Any, bucket: str, data: bytes) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=1)
        assert found["Body"].read() == data and "PartsCount" not in found
        assert found["ResponseMetadata"]["HTTPStatusCode"] == (206 if data else 200)
        assert error_of(s3.get_object, Bucket=bucket, Key="k", PartNumber=2) == ("InvalidPart", 400)

    def test_a_part_of_nothing(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        upload.add(b"")
        upload.complete()
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=1)
        assert (found["Body"].read(), found["PartsCount"]) == (b"", 1)

    def test_an_empty_part_at_the_end(self, s3: Any, bucket: str) -> None:
        upload = Upload(s3, bucket)
        upload.add(FIRST_PART)
        upload.add(b"")
        upload.complete()
        found = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
        assert (found["Body"].read(), found["ContentLength"]) == (b"", 0)


class TestVersions:
    def test_kept_version_has_its_parts(self, plain: Any, bucket: str) -> None:
        plain.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        upload = Upload(plain, bucket, ChecksumAlgorithm="SHA256")
        for text in TEXTS:
            upload.add(text)
        old = upload.complete()["VersionId"]
        plain.put_object(Bucket=bucket, Key="k", Body=b"new")
        name = {"Bucket": bucket, "Key": "k", "VersionId": old}
        assert plain.get_object(**name, PartNumber=2)["Body"].read() == TEXTS[1]
        found = plain.get_object_attributes(**name, ObjectAttributes=["ObjectParts", "ObjectSize"])
        assert found["VersionId"] == old and found["ObjectSize"] == sum(map(len, TEXTS))
        parts = found["ObjectParts"]["Parts"]
        assert [part["ChecksumSHA256"] for part in parts] == [digest_of("SHA256", text) for text in TEXTS]
        copied = plain.copy_object(
            Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k", "VersionId": old}
        )
        assert copied["CopySourceVersionId"] == old
        assert plain.get_object(Bucket=bucket, Key="c", PartNumber=3)["Body"].read() == TEXTS[2]


class TestAttributes:
    ALL = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")

    def test_of_an_object_that_was_put(self, s3: Any, bucket: str) -> None:
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"foo", ChecksumAlgorithm="SHA256")
        found = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=self.ALL)
        assert (found["ObjectSize"], found["StorageClass"]) == (3, "STANDARD")
        assert found["ETag"] == put["ETag"].strip('"')
        assert found["Checksum"] == {
            "ChecksumSHA256": digest_of("SHA256", b"foo"),
            "ChecksumType": "FULL_OBJECT",
        }
        assert "ObjectParts" not in found
        assert found["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]
        few = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
        assert few["ObjectSize"] == 3 and not set(self.ALL) - {"ObjectSize"} & few.keys()

    def test_parts_come_in_pages(self, plain: Any, bucket: str) -> None:
        upload = Upload(plain, bucket, ChecksumAlgorithm="SHA1")
        for text in (*TEXTS[:2], *TEXTS[:2], TEXTS[2]):
            upload.add(text)
        upload.complete()
        call = {"Bucket": bucket, "Key": "k", "ObjectAttributes": self.ALL}
        found = plain.get_object_attributes(**call)["ObjectParts"]
        assert (found["TotalPartsCount"], found["IsTruncated"]) == (5, False)
        assert [part["Size"] for part in found["Parts"]] == [len(TEXTS[at]) for at in (0, 1, 0, 1, 2)]
        assert found["Parts"][4]["ChecksumSHA1"] == digest_of("SHA1", TEXTS[2])
        page = plain.get_object_attributes(**call, MaxParts=2, PartNumberMarker=1)["ObjectParts"]
        assert (page["TotalPartsCount"], page["IsTruncated"], page["MaxParts"]) == (5, True, 2)
        assert [part["PartNumber"] for part in page["Parts"]] == [2, 3]
        assert (page["PartNumberMarker"], page["NextPartNumberMarker"]) == (1, 3)
        page = plain.get_object_attributes(**call, MaxParts=9, PartNumberMarker=3)["ObjectParts"]
        assert [part["PartNumber"] for part in page["Parts"]] == [4, 5] and not page["IsTruncated"]

    def test_refusals(self, s3: Any, bucket: str) -> None:
        call = {"Bucket": bucket, "Key": "k"}
        missing = error_of(s3.get_object_attributes, **call, ObjectAttributes=["ETag"])
        assert missing == ("NoSuchKey", 404)
        s3.put_object(**call, Body=b"")
        wrong = error_of(s3.get_object_attributes, **call, ObjectAttributes=["ETag", "Colour"])
        assert wrong == ("InvalidArgument", 400)
