"""What an unmodified boto3 with its default settings sees: the S3 API as tools use it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import random
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.s3.gateways import REGION, Gateway

MIB = 1024 * 1024
FIRST_PART = random.Random(1).randbytes(5 * MIB)
"The smallest part that need not be the last."


def error_of(call: Any, **arguments: Any) -> tuple[str, int]:
    """(code, HTTP status) with which a call fails."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def keys_of(page: Any) -> list[str]:
    return [entry["Key"] for entry in page.get("Contents", [])]


def prefixes_of(page: Any) -> list[str]:
    return [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]


def fill(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())


# -- buckets ----------------------------------------------------------------------------------------


class TestBuckets:
    def test_life_of_a_bucket(self, s3: Any) -> None:
        name = "life-of-a-bucket"
        assert s3.create_bucket(Bucket=name)["Location"] == f"/{name}"
        assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == REGION
        assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == REGION
        listed = {entry["Name"]: entry["CreationDate"] for entry in s3.list_buckets()["Buckets"]}
        assert abs(listed[name] - datetime.now(UTC)) < timedelta(minutes=1)
        assert s3.delete_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert name not in {entry["Name"] for entry in s3.list_buckets()["Buckets"]}
        assert error_of(s3.head_bucket, Bucket=name) == ("404", 404)
        assert error_of(s3.delete_bucket, Bucket=name) == ("NoSuchBucket", 404)
        assert error_of(s3.list_objects_v2, Bucket=name) == ("NoSuchBucket", 404)

    def test_buckets_are_listed_in_order_of_name(self, s3: Any) -> None:
        for name in ("order-b", "order-a.b", "order-c", "order-a"):
            s3.create_bucket(Bucket=name)
        names = [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
        assert names == sorted(names) and {"order-a", "order-a.b"} <= set(names)

    def test_a_bucket_is_created_once(self, s3: Any, bucket: str) -> None:
        assert error_of(s3.create_bucket, Bucket=bucket) == ("BucketAlreadyOwnedByYou", 409)

    @pytest.mark.parametrize("region", [REGION, "mars-1"])
    def test_location_constraint_is_our_region_or_refused(self, s3: Any, region: str) -> None:
        arguments = {"Bucket": f"in-{region}", "CreateBucketConfiguration": {"LocationConstraint": region}}
        if region == REGION:
            s3.create_bucket(**arguments)
        else:
            assert error_of(s3.create_bucket, **arguments) == ("InvalidLocationConstraint", 400)

    def test_only_an_empty_bucket_is_deleted(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        assert error_of(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"
        fill(s3, bucket, "still writable")
        for key in ("k", "still writable"):
            s3.delete_object(Bucket=bucket, Key=key)
        s3.delete_bucket(Bucket=bucket)

    def test_a_bucket_made_again_is_empty_and_works(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        s3.delete_object(Bucket=bucket, Key="k")
        s3.delete_bucket(Bucket=bucket)
        s3.create_bucket(Bucket=bucket)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []
        fill(s3, bucket, "k")
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"

    def test_what_is_not_served_says_its_name(self, s3: Any, bucket: str) -> None:
        with pytest.raises(ClientError, match="inventory") as caught:
            s3.get_bucket_inventory_configuration(Bucket=bucket, Id="i")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


# -- objects ----------------------------------------------------------------------------------------


class TestObjects:
    @pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 17])
    def test_bytes_come_back(self, s3: Any, bucket: str, size: int) -> None:
        """Sizes on both sides of inline data, of one blob, and of several."""
        data = random.Random(size).randbytes(size)
        put = s3.put_object(Bucket=bucket, Key="k", Body=data)
        assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
        found = s3.get_object(Bucket=bucket, Key="k")
        assert found["ContentLength"] == size and found["ETag"] == put["ETag"]
        assert found["Body"].read() == data
        head = s3.head_object(Bucket=bucket, Key="k")
        assert (head["ContentLength"], head["ETag"]) == (size, put["ETag"])
        assert head["LastModified"] == found["LastModified"]
        assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)

    def test_a_put_replaces_all_of_an_object(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"one", ContentType="a/b", Metadata={"x": "y"})
        s3.put_object(Bucket=bucket, Key="k", Body=b"two!")
        found = s3.get_object(Bucket=bucket, Key="k")
        assert found["Body"].read() == b"two!"
        assert (found["ContentType"], found["Metadata"]) == ("binary/octet-stream", {})

    def test_delete_is_the_same_whether_there_was_one_or_not(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        for _ in range(2):
            assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert error_of(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)
        assert error_of(s3.head_object, Bucket=bucket, Key="k") == ("404", 404)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []

    def test_headers_and_metadata_come_back(self, s3: Any, bucket: str) -> None:
        headers = {
            "ContentType": "text/plain; charset=utf-8",
            "CacheControl": "max-age=60",
            "ContentDisposition": 'attachment; filename="a b.txt"',
            "ContentEncoding": "gzip",
            "ContentLanguage": "de",
        }
        expires = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
        metadata = {"colour": "blue; green", "mtime": "1700000000.5"}
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Expires=expires, Metadata=metadata, **headers)
        for found in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
            assert {name: found[name] for name in headers} == headers
            assert found["Metadata"] == metadata
            assert found["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"

    def test_a_gzipped_body_is_kept_as_it_is(self, s3: Any, bucket: str) -> None:
        data = b"\x1f\x8b not really gzip"
        s3.put_object(Bucket=bucket, Key="k", Body=data, ContentEncoding="gzip")
        found = s3.get_object(Bucket=bucket, Key="k")
        assert (found["Body"].read(), found["ContentEncoding"]) == (data, "gzip")

    def test_response_headers_can_be_overridden(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        found = s3.get_object(
            Bucket=bucket, Key="k", ResponseContentType="x/y", ResponseContentDisposition="inline"
        )
        assert (found["ContentType"], found["ContentDisposition"]) == ("x/y", "inline")

    @pytest.mark.parametrize("size", [1000, 9 * MIB])
    def test_ranges(self, s3: Any, bucket: str, size: int) -> None:
        """Of an inline object, and of one whose ranges begin and end inside blobs."""
        data = random.Random(7).randbytes(size)
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        middle = size // 2
        for spec, first, last in (
            ("0-0", 0, 0),
            (f"{middle}-{middle + 99}", middle, middle + 99),
            (f"{size - 10}-", size - 10, size - 1),
            ("-17", size - 17, size - 1),
            (f"-{size * 2}", 0, size - 1),
            (f"0-{size * 2}", 0, size - 1),
            (f"{size - 1}-{size - 1}", size - 1, size - 1),
        ):
            found = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={spec}")
            assert found["ResponseMetadata"]["HTTPStatusCode"] == 206, spec
            assert found["ContentRange"] == f"bytes {first}-{last}/{size}", spec
            assert found["Body"].read() == data[first : last + 1], spec
            head = s3.head_object(Bucket=bucket, Key="k", Range=f"bytes={spec}")
            assert (head["ContentLength"], head["ContentRange"]) == (
                last - first + 1,
                found["ContentRange"],
            ), spec

    def test_ranges_that_cannot_be(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
        for spec in ("bytes=10-", "bytes=10-20", "bytes=-0", f"bytes={10**25}-"):
            assert error_of(s3.get_object, Bucket=bucket, Key="k", Range=spec) == ("InvalidRange", 416), spec
        for spec in ("bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=", "bytes=a-b"):
            found = s3.get_object(Bucket=bucket, Key="k", Range=spec)
            assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Body"].read()) == (200, b"0123456789")

    def test_a_range_of_nothing(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
        assert error_of(s3.get_object, Bucket=bucket, Key="k", Range="bytes=0-") == ("InvalidRange", 416)

    @pytest.mark.parametrize(
        "key", ["a b", "a+b", "a%2Fb", "a/../b", "ümlaut/日本", "a//b", "/a", "a/", "#?&=;"]
    )
    def test_keys_are_opaque(self, s3: Any, bucket: str, key: str) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == [key]
        s3.delete_object(Bucket=bucket, Key=key)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []

    def test_errors_name_the_reason(self, s3: Any, bucket: str) -> None:
        assert error_of(s3.get_object, Bucket=bucket, Key="none") == ("NoSuchKey", 404)
        assert error_of(s3.get_object, Bucket="no-such-bucket", Key="k") == ("NoSuchBucket", 404)
        assert error_of(s3.put_object, Bucket="no-such-bucket", Key="k", Body=b"x") == ("NoSuchBucket", 404)
        assert error_of(s3.delete_object, Bucket="no-such-bucket", Key="k") == ("NoSuchBucket", 404)
        assert error_of(s3.put_object, Bucket=bucket, Key="k" * 1025, Body=b"") == ("KeyTooLongError", 400)

    def test_wrong_credentials(self, gateway: Gateway, bucket: str) -> None:
        stranger = gateway.boto(access_key="AKIDNOBODY")
        assert error_of(stranger.list_objects_v2, Bucket=bucket) == ("InvalidAccessKeyId", 403)
        forger = gateway.boto(secret_key="wrong")
        assert error_of(forger.list_objects_v2, Bucket=bucket) == ("SignatureDoesNotMatch", 403)

    def test_wrong_region_says_the_right_one(self, gateway: Gateway, bucket: str) -> None:
        """SDKs read Region from the error and ask again; here they are kept from it to see the answer."""
        lost = gateway.boto(region_name="us-east-1")
        with pytest.raises(ClientError) as caught:
            lost.list_buckets()
        error: Any = caught.value.response["Error"]
        assert error["Region"] == REGION


class TestConditions:
    def test_reads(self, s3: Any, bucket: str) -> None:
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
        for call in (s3.get_object, s3.head_object):
            assert call(Bucket=bucket, Key="k", IfMatch=etag)["ETag"] == etag
            assert call(Bucket=bucket, Key="k", IfNoneMatch='"other"')["ETag"] == etag
            assert error_of(call, Bucket=bucket, Key="k", IfMatch='"other"')[1] == 412
            assert error_of(call, Bucket=bucket, Key="k", IfNoneMatch=etag) == ("304", 304)
            assert error_of(call, Bucket=bucket, Key="k", IfNoneMatch="*") == ("304", 304)

    def test_reads_by_time(self, s3: Any, bucket: str) -> None:
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
        modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
        before, after = modified - timedelta(seconds=1), modified + timedelta(seconds=1)
        for call in (s3.get_object, s3.head_object):
            for arguments in ({"IfModifiedSince": before}, {"IfUnmodifiedSince": modified}):
                assert call(Bucket=bucket, Key="k", **arguments)["ETag"] == etag
            for since in (modified, after):
                assert error_of(call, Bucket=bucket, Key="k", IfModifiedSince=since) == ("304", 304)
            assert error_of(call, Bucket=bucket, Key="k", IfUnmodifiedSince=before)[1] == 412
            # An ETag is asked first; only where there is none does the time count.
            assert call(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=before)["ETag"] == etag
            assert error_of(call, Bucket=bucket, Key="k", IfNoneMatch=etag, IfModifiedSince=before) == (
                "304",
                304,
            )

    def test_create_only(self, s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
        second = {"Bucket": bucket, "Key": "k", "Body": b"second", "IfNoneMatch": "*"}
        assert error_of(s3.put_object, **second) == ("PreconditionFailed", 412)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"
        s3.delete_object(Bucket=bucket, Key="k")
        s3.put_object(**second)

    def test_replace_what_was_read(self, s3: Any, bucket: str) -> None:
        assert error_of(s3.put_object, Bucket=bucket, Key="k", Body=b"x", IfMatch='"a"') == ("NoSuchKey", 404)
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
        newer = s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)["ETag"]
        stale = {"Bucket": bucket, "Key": "k", "Body": b"3", "IfMatch": etag}
        assert error_of(s3.put_object, **stale) == ("PreconditionFailed", 412)
        s3.put_object(Bucket=bucket, Key="k", Body=b"4", IfMatch=newer)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"4"

    def test_large_objects_too(self, s3: Any, bucket: str) -> None:
        """The bytes of a refused write were stored before it was refused; nothing may show of them."""
        s3.put_object(Bucket=bucket, Key="k", Body=b"small")
        large = {"Bucket": bucket, "Key": "k", "Body": FIRST_PART, "IfNoneMatch": "*"}
        assert error_of(s3.put_object, **large) == ("PreconditionFailed", 412)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"small"

    def test_deletes(self, s3: Any, bucket: str) -> None:
        etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
        s3.put_object(Bucket=bucket, Key="k", Body=b"2")
        assert error_of(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag) == ("PreconditionFailed", 412)
        etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
        s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []


# -- listing ----------------------------------------------------------------------------------------

TREE = ("a", "a/", "a/b", "a/b/c", "a/d", "b", "b/c/d/e", "c//d", "é", "z z", "z+z")


class TestListing:
    def list_all(self, s3: Any, call: str, bucket: str, **arguments: Any) -> tuple[list[str], list[str]]:
        keys: list[str] = []
        prefixes: list[str] = []
        for page in s3.get_paginator(call).paginate(Bucket=bucket, **arguments):
            keys += keys_of(page)
            prefixes += prefixes_of(page)
        return keys, prefixes

    @pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
    @pytest.mark.parametrize("page", [1, 2, 3, 1000])
    def test_prefix_and_delimiter_give_the_same_with_any_page_size(
        self, s3: Any, bucket: str, call: str, page: int
    ) -> None:
        fill(s3, bucket, *TREE)
        paging = {"PaginationConfig": {"PageSize": page}}
        in_order = sorted(TREE, key=str.encode)
        assert self.list_all(s3, call, bucket, **paging) == (in_order, [])
        for arguments, keys, prefixes in (
            ({"Prefix": "a/"}, ["a/", "a/b", "a/b/c", "a/d"], []),
            ({"Prefix": "nothing"}, [], []),
            ({"Delimiter": "/"}, ["a", "b", "z z", "z+z", "é"], ["a/", "b/", "c/"]),
            ({"Delimiter": "/", "Prefix": "a/"}, ["a/", "a/b", "a/d"], ["a/b/"]),
            ({"Delimiter": "/", "Prefix": "a/b"}, ["a/b"], ["a/b/"]),
            ({"Delimiter": "/", "Prefix": "c/"}, [], ["c//"]),
            ({"Delimiter": "c/d"}, [k for k in in_order if "c/d" not in k], ["b/c/d"]),
            ({"Delimiter": " "}, [k for k in in_order if " " not in k], ["z "]),
        ):
            assert self.list_all(s3, call, bucket, **arguments, **paging) == (keys, prefixes), arguments

    def test_pages_are_full_and_say_what_they_hold(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, *TREE)
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=3, Delimiter="/")
        assert keys_of(page) + prefixes_of(page) == ["a", "b", "a/"]
        assert (page["KeyCount"], page["MaxKeys"], page["IsTruncated"]) == (3, 3, True)
        assert (page["Name"], page["Delimiter"], page["EncodingType"]) == (bucket, "/", "url")
        last = s3.list_objects_v2(
            Bucket=bucket, MaxKeys=9, Delimiter="/", ContinuationToken=page["NextContinuationToken"]
        )
        assert prefixes_of(last) == ["b/", "c/"] and not last["IsTruncated"]
        assert "NextContinuationToken" not in last

    def test_a_page_that_is_exactly_full_is_not_truncated(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "a", "b", "c")
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=3)
        assert (keys_of(page), page["IsTruncated"]) == (["a", "b", "c"], False)

    def test_start_after_and_marker_are_exclusive_and_need_not_exist(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "a", "b", "c")
        for name, after, keys in (
            ("b", "b", ["c"]),
            ("between", "bb", ["c"]),
            ("before", "A", ["a", "b", "c"]),
            ("end", "c", []),
        ):
            assert keys_of(s3.list_objects_v2(Bucket=bucket, StartAfter=after)) == keys, name
            assert keys_of(s3.list_objects(Bucket=bucket, Marker=after)) == keys, name

    def test_v1_gives_the_next_marker_with_a_delimiter(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, *TREE)
        page = s3.list_objects(Bucket=bucket, MaxKeys=2, Delimiter="/")
        assert page["IsTruncated"] and page["NextMarker"] == "a/"
        page = s3.list_objects(Bucket=bucket, MaxKeys=2, Delimiter="/", Marker=page["NextMarker"])
        assert keys_of(page) + prefixes_of(page) == ["b", "b/"]

    def test_order_is_that_of_bytes(self, s3: Any, bucket: str) -> None:
        keys = ["a", "A", "a!", "a-", "a/", "a0", "aa", "ä", "é", "ｚ", "\U00010000", "~"]
        fill(s3, bucket, *keys)
        listed = keys_of(s3.list_objects_v2(Bucket=bucket))
        assert listed == sorted(keys, key=str.encode)
        # Not the order of UTF-16, in which the last two would change places.
        assert listed.index("ｚ") < listed.index("\U00010000")

    def test_special_characters(self, s3: Any, bucket: str) -> None:
        keys = ["a\nb", "a\rb", "a\tb", "a\x01b", "a&b<c>\"'", "a%20b", "a+b c", "\ufffe", "\x7f"]
        fill(s3, bucket, *keys)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == sorted(keys, key=str.encode)
        assert keys_of(s3.list_objects(Bucket=bucket)) == sorted(keys, key=str.encode)
        page = s3.list_objects_v2(Bucket=bucket, Prefix="a&", Delimiter="<")
        assert (page["Prefix"], page["Delimiter"], prefixes_of(page)) == ("a&", "<", ["a&b<"])

    def test_entries_say_what_head_says(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "key")
        head = s3.head_object(Bucket=bucket, Key="key")
        entry = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
        assert (entry["ETag"], entry["Size"], entry["StorageClass"]) == (head["ETag"], 3, "STANDARD")
        assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]
        assert entry["Owner"]["ID"]
        assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
        assert "Owner" in s3.list_objects(Bucket=bucket)["Contents"][0]

    def test_more_than_a_page(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        """1,203 keys: the server's own limit of 1,000 applies whatever is asked for."""
        keys = [f"k{number:05d}" for number in range(1203)]

        async def put_all() -> None:
            handle = gateway.client.bucket(bucket)
            for key in keys:
                await handle.put(key, b"")

        gateway.run(put_all())
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=100_000)
        assert (keys_of(page), page["MaxKeys"], page["IsTruncated"]) == (keys[:1000], 1000, True)
        assert self.list_all(s3, "list_objects_v2", bucket) == (keys, [])
        assert self.list_all(s3, "list_objects", bucket) == (keys, [])
        quiet = {"Objects": [{"Key": key} for key in keys[:1000]], "Quiet": True}
        assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete=quiet)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == keys[1000:]

    def test_a_listing_sees_every_write_before_it(self, s3: Any, bucket: str) -> None:
        for number in range(20):
            s3.put_object(Bucket=bucket, Key=f"k{number:02}", Body=b"")
            assert len(keys_of(s3.list_objects_v2(Bucket=bucket))) == number + 1
        for number in range(20):
            s3.delete_object(Bucket=bucket, Key=f"k{number:02}")
            assert len(keys_of(s3.list_objects_v2(Bucket=bucket))) == 19 - number


class TestDeleteObjects:
    def test_each_key_has_its_own_result(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "a", "b", "c", "ü &<")
        entries = [
            {"Key": "a"},
            {"Key": "none"},
            {"Key": "b", "ETag": '"other"'},
            {"Key": "c", "VersionId": "v1"},
            {"Key": "ü &<"},
            {"Key": "k" * 1025},
        ]
        result = s3.delete_objects(Bucket=bucket, Delete={"Objects": entries})
        assert [entry["Key"] for entry in result["Deleted"]] == ["a", "none", "ü &<"]
        assert [(entry["Key"][:5], entry["Code"]) for entry in result["Errors"]] == [
            ("b", "PreconditionFailed"),
            ("c", "NoSuchVersion"),
            ("kkkkk", "KeyTooLongError"),
        ]
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == ["b", "c"]

    def test_bounds(self, s3: Any, bucket: str) -> None:
        for entries in ([], [{"Key": "k"}] * 1001):
            call = {"Bucket": bucket, "Delete": {"Objects": entries}}
            assert error_of(s3.delete_objects, **call) == ("MalformedXML", 400), len(entries)


# -- multipart --------------------------------------------------------------------------------------


class TestMultipart:
    def begin(self, s3: Any, bucket: str, key: str = "k", **arguments: Any) -> dict[str, str]:
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)
        return {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}

    def send(self, s3: Any, upload: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
        etag = s3.upload_part(**upload, PartNumber=number, Body=data)["ETag"]
        assert etag == f'"{hashlib.md5(data).hexdigest()}"'
        return {"PartNumber": number, "ETag": etag}

    def test_transfer_manager_up_and_down(self, s3: Any, bucket: str) -> None:
        data = random.Random(2).randbytes(21 * MIB + 5)
        config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=5 * MIB)
        extra = {"ContentType": "a/b", "Metadata": {"x": "y"}}
        s3.upload_fileobj(io.BytesIO(data), bucket, "k", Config=config, ExtraArgs=extra)
        head = s3.head_object(Bucket=bucket, Key="k")
        digests = [hashlib.md5(data[at : at + 5 * MIB]).digest() for at in range(0, len(data), 5 * MIB)]
        assert head["ETag"] == f'"{hashlib.md5(b"".join(digests)).hexdigest()}-5"'
        assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (
            len(data),
            "a/b",
            {"x": "y"},
        )
        found = io.BytesIO()
        s3.download_fileobj(bucket, "k", found, Config=config)
        assert found.getvalue() == data
        middle = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={5 * MIB - 9}-{10 * MIB + 9}")
        assert middle["Body"].read() == data[5 * MIB - 9 : 10 * MIB + 10]
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)

    def test_parts_are_invisible_until_complete(self, s3: Any, bucket: str) -> None:
        upload = self.begin(s3, bucket)
        parts = [self.send(s3, upload, 1, FIRST_PART), self.send(s3, upload, 2, b"end")]
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []
        assert error_of(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)
        done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        assert (done["Bucket"], done["Key"]) == (bucket, "k")
        assert done["ETag"] == s3.head_object(Bucket=bucket, Key="k")["ETag"]
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST_PART + b"end"

    def test_completing_twice_gives_the_same(self, s3: Any, bucket: str) -> None:
        """SDKs repeat a completion whose answer was lost."""
        upload = self.begin(s3, bucket)
        parts = [self.send(s3, upload, 1, b"all of it")]
        first = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        second = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        assert first["ETag"] == second["ETag"]
        assert error_of(s3.abort_multipart_upload, **upload) == ("NoSuchUpload", 404)
        fill(s3, bucket, "k")
        again = {"MultipartUpload": {"Parts": parts}}
        assert error_of(s3.complete_multipart_upload, **upload, **again) == ("NoSuchUpload", 404)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"

    def test_a_part_is_replaced_and_any_selection_completes(self, s3: Any, bucket: str) -> None:
        upload = self.begin(s3, bucket)
        self.send(s3, upload, 5, b"old")
        first = self.send(s3, upload, 2, FIRST_PART)
        self.send(s3, upload, 3, b"left out")
        last = self.send(s3, upload, 5, b"new")
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [first, last]})
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST_PART + b"new"

    def test_completions_that_are_refused_change_nothing(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        upload = self.begin(s3, bucket)
        small, last = self.send(s3, upload, 1, b"small"), self.send(s3, upload, 2, b"last")
        forged = {"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}
        odd = {"PartNumber": 1, "ETag": '"not hexadecimal"'}
        for name, parts, expected in (
            ("too small", [small, last], ("EntityTooSmall", 400)),
            ("out of order", [last, small], ("InvalidPartOrder", 400)),
            ("twice", [last, last], ("InvalidPartOrder", 400)),
            ("other ETag", [forged], ("InvalidPart", 400)),
            ("no ETag", [odd], ("InvalidPart", 400)),
            ("never uploaded", [small, {**last, "PartNumber": 9}], ("InvalidPart", 400)),
            ("none", [], ("MalformedXML", 400)),
        ):
            call = {"MultipartUpload": {"Parts": parts}}
            assert error_of(s3.complete_multipart_upload, **upload, **call) == expected, name
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"
        assert [part["Size"] for part in s3.list_parts(**upload)["Parts"]] == [5, 4]
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [last]})
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"last"

    def test_completion_under_a_condition(self, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        upload = self.begin(s3, bucket)
        call = {"MultipartUpload": {"Parts": [self.send(s3, upload, 1, b"part")]}}
        refused = ("PreconditionFailed", 412)
        assert error_of(s3.complete_multipart_upload, **upload, **call, IfNoneMatch="*") == refused
        assert error_of(s3.complete_multipart_upload, **upload, **call, IfMatch='"other"') == refused
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"
        etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
        s3.complete_multipart_upload(**upload, **call, IfMatch=etag)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"part"

    def test_abort(self, s3: Any, bucket: str) -> None:
        upload = self.begin(s3, bucket)
        part = self.send(s3, upload, 1, b"x")
        assert s3.abort_multipart_upload(**upload)["ResponseMetadata"]["HTTPStatusCode"] == 204
        gone = ("NoSuchUpload", 404)
        assert error_of(s3.upload_part, **upload, PartNumber=1, Body=b"x") == gone
        assert error_of(s3.list_parts, **upload) == gone
        assert error_of(s3.abort_multipart_upload, **upload) == gone
        call = {"MultipartUpload": {"Parts": [part]}}
        assert error_of(s3.complete_multipart_upload, **upload, **call) == gone
        s3.delete_bucket(Bucket=bucket)

    def test_parts_are_listed_in_pages(self, s3: Any, bucket: str) -> None:
        upload = self.begin(s3, bucket)
        numbers = [1, 2, 7, 300, 10_000]
        for number in reversed(numbers):
            self.send(s3, upload, number, b"x" * (number % 10))
        pages = s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2})
        listed = [part for page in pages for part in page["Parts"]]
        assert [part["PartNumber"] for part in listed] == numbers
        assert [part["Size"] for part in listed] == [number % 10 for number in numbers]
        assert listed[1]["ETag"] == f'"{hashlib.md5(b"xx").hexdigest()}"'
        for number in (0, 10_001):
            refused = {**upload, "PartNumber": number, "Body": b""}
            assert error_of(s3.upload_part, **refused) == ("InvalidArgument", 400), number

    def test_uploads_are_listed_in_pages(self, s3: Any, bucket: str) -> None:
        uploads = [self.begin(s3, bucket, key) for key in ("b", "a", "a/1", "c", "a", "ü&")]
        expected = sorted((u["Key"].encode(), u["UploadId"]) for u in uploads)
        paginator = s3.get_paginator("list_multipart_uploads")
        for size in (1, 2, 1000):
            pages = paginator.paginate(Bucket=bucket, PaginationConfig={"PageSize": size})
            listed = [entry for page in pages for entry in page["Uploads"]]
            assert [(entry["Key"].encode(), entry["UploadId"]) for entry in listed] == expected, size
        assert len(s3.list_multipart_uploads(Bucket=bucket, Prefix="a/")["Uploads"]) == 1
        after = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")["Uploads"]
        assert [entry["Key"] for entry in after] == ["a/1", "b", "c", "ü&"]

    def test_an_open_upload_does_not_keep_a_bucket(self, s3: Any, bucket: str) -> None:
        """Whichever it is, the upload must not outlive the bucket into one of the same name."""
        upload = self.begin(s3, bucket)
        s3.delete_bucket(Bucket=bucket)
        s3.create_bucket(Bucket=bucket)
        assert error_of(s3.upload_part, **upload, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)

    def test_unknown_uploads(self, s3: Any, bucket: str) -> None:
        for upload_id in ("x", "0" * 32, "../../x", "0" * 31 + "\x00"):
            upload = {"Bucket": bucket, "Key": "k", "UploadId": upload_id}
            assert error_of(s3.list_parts, **upload)[1] in (400, 404), upload_id
            assert error_of(s3.upload_part, **upload, PartNumber=1, Body=b"")[1] in (400, 404), upload_id
            assert error_of(s3.abort_multipart_upload, **upload)[1] in (400, 404), upload_id

    def test_an_upload_belongs_to_its_key(self, s3: Any, bucket: str) -> None:
        upload = self.begin(s3, bucket, "mine")
        other = {**upload, "Key": "yours"}
        assert error_of(s3.upload_part, **other, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)
        assert error_of(s3.list_parts, **other) == ("NoSuchUpload", 404)


# -- checksums --------------------------------------------------------------------------------------


def checksum(algorithm: str, data: bytes) -> str:
    digests = {
        "CRC32": lambda: binascii.crc32(data).to_bytes(4, "big"),
        "SHA1": lambda: hashlib.sha1(data).digest(),
        "SHA256": lambda: hashlib.sha256(data).digest(),
    }
    return base64.b64encode(digests[algorithm]()).decode()


@pytest.mark.parametrize("prefix", ["\n", "ü &", "a/b+c d"])
def test_prefix_comes_back_in_both_listings(s3: Any, bucket: str, prefix: str) -> None:
    fill(s3, bucket, f"{prefix}k")
    for page in (
        s3.list_objects(Bucket=bucket, Prefix=prefix),
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix),
    ):
        assert (page["Prefix"], keys_of(page)) == (prefix, [f"{prefix}k"])


def test_content_encoding_is_the_object_s_alone(s3: Any, bucket: str) -> None:
    for sent, kept in (
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate, gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("aws-chunked, aws-chunked", None),
    ):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", ContentEncoding=sent)
        assert s3.head_object(Bucket=bucket, Key="k").get("ContentEncoding") == kept


def test_who_is_unknown_cannot_choose_headers_of_the_answer(gateway: Gateway, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"k", ACL="public-read")
    url = f"{gateway.url}/{bucket}/k"
    assert fetch(url) == (200, b"k")
    status, body = fetch(f"{url}?response-content-type=text%2Fhtml")
    assert status == 400 and b"InvalidRequest" in body
    call = {"Params": {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/html"}}
    assert fetch(s3.generate_presigned_url("get_object", **call)) == (200, b"k")


class TestChecksums:
    DATA = b"checked" * 1000

    def test_the_default_is_kept_and_given_back(self, s3: Any, bucket: str) -> None:
        """boto3 sends CRC32 by itself and verifies what comes back."""
        put = s3.put_object(Bucket=bucket, Key="k", Body=self.DATA)
        assert put["ChecksumCRC32"] == checksum("CRC32", self.DATA)
        found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert found["ChecksumCRC32"] == put["ChecksumCRC32"]
        assert found["Body"].read() == self.DATA
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert head["ChecksumCRC32"] == put["ChecksumCRC32"]

    @pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
    @pytest.mark.parametrize("body", ["bytes", "stream"])
    def test_algorithms(self, s3: Any, bucket: str, algorithm: str, body: str) -> None:
        data = io.BytesIO(self.DATA) if body == "stream" else self.DATA
        put = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm=algorithm)
        assert put[f"Checksum{algorithm}"] == checksum(algorithm, self.DATA)
        found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert found["Body"].read() == self.DATA
        assert found[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]

    @pytest.mark.parametrize(
        ("algorithm", "right"), [("CRC32C", "e3069283"), ("CRC64NVME", "ae8b14860a799888")]
    )
    def test_algorithms_that_boto3_cannot_compute(
        self, s3: Any, bucket: str, algorithm: str, right: str
    ) -> None:
        """Without its optional extension boto3 only passes on what the caller has computed.

        The values are the "check" of each algorithm's definition: the CRC of these nine digits.
        """
        name, right = f"Checksum{algorithm}", base64.b64encode(bytes.fromhex(right)).decode()
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"123456789", **{name: right})
        assert put[name] == right
        wrong = ("A" if right[0] != "A" else "B") + right[1:]
        call = {"Bucket": bucket, "Key": "new", "Body": b"123456789", name: wrong}
        assert error_of(s3.put_object, **call) == ("BadDigest", 400)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == ["k"]

    @pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
    def test_a_wrong_checksum_stores_nothing(self, s3: Any, bucket: str, algorithm: str) -> None:
        call = {f"Checksum{algorithm}": checksum(algorithm, b"other")}
        refused = error_of(s3.put_object, Bucket=bucket, Key="k", Body=self.DATA, **call)
        assert refused == ("BadDigest", 400)
        assert keys_of(s3.list_objects_v2(Bucket=bucket)) == []

    def test_content_md5(self, s3: Any, bucket: str) -> None:
        right = base64.b64encode(hashlib.md5(self.DATA).digest()).decode()
        wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
        call = {"Bucket": bucket, "Key": "k", "Body": self.DATA}
        assert error_of(s3.put_object, **call, ContentMD5=wrong) == ("BadDigest", 400)
        s3.put_object(**call, ContentMD5=right)

    def test_parts(self, s3: Any, bucket: str) -> None:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")
        where = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"], "PartNumber": 1}
        part = s3.upload_part(**where, Body=self.DATA, ChecksumAlgorithm="SHA256")
        assert part["ChecksumSHA256"] == checksum("SHA256", self.DATA)
        wrong = {"ChecksumSHA256": checksum("SHA256", b"other")}
        assert error_of(s3.upload_part, **where, Body=b"new", **wrong) == ("BadDigest", 400)
        del where["PartNumber"]
        done = {"ETag": part["ETag"], "PartNumber": 1, "ChecksumSHA256": part["ChecksumSHA256"]}
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [done]})
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == self.DATA


# -- presigned URLs ---------------------------------------------------------------------------------


def fetch(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """A client that knows nothing of S3."""
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class TestPresigned:
    def presign(self, s3: Any, call: str, bucket: str, key: str = "k", **arguments: Any) -> str:
        expires = arguments.pop("ExpiresIn", 60)
        params = {"Bucket": bucket, "Key": key, **arguments}
        return str(s3.generate_presigned_url(call, Params=params, ExpiresIn=expires))

    @pytest.fixture(params=["s3v4", None])
    def signer(self, gateway: Gateway, request: pytest.FixtureRequest) -> Any:
        """Version 4, and boto3's default for URLs, which is Version 2."""
        return gateway.boto(config={"signature_version": request.param} if request.param else {})

    def test_put_then_get(self, signer: Any, s3: Any, bucket: str) -> None:
        status, _ = fetch(self.presign(signer, "put_object", bucket, "ü +/k"), "PUT", b"by URL")
        assert status == 200
        assert s3.get_object(Bucket=bucket, Key="ü +/k")["Body"].read() == b"by URL"
        url = self.presign(signer, "get_object", bucket, "ü +/k", ResponseContentType="a/b")
        assert fetch(url) == (200, b"by URL")
        assert fetch(url, Range="bytes=3-") == (206, b"URL")

    def test_a_url_is_good_for_one_thing(self, gateway: Gateway, signer: Any, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k", "other")
        url = self.presign(signer, "get_object", bucket)
        assert fetch(url)[0] == 200
        assert fetch(url, "PUT", b"x")[0] == 403
        assert fetch(url, "DELETE")[0] == 403
        assert fetch(url.replace("/k?", "/other?"))[0] == 403
        assert fetch(url + "&partNumber=1")[0] == 403
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"

    def test_it_expires(self, gateway: Gateway, signer: Any, s3: Any, bucket: str) -> None:
        fill(s3, bucket, "k")
        url = self.presign(signer, "get_object", bucket, ExpiresIn=60)
        gateway.clock.offset_ms = 62_000
        try:
            status, body = fetch(url)
        finally:
            gateway.clock.offset_ms = 0
        assert status == 403 and b"Request has expired" in body
        assert fetch(url)[0] == 200

    def test_another_host_is_another_url(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        """By Version 4; by Version 2 nobody signs the host."""
        fill(s3, bucket, "k")
        url = self.presign(gateway.boto(config={"signature_version": "s3v4"}), "get_object", bucket)
        assert fetch(url.replace("127.0.0.1", "localhost"))[0] == 403

    def test_what_a_put_must_send_is_signed(self, signer: Any, s3: Any, bucket: str) -> None:
        url = self.presign(
            signer, "put_object", bucket, ContentType="text/plain", ACL="private", Metadata={"a": "b"}
        )
        sent = {"Content-Type": "text/plain", "x-amz-acl": "private", "x-amz-meta-a": "b"}
        for left_out in sent:
            assert fetch(url, "PUT", b"x", **(sent | {left_out: "other"}))[0] == 403
        assert fetch(url, "PUT", b"x", **sent)[0] == 200
        found = s3.head_object(Bucket=bucket, Key="k")
        assert (found["ContentType"], found["Metadata"]) == ("text/plain", {"a": "b"})

    def test_a_part_is_put_by_url(self, signer: Any, s3: Any, bucket: str) -> None:
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        url = self.presign(signer, "upload_part", bucket, UploadId=upload, PartNumber=1)
        assert fetch(url, "PUT", b"part")[0] == 200
        parts = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
        done = {"Parts": [{"PartNumber": 1, "ETag": parts[0]["ETag"]}]}
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=done)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"part"


def test_bodies_wait_for_100_continue(s3: Any, bucket: str) -> None:
    """boto3 sends ``Expect`` with a body and waits for the answer; test_bad_http looks closer."""
    expected: list[Any] = []

    def note(request: Any, **context: Any) -> None:
        expected.append(request.headers["Expect"])

    s3.meta.events.register("before-send.s3.PutObject", note)
    try:
        s3.put_object(Bucket=bucket, Key="k", Body=FIRST_PART)
    finally:
        s3.meta.events.unregister("before-send.s3.PutObject", note)
    assert expected == [b"100-continue"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == FIRST_PART
