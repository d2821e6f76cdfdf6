"""Tags of objects and buckets through boto3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3.test_boto3 import FIRST_PART, error_of, fill


def set_of(**tags: str) -> dict[str, list[dict[str, str]]]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in sorted(tags.items())]}


def tags_of(s3: Any, bucket: str, key: str) -> dict[str, str]:
    found = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in found}


class TestObjects:
    def test_life_of_tags(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART, Tagging="a=1&b=", Metadata={"m": "n"})
        assert tags_of(s3, bucket, "k") == {"a": "1", "b": ""}
        before = s3.head_object(Bucket=bucket, Key="k")
        assert before["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "2"
        assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=set_of(c="ü ö"))
        assert tags_of(s3, bucket, "k") == {"c": "ü ö"}
        after = s3.head_object(Bucket=bucket, Key="k")
        for name in ("ETag", "LastModified", "Metadata"):
            assert after[name] == before[name], name
        answer = s3.delete_object_tagging(Bucket=bucket, Key="k")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert tags_of(s3, bucket, "k") == {}
        head = s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"]
        assert "x-amz-tagging-count" not in head
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST_PART

    def test_small_object_keeps_its_bytes(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=set_of(a="b"))
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"

    def test_a_put_drops_the_tags_of_what_it_replaces(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1")
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
        assert tags_of(s3, bucket, "k") == {}

    def test_a_copy_has_its_source_s_tags_unless_they_are_replaced(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"k", Tagging="a=1")
        copy = {"Bucket": bucket, "Key": "c", "CopySource": f"{bucket}/k"}
        s3.copy_object(**copy)
        assert tags_of(s3, bucket, "c") == {"a": "1"}
        s3.copy_object(**copy, Tagging="b=2", TaggingDirective="REPLACE")
        assert tags_of(s3, bucket, "c") == {"b": "2"}
        s3.copy_object(**copy, TaggingDirective="REPLACE")
        assert tags_of(s3, bucket, "c") == {}
        s3.copy_object(**copy, MetadataDirective="REPLACE", Metadata={"x": "y"})
        assert tags_of(s3, bucket, "c") == {"a": "1"}
        assert error_of(s3.copy_object, **copy, TaggingDirective="DROP") == ("InvalidArgument", 400)

    def test_an_upload_s_tags_are_its_object_s(self, s3: Any, bucket: str) -> None:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Tagging="Hello=World&foo=bar")["UploadId"]
        part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"1")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        target = {"Bucket": bucket, "Key": "k", "UploadId": upload, "MultipartUpload": parts}
        assert error_of(s3.complete_multipart_upload, **target, IfMatch='"x"') == ("NoSuchKey", 404)
        s3.complete_multipart_upload(**target)
        assert tags_of(s3, bucket, "k") == {"Hello": "World", "foo": "bar"}

    def test_each_version_has_its_own(self, s3: Any, bucket: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        old = s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="a=1")["VersionId"]
        new = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
        name = {"Bucket": bucket, "Key": "k"}
        found = s3.get_object_tagging(**name, VersionId=old)
        assert found["TagSet"] == set_of(a="1")["TagSet"] and found["VersionId"] == old
        assert s3.get_object_tagging(**name) | {"ResponseMetadata": 0} == {
            "ResponseMetadata": 0,
            "VersionId": new,
            "TagSet": [],
        }
        assert s3.put_object_tagging(**name, VersionId=old, Tagging=set_of(b="2"))["VersionId"] == old
        assert s3.get_object_tagging(**name, VersionId=old)["TagSet"] == set_of(b="2")["TagSet"]
        assert tags_of(s3, bucket, "k") == {}
        assert s3.delete_object_tagging(**name, VersionId=old)["VersionId"] == old
        assert s3.get_object_tagging(**name, VersionId=old)["TagSet"] == []
        marker = s3.delete_object(**name)["VersionId"]
        assert error_of(s3.get_object_tagging, **name) == ("NoSuchKey", 404)
        on_marker = error_of(s3.put_object_tagging, **name, VersionId=marker, Tagging=set_of(a="1"))
        assert on_marker == ("MethodNotAllowed", 405)

    def test_refusals(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        name = {"Bucket": bucket, "Key": "k"}
        for tags in (set_of(**{str(at): "" for at in range(11)}), set_of(k="v" * 257)):
            assert error_of(s3.put_object_tagging, **name, Tagging=tags) == ("InvalidTag", 400)
        assert error_of(s3.put_object, **name, Body=b"new", Tagging="a=1&a=2") == ("InvalidArgument", 400)
        assert error_of(s3.put_object, **name, Body=b"new", Tagging="a=!") == ("InvalidTag", 400)
        assert s3.get_object(**name)["Body"].read() == b"k"
        assert tags_of(s3, bucket, "k") == {}
        missing = {"Bucket": bucket, "Key": "missing"}
        assert error_of(s3.get_object_tagging, **missing) == ("NoSuchKey", 404)
        assert error_of(s3.put_object_tagging, **missing, Tagging=set_of(a="b")) == ("NoSuchKey", 404)
        assert error_of(s3.delete_object_tagging, **missing) == ("NoSuchKey", 404)


class TestBuckets:
    def test_life_of_tags(self, s3: Any, bucket: str) -> None:
        assert error_of(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
        tags = set_of(**{f"{at:02}": str(at) for at in range(50)})
        s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags["TagSet"]
        s3.put_bucket_tagging(Bucket=bucket, Tagging=set_of(a="b"))
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == set_of(a="b")["TagSet"]
        answer = s3.delete_bucket_tagging(Bucket=bucket)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert error_of(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)

    @pytest.mark.parametrize("call", ["get_bucket_tagging", "put_bucket_tagging", "delete_bucket_tagging"])
    def test_a_bucket_that_is_not_there(self, s3: Any, call: str) -> None:
        arguments = {"Tagging": set_of(a="b")} if call.startswith("put") else {}
        assert error_of(getattr(s3, call), Bucket="not-there", **arguments) == ("NoSuchBucket", 404)
