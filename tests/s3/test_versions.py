"""Versions through boto3."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.gateways import Gateway

KEY = "k"
PART = b"p" * (5 << 20)


def set_versioning(s3: Any, bucket: str, status: str = "Enabled") -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    """A bucket that makes versions."""
    set_versioning(s3, bucket)
    return bucket


def put(s3: Any, bucket: str, body: bytes, key: str = KEY, **arguments: Any) -> str:
    """The id of the version that was made."""
    return str(s3.put_object(Bucket=bucket, Key=key, Body=body, **arguments).get("VersionId", ""))


def body_of(s3: Any, bucket: str, version: str | None = None, key: str = KEY) -> bytes:
    arguments = {"VersionId": version} if version else {}
    data: bytes = s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()
    return data


def listed(s3: Any, bucket: str, **arguments: Any) -> list[tuple[str, str, bool]]:
    """(key, version id, whether it is the latest) of versions and, with a minus, of markers, sorted."""
    answer = s3.list_object_versions(Bucket=bucket, **arguments)
    found = [(row["Key"], row["VersionId"], row["IsLatest"]) for row in answer.get("Versions", [])]
    markers = [
        ("-" + row["Key"], row["VersionId"], row["IsLatest"]) for row in answer.get("DeleteMarkers", [])
    ]
    return found + markers


def failure(call: Callable[..., Any], **arguments: Any) -> tuple[str, int, dict[str, str]]:
    """Code, status and headers of a refusal."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    meta = answer["ResponseMetadata"]
    return answer["Error"]["Code"], meta["HTTPStatusCode"], meta["HTTPHeaders"]


class TestSetting:
    def test_status_is_as_it_was_set(self, s3: Any, bucket: str) -> None:
        assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
        for status in ("Enabled", "Suspended", "Enabled"):
            set_versioning(s3, bucket, status)
            assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status

    @pytest.mark.parametrize(
        ("configuration", "expected"),
        [
            ({"Status": "On"}, ("MalformedXML", 400)),
            ({}, ("IllegalVersioningConfigurationException", 400)),
            ({"Status": "Enabled", "MFADelete": "Enabled"}, ("NotImplemented", 501)),
        ],
    )
    def test_what_cannot_be_set(
        self, s3: Any, bucket: str, configuration: dict[str, str], expected: tuple[str, int]
    ) -> None:
        call = {"Bucket": bucket, "VersioningConfiguration": configuration}
        assert failure(s3.put_bucket_versioning, **call)[:2] == expected
        assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)

    def test_no_such_bucket(self, s3: Any) -> None:
        assert failure(s3.get_bucket_versioning, Bucket="no-such-bucket")[0] == "NoSuchBucket"
        assert failure(s3.list_object_versions, Bucket="no-such-bucket")[0] == "NoSuchBucket"


class TestVersions:
    def test_all_are_there_by_their_ids(self, s3: Any, versioned: str) -> None:
        ids = [put(s3, versioned, b"%d" % number) for number in range(3)]
        assert [body_of(s3, versioned, version) for version in ids] == [b"0", b"1", b"2"]
        head = s3.head_object(Bucket=versioned, Key=KEY)
        assert head["VersionId"] == ids[2]
        assert s3.head_object(Bucket=versioned, Key=KEY, VersionId=ids[0])["VersionId"] == ids[0]
        assert listed(s3, versioned) == [(KEY, ids[2], True), (KEY, ids[1], False), (KEY, ids[0], False)]

    def test_delete_and_undelete(self, s3: Any, versioned: str) -> None:
        version = put(s3, versioned, b"data")
        deleted = s3.delete_object(Bucket=versioned, Key=KEY)
        marker = deleted["VersionId"]
        assert deleted["DeleteMarker"] is True
        for call in (s3.get_object, s3.head_object):
            code, status, headers = failure(call, Bucket=versioned, Key=KEY)
            assert (code in ("NoSuchKey", "404"), status) == (True, 404)
            assert headers["x-amz-delete-marker"] == "true"
            assert headers["x-amz-version-id"] == marker
            code, status, headers = failure(call, Bucket=versioned, Key=KEY, VersionId=marker)
            assert (code in ("MethodNotAllowed", "405"), status) == (True, 405)
            assert headers["x-amz-delete-marker"] == "true"
            assert headers["allow"] == "DELETE"
        assert listed(s3, versioned) == [(KEY, version, False), ("-" + KEY, marker, True)]
        undeleted = s3.delete_object(Bucket=versioned, Key=KEY, VersionId=marker)
        assert (undeleted["DeleteMarker"], undeleted["VersionId"]) == (True, marker)
        assert body_of(s3, versioned) == b"data"
        gone = s3.delete_object(Bucket=versioned, Key=KEY, VersionId=version)
        assert (gone.get("DeleteMarker"), gone["VersionId"]) == (None, version)
        assert "x-amz-delete-marker" not in failure(s3.get_object, Bucket=versioned, Key=KEY)[2]
        assert failure(s3.get_object, Bucket=versioned, Key=KEY, VersionId=version)[0] == "NoSuchVersion"
        s3.delete_bucket(Bucket=versioned)

    def test_bucket_with_a_marker_is_not_empty(self, s3: Any, versioned: str) -> None:
        s3.delete_object(Bucket=versioned, Key=KEY)
        assert failure(s3.delete_bucket, Bucket=versioned)[:2] == ("BucketNotEmpty", 409)

    def test_null_versions(self, s3: Any, bucket: str) -> None:
        assert put(s3, bucket, b"before") == ""
        assert body_of(s3, bucket, "null") == b"before"
        set_versioning(s3, bucket)
        assert s3.head_object(Bucket=bucket, Key=KEY)["VersionId"] == "null"
        version = put(s3, bucket, b"version")
        set_versioning(s3, bucket, "Suspended")
        assert put(s3, bucket, b"null again") == ""
        assert [row[1] for row in listed(s3, bucket)] == ["null", version]
        assert body_of(s3, bucket, "null") == b"null again"
        deleted = s3.delete_object(Bucket=bucket, Key=KEY)
        assert (deleted["DeleteMarker"], deleted["VersionId"]) == (True, "null")
        assert listed(s3, bucket) == [(KEY, version, False), ("-" + KEY, "null", True)]

    @pytest.mark.parametrize("version", ["x", "0" * 31, "NULL"])
    def test_what_is_no_id(self, s3: Any, versioned: str, version: str) -> None:
        put(s3, versioned, b"data")
        for call in (s3.get_object, s3.delete_object):
            assert failure(call, Bucket=versioned, Key=KEY, VersionId=version)[:2] == ("InvalidArgument", 400)
        absent = "0" * 32
        assert failure(s3.get_object, Bucket=versioned, Key=KEY, VersionId=absent)[:2] == (
            "NoSuchVersion",
            404,
        )
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=absent)

    def test_multipart_and_copies_make_versions(self, s3: Any, versioned: str) -> None:
        first = put(s3, versioned, b"first")
        upload = s3.create_multipart_upload(Bucket=versioned, Key=KEY)
        named = {"Bucket": versioned, "Key": KEY, "UploadId": upload["UploadId"]}
        parts = [
            {"PartNumber": number, "ETag": s3.upload_part(**named, PartNumber=number, Body=body)["ETag"]}
            for number, body in ((1, PART), (2, b"end"))
        ]
        completed = s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        again = s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        assert completed["VersionId"] == again["VersionId"]
        copied = s3.copy_object(
            Bucket=versioned, Key=KEY, CopySource={"Bucket": versioned, "Key": KEY, "VersionId": first}
        )
        assert copied["CopySourceVersionId"] == first
        assert [row[1] for row in listed(s3, versioned)] == [
            copied["VersionId"],
            completed["VersionId"],
            first,
        ]
        assert body_of(s3, versioned) == b"first"
        assert body_of(s3, versioned, completed["VersionId"]) == PART + b"end"
        later = s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        assert later["VersionId"] == completed["VersionId"], "the answer of a repeated call is what was made"
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=copied["VersionId"])
        assert body_of(s3, versioned) == PART + b"end"

    def test_copy_of_a_marker_is_refused(self, s3: Any, versioned: str) -> None:
        put(s3, versioned, b"data")
        marker = s3.delete_object(Bucket=versioned, Key=KEY)["VersionId"]
        source = {"Bucket": versioned, "Key": KEY}
        call = {"Bucket": versioned, "Key": "copy"}
        assert failure(s3.copy_object, CopySource=source, **call)[0] == "NoSuchKey"
        source["VersionId"] = marker
        assert failure(s3.copy_object, CopySource=source, **call)[0] == "InvalidRequest"

    def test_many_at_once_by_delete_objects(self, s3: Any, versioned: str) -> None:
        versions = [put(s3, versioned, b"%d" % number) for number in range(3)]
        made = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": KEY}]})["Deleted"]
        marker = made[0]["DeleteMarkerVersionId"]
        assert made == [{"Key": KEY, "DeleteMarker": True, "DeleteMarkerVersionId": marker}]
        entries = [{"Key": KEY, "VersionId": version} for version in [*versions, marker]]
        for _ in range(2):
            answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": entries})
            assert len(answer["Deleted"]) == 4
        assert listed(s3, versioned) == []
        s3.delete_bucket(Bucket=versioned)

    def test_other_gateway_learns_of_it_and_destroys_nothing(
        self, gateway: Gateway, s3: Any, bucket: str
    ) -> None:
        """A native client knows the bucket from before; what it writes is kept all the same."""
        gateway.run(gateway.client.bucket(bucket).put(KEY, b"before"))
        set_versioning(s3, bucket)
        version = put(s3, bucket, b"version")
        gateway.run(gateway.client.bucket(bucket).put(KEY, b"native"))
        assert body_of(s3, bucket, version) == b"version"
        assert body_of(s3, bucket) == b"native"


class TestListing:
    def test_pages_prefixes_and_encoding(self, s3: Any, versioned: str) -> None:
        keys = ["a", "b/1", "b/2", "c d&é"]
        for key in keys:
            for body in (b"1", b"2"):
                put(s3, versioned, body, key)
        s3.delete_object(Bucket=versioned, Key="a")
        answer = s3.list_object_versions(Bucket=versioned, Delimiter="/")
        assert [row["Key"] for row in answer["Versions"]] == ["a", "a", "c d&é", "c d&é"]
        assert [row["Prefix"] for row in answer["CommonPrefixes"]] == ["b/"]
        assert [row["Key"] for row in answer["DeleteMarkers"]] == ["a"]
        assert [row[0] for row in listed(s3, versioned, Prefix="b/")] == ["b/1"] * 2 + ["b/2"] * 2
        whole = listed(s3, versioned)
        for size in (1, 2, 3):
            pages = s3.get_paginator("list_object_versions").paginate(
                Bucket=versioned, PaginationConfig={"PageSize": size}
            )
            rows = [
                ("-" * ("ETag" not in row) + row["Key"], row["VersionId"], row["IsLatest"])
                for page in pages
                for kind in ("DeleteMarkers", "Versions")
                for row in page.get(kind, [])
            ]
            assert sorted(rows) == sorted(whole), size
        tree = [
            [row["Prefix"] for row in page.get("CommonPrefixes", [])]
            + [row["Key"] for row in page.get("Versions", [])]
            for page in s3.get_paginator("list_object_versions").paginate(
                Bucket=versioned, Delimiter="/", PaginationConfig={"PageSize": 1}
            )
        ]
        assert sorted(name for page in tree for name in page) == ["a", "a", "b/", "c d&é", "c d&é"]

    def test_unversioned_bucket_lists_null_versions(self, s3: Any, bucket: str) -> None:
        put(s3, bucket, b"data")
        assert listed(s3, bucket) == [(KEY, "null", True)]

    def test_markers_that_cannot_be(self, s3: Any, versioned: str) -> None:
        for arguments in ({"VersionIdMarker": "0" * 32}, {"KeyMarker": "k", "VersionIdMarker": "x"}):
            code = failure(s3.list_object_versions, Bucket=versioned, **arguments)[:2]
            assert code == ("InvalidArgument", 400)
        assert "Versions" not in s3.list_object_versions(Bucket=versioned, MaxKeys=0)


class TestConditions:
    """What a write demands is decided with it, in buckets of all kinds."""

    @pytest.fixture(params=["", "Enabled", "Suspended"])
    def any_bucket(self, request: pytest.FixtureRequest, s3: Any, bucket: str) -> str:
        if request.param:
            set_versioning(s3, bucket, request.param)
        return bucket

    def test_puts(self, s3: Any, any_bucket: str) -> None:
        def refused(**arguments: Any) -> tuple[str, int]:
            return failure(s3.put_object, Bucket=any_bucket, Key=KEY, **arguments)[:2]

        assert refused(IfMatch="*") == ("NoSuchKey", 404)
        etag = s3.put_object(Bucket=any_bucket, Key=KEY, IfNoneMatch="*")["ETag"]
        assert refused(IfNoneMatch="*") == ("PreconditionFailed", 412)
        assert refused(IfNoneMatch=etag) == ("PreconditionFailed", 412)
        assert refused(IfMatch="other") == ("PreconditionFailed", 412)
        put(s3, any_bucket, b"", IfNoneMatch="other")
        put(s3, any_bucket, b"", IfMatch=etag)
        s3.delete_object(Bucket=any_bucket, Key=KEY)
        assert refused(IfMatch=etag) == ("NoSuchKey", 404)
        put(s3, any_bucket, b"", IfNoneMatch=etag)

    @pytest.mark.parametrize("is_many", [False, True])
    def test_deletes(self, s3: Any, any_bucket: str, is_many: bool) -> None:
        def delete(**arguments: Any) -> str:
            if is_many:
                names = {
                    "IfMatch": "ETag",
                    "IfMatchLastModifiedTime": "LastModifiedTime",
                    "IfMatchSize": "Size",
                }
                entry = {"Key": KEY} | {names.get(name, name): value for name, value in arguments.items()}
                answer = s3.delete_objects(Bucket=any_bucket, Delete={"Objects": [entry]})
                return str(answer["Errors"][0]["Code"]) if "Errors" in answer else ""
            try:
                s3.delete_object(Bucket=any_bucket, Key=KEY, **arguments)
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return ""

        old = datetime(2015, 1, 1, tzinfo=UTC)
        assert delete(IfMatch="other") == "", "what is not there need not match"
        for _ in range(2):
            etag = s3.put_object(Bucket=any_bucket, Key=KEY, Body=b"data")["ETag"]
            modified = s3.head_object(Bucket=any_bucket, Key=KEY)["LastModified"]
            for wrong in ({"IfMatch": "other"}, {"IfMatchSize": 5}, {"IfMatchLastModifiedTime": old}):
                assert delete(**wrong) == "PreconditionFailed", wrong
            assert body_of(s3, any_bucket) == b"data"
            assert delete(IfMatch=etag, IfMatchSize=4, IfMatchLastModifiedTime=modified) == ""
            assert failure(s3.get_object, Bucket=any_bucket, Key=KEY)[0] == "NoSuchKey"

    def test_deletes_of_a_version(self, s3: Any, versioned: str) -> None:
        version = put(s3, versioned, b"data")
        put(s3, versioned, b"other")
        for wrong in ({"IfMatch": "other"}, {"IfMatchSize": 5}):
            code = failure(s3.delete_object, Bucket=versioned, Key=KEY, VersionId=version, **wrong)[0]
            assert code == "PreconditionFailed"
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=version, IfMatchSize=4)
        s3.delete_object(Bucket=versioned, Key=KEY, VersionId=version, IfMatch="other")
        assert len(listed(s3, versioned)) == 1
