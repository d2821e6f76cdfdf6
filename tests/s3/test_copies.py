"""Copies through an unmodified boto3: what is copied, under which conditions, and what is not touched."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3.test_boto3 import FIRST_PART, MIB, error_of, fill


def body_of(s3: Any, bucket: str, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def quoted_md5(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


class TestCopyObject:
    @pytest.mark.parametrize("size", [0, 1, 64 * 1024 + 1, 9 * MIB + 17])
    def test_bytes_and_headers_are_the_source_s(self, s3: Any, bucket: str, size: int) -> None:
        data = random.Random(size).randbytes(size)
        s3.put_object(
            Bucket=bucket, Key="k", Body=data, ContentType="a/b", CacheControl="no-store", Metadata={"x": "y"}
        )
        copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")["CopyObjectResult"]
        found = s3.get_object(Bucket=bucket, Key="c")
        assert copied["ETag"] == found["ETag"] == quoted_md5(data)
        assert abs(copied["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)
        assert (found["ContentType"], found["CacheControl"], found["Metadata"]) == (
            "a/b",
            "no-store",
            {"x": "y"},
        )
        s3.delete_object(Bucket=bucket, Key="k")
        assert body_of(s3, bucket, "c") == data

    def test_a_checksum_goes_with_its_bytes(self, s3: Any, bucket: str) -> None:
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"abc", ChecksumAlgorithm="SHA256")
        copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")["CopyObjectResult"]
        head = s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")
        assert copied["ChecksumSHA256"] == head["ChecksumSHA256"] == put["ChecksumSHA256"]

    def test_copy_between_buckets(self, s3: Any, bucket: str) -> None:
        other = f"{bucket}-other"
        s3.create_bucket(Bucket=other)
        fill(s3, bucket, "a b/ü+?&%41")
        s3.copy_object(Bucket=other, Key="c", CopySource={"Bucket": bucket, "Key": "a b/ü+?&%41"})
        assert body_of(s3, other, "c") == "a b/ü+?&%41".encode()

    def test_replace_takes_what_the_request_says_and_nothing_else(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"1", ContentType="a/b", Metadata={"x": "y"})
        request = {"Bucket": bucket, "CopySource": f"{bucket}/k"}
        s3.copy_object(Key="r", MetadataDirective="REPLACE", CacheControl="no-cache", **request)
        found = s3.head_object(Bucket=bucket, Key="r")
        assert (found["ContentType"], found["Metadata"]) == ("binary/octet-stream", {})
        assert found["CacheControl"] == "no-cache"
        s3.copy_object(Key="c", ContentType="c/d", Metadata={"z": "z"}, **request)
        found = s3.head_object(Bucket=bucket, Key="c")
        assert (found["ContentType"], found["Metadata"]) == ("a/b", {"x": "y"}), "COPY is the default"

    def test_onto_itself_only_to_change_something(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        itself = {"Bucket": bucket, "Key": "k", "CopySource": f"{bucket}/k"}
        assert error_of(s3.copy_object, **itself) == ("InvalidRequest", 400)
        s3.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"a": "b"})
        assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "b"}
        s3.copy_object(**itself, StorageClass="STANDARD")
        s3.copy_object(**itself, WebsiteRedirectLocation="/there")
        found = s3.get_object(Bucket=bucket, Key="k")
        assert found["WebsiteRedirectLocation"] == "/there" and found["Body"].read() == b"k"

    def test_large_object_onto_itself(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART)
        s3.copy_object(
            Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE", ContentType="x/y"
        )
        found = s3.get_object(Bucket=bucket, Key="k")
        assert found["ContentType"] == "x/y" and found["Body"].read() == FIRST_PART

    def test_a_redirect_is_not_copied(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"", WebsiteRedirectLocation="https://example.net/")
        s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
        assert s3.head_object(Bucket=bucket, Key="k")["WebsiteRedirectLocation"] == "https://example.net/"
        assert "WebsiteRedirectLocation" not in s3.head_object(Bucket=bucket, Key="c")
        wrong = {"Bucket": bucket, "Key": "k", "Body": b"", "WebsiteRedirectLocation": "gopher://x"}
        assert error_of(s3.put_object, **wrong) == ("InvalidRedirectLocation", 400)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"CopySource": "no-such-bucket-here/k"}, ("NoSuchBucket", 404)),
            ({"CopySource": "{bucket}/missing"}, ("NoSuchKey", 404)),
            ({"CopySource": "{bucket}"}, ("InvalidArgument", 400)),
            ({"CopySource": "{bucket}/k?versionId=abc"}, ("InvalidArgument", 400)),
            ({"CopySource": "{bucket}/k?versionId=" + "0" * 32}, ("NoSuchVersion", 404)),
            ({"CopySource": "{bucket}/k", "MetadataDirective": "MOVE"}, ("InvalidArgument", 400)),
            ({"CopySource": "{bucket}/k", "StorageClass": "GLACIER"}, ("InvalidStorageClass", 400)),
        ],
    )
    def test_what_cannot_be_copied(
        self, s3: Any, bucket: str, arguments: dict[str, str], error: tuple[str, int]
    ) -> None:
        fill(s3, bucket, "k")
        filled = {name: value.format(bucket=bucket) for name, value in arguments.items()}
        assert error_of(s3.copy_object, Bucket=bucket, Key="c", **filled) == error
        assert error_of(s3.head_object, Bucket=bucket, Key="c") == ("404", 404)

    def test_version_null_is_the_object_of_a_bucket_without_versions(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        source = {"Bucket": bucket, "Key": "k", "VersionId": "null"}
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source)
        assert body_of(s3, bucket, "c") == b"k"

    @pytest.mark.parametrize("call", ["copy_object", "upload_part_copy"])
    def test_conditions_on_the_source(self, s3: Any, bucket: str, call: str) -> None:
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"k")["ETag"]
        upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
        arguments: dict[str, Any] = {"Bucket": bucket, "Key": "c", "CopySource": f"{bucket}/k"}
        if call == "upload_part_copy":
            arguments |= {"UploadId": upload, "PartNumber": 1}
        before, after = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(seconds=5)
        holds: list[dict[str, Any]] = [
            {"CopySourceIfMatch": etag},
            {"CopySourceIfNoneMatch": '"other"'},
            {"CopySourceIfModifiedSince": before},
            {"CopySourceIfUnmodifiedSince": after},
            {"CopySourceIfMatch": etag, "CopySourceIfUnmodifiedSince": before},
        ]
        fails: list[dict[str, Any]] = [
            {"CopySourceIfMatch": '"other"'},
            {"CopySourceIfNoneMatch": etag},
            {"CopySourceIfUnmodifiedSince": before},
            {"CopySourceIfModifiedSince": after},
            {"CopySourceIfNoneMatch": etag, "CopySourceIfModifiedSince": before},
        ]
        for condition in fails:
            error = error_of(getattr(s3, call), **arguments, **condition)
            assert error == ("PreconditionFailed", 412), condition
        assert error_of(s3.head_object, Bucket=bucket, Key="c") == ("404", 404)
        for condition in holds:
            getattr(s3, call)(**arguments, **condition)

    def test_conditions_on_the_target(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k", "there")
        etag = s3.head_object(Bucket=bucket, Key="there")["ETag"]
        copy = {"Bucket": bucket, "CopySource": f"{bucket}/k"}
        assert error_of(s3.copy_object, Key="there", IfNoneMatch="*", **copy) == ("PreconditionFailed", 412)
        assert error_of(s3.copy_object, Key="there", IfMatch='"no"', **copy) == ("PreconditionFailed", 412)
        assert error_of(s3.copy_object, Key="new", IfMatch=etag, **copy) == ("NoSuchKey", 404)
        assert body_of(s3, bucket, "there") == b"there"
        s3.copy_object(Key="there", IfMatch=etag, **copy)
        s3.copy_object(Key="new", IfNoneMatch="*", **copy)
        assert body_of(s3, bucket, "there") == body_of(s3, bucket, "new") == b"k"

    def test_managed_copy_of_a_multipart_object(self, s3: Any, bucket: str) -> None:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="a/b")["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": s3.upload_part(
                    Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=FIRST_PART
                )["ETag"],
            }
            for number in (1, 2)
        ]
        s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        s3.copy({"Bucket": bucket, "Key": "k"}, bucket, "c")
        s3.delete_object(Bucket=bucket, Key="k")
        found = s3.get_object(Bucket=bucket, Key="c")
        assert found["ContentType"] == "a/b" and found["Body"].read() == FIRST_PART * 2


class TestUploadPartCopy:
    def test_ranges_become_parts(self, s3: Any, bucket: str) -> None:
        """Ranges of whole chunks (the first and third), one that is cut, and one of a small object."""
        data = random.Random(3).randbytes(20 * MIB)
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        fill(s3, bucket, "small")
        upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
        wanted = [("k", 0, 8 * MIB - 1), ("k", 5, 6 * MIB + 4), ("k", 8 * MIB, 20 * MIB - 1), ("small", 1, 3)]
        parts = []
        for number, (key, first, last) in enumerate(wanted, 1):
            copied = s3.upload_part_copy(
                Bucket=bucket,
                Key="c",
                UploadId=upload,
                PartNumber=number,
                CopySource=f"{bucket}/{key}",
                CopySourceRange=f"bytes={first}-{last}",
            )["CopyPartResult"]
            assert abs(copied["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)
            parts.append({"PartNumber": number, "ETag": copied["ETag"]})
        listed = s3.list_parts(Bucket=bucket, Key="c", UploadId=upload)["Parts"]
        assert [part["ETag"] for part in listed] == [part["ETag"] for part in parts]
        assert [part["Size"] for part in listed] == [last + 1 - first for _, first, last in wanted]
        s3.complete_multipart_upload(
            Bucket=bucket, Key="c", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        s3.delete_object(Bucket=bucket, Key="k")
        assert body_of(s3, bucket, "c") == (
            data[: 8 * MIB] + data[5 : 6 * MIB + 5] + data[8 * MIB :] + b"mal"
        )

    @pytest.mark.parametrize("size", [0, 10, 5 * MIB])
    def test_all_of_an_object(self, s3: Any, bucket: str, size: int) -> None:
        data = random.Random(size).randbytes(size)
        s3.put_object(Bucket=bucket, Key="?versionId", Body=data)
        upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
        copied = s3.upload_part_copy(
            Bucket=bucket,
            Key="c",
            UploadId=upload,
            PartNumber=1,
            CopySource={"Bucket": bucket, "Key": "?versionId"},
        )
        parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]
        s3.complete_multipart_upload(
            Bucket=bucket, Key="c", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        assert body_of(s3, bucket, "c") == data

    @pytest.mark.parametrize(
        ("span", "error"),
        [
            ("0-2", "InvalidArgument"),
            ("bytes=0", "InvalidArgument"),
            ("bytes=hello-world", "InvalidArgument"),
            ("bytes=0-", "InvalidArgument"),
            ("bytes=-2", "InvalidArgument"),
            ("bytes=0-1,3-4", "InvalidArgument"),
            ("bytes=0-5", "InvalidRange"),
        ],
    )
    def test_range_must_be_exact(self, s3: Any, bucket: str, span: str, error: str) -> None:
        fill(s3, bucket, "small")
        upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
        part = {"Bucket": bucket, "Key": "c", "UploadId": upload, "PartNumber": 1}
        source = {"CopySource": f"{bucket}/small", "CopySourceRange": span}
        assert error_of(s3.upload_part_copy, **part, **source) == (error, 400)

    def test_what_is_missing(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
        part = {"Bucket": bucket, "Key": "c", "PartNumber": 1}
        missing = {"UploadId": upload, "CopySource": f"{bucket}/nothing"}
        assert error_of(s3.upload_part_copy, **part, **missing) == ("NoSuchKey", 404)
        forged = {"UploadId": "0" * 32, "CopySource": f"{bucket}/k"}
        assert error_of(s3.upload_part_copy, **part, **forged) == ("NoSuchUpload", 404)
