"""Quotas through boto3: buckets are filled to the last byte and object, and not beyond."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ssastore.core.quotas import QuotaUse
from tests.s3.gateways import Gateway

PART = b"p" * (5 << 20)
_TRIES = 8

Limit = Callable[..., QuotaUse]


@pytest.fixture
def limit(gateway: Gateway, bucket: str) -> Limit:
    """Set the bucket's quota."""

    def limit(*, size: int | None = None, objects: int | None = None) -> QuotaUse:
        return gateway.run(gateway.client.objects.quotas.set(bucket, size=size, objects=objects))

    return limit


@pytest.fixture
def used(gateway: Gateway, bucket: str) -> Callable[[], tuple[int, int]]:
    """Bytes and objects that the bucket holds, as its quota counts them."""

    def used() -> tuple[int, int]:
        use = gateway.run(gateway.client.objects.quotas.show(bucket))
        assert use is not None
        return use.used.size, use.used.objects

    return used


def refused(call: Callable[..., Any], **arguments: Any) -> bool:
    """Whether a call is refused for the quota; anything else that fails is raised.

    503 says to try later, which SDKs do: on a busy machine many writers wait long for one another.
    """
    for _ in range(_TRIES):
        try:
            call(**arguments)
        except ClientError as error:
            found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if found[1] == 503:
                continue
            assert found == ("QuotaExceeded", 403), error
            assert "more than its quota allows" in error.response["Error"]["Message"]
            return True
        return False
    raise AssertionError("the server is busy all the time")


def test_objects_fill_a_bucket_to_the_last_one(s3: Any, bucket: str, limit: Limit) -> None:
    limit(objects=10)
    for number in range(10):
        assert not refused(s3.put_object, Bucket=bucket, Key=f"k{number}", Body=b"x")
    assert refused(s3.put_object, Bucket=bucket, Key="one more", Body=b"x")
    assert not refused(s3.put_object, Bucket=bucket, Key="k3", Body=b"another"), "it is there already"
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 10


def test_bytes_fill_a_bucket_to_the_last_one(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    limit(size=1000)
    for number in range(9):
        assert not refused(s3.put_object, Bucket=bucket, Key=f"k{number}", Body=b"x" * 100)
    assert refused(s3.put_object, Bucket=bucket, Key="rest", Body=b"x" * 101)
    assert not refused(s3.put_object, Bucket=bucket, Key="rest", Body=b"x" * 100)
    assert refused(s3.put_object, Bucket=bucket, Key="one more", Body=b"x")
    assert not refused(s3.put_object, Bucket=bucket, Key="empty", Body=b""), "it has no bytes"
    assert used() == (1000, 11)


def test_what_is_deleted_or_becomes_smaller_makes_room(s3: Any, bucket: str, limit: Limit) -> None:
    limit(size=100, objects=2)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 100)
    assert refused(s3.put_object, Bucket=bucket, Key="b", Body=b"x")
    assert not refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x" * 60)
    assert not refused(s3.put_object, Bucket=bucket, Key="b", Body=b"x" * 40)
    assert refused(s3.put_object, Bucket=bucket, Key="b", Body=b"x" * 41)
    s3.delete_object(Bucket=bucket, Key="a")
    assert not refused(s3.put_object, Bucket=bucket, Key="b", Body=b"x" * 100)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    assert not refused(s3.put_object, Bucket=bucket, Key="c", Body=b"x" * 100)


def test_many_writers_fill_it_and_none_gets_beyond(
    gateway: Gateway, s3: Any, bucket: str, limit: Limit, used: Any
) -> None:
    limit(objects=25, size=10_000)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(lambda n: refused(s3.put_object, Bucket=bucket, Key=f"k{n}", Body=b"x" * 10), range(60))
        )
    assert outcomes.count(False) == 25
    assert used() == (250, 25)
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 25


def test_what_was_there_counts_and_stays(s3: Any, bucket: str, limit: Limit) -> None:
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"x" * 10)
    use = limit(size=30, objects=100)
    assert (use.used.size, use.used.objects) == (50, 5)
    assert refused(s3.put_object, Bucket=bucket, Key="k9", Body=b"x")
    assert not refused(s3.put_object, Bucket=bucket, Key="k0", Body=b"x" * 9), "it becomes smaller"
    for number in range(3):
        s3.delete_object(Bucket=bucket, Key=f"k{number}")
    assert not refused(s3.put_object, Bucket=bucket, Key="k9", Body=b"x" * 10)
    assert refused(s3.put_object, Bucket=bucket, Key="k8", Body=b"x")
    limit(size=40, objects=100)
    assert not refused(s3.put_object, Bucket=bucket, Key="k8", Body=b"x" * 10)


def test_an_upload_may_fill_the_bucket(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    limit(size=2 * len(PART) + 10, objects=1)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    parts = []
    for number, body in ((1, PART), (2, PART), (3, b"x" * 10)):
        etag = s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    assert used() == (2 * len(PART) + 10, 0), "parts count while the upload is open"
    assert refused(s3.upload_part, Bucket=bucket, Key="big", UploadId=upload, PartNumber=4, Body=b"x")
    s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    assert used() == (2 * len(PART) + 10, 1)
    assert refused(s3.put_object, Bucket=bucket, Key="small", Body=b"")
    s3.delete_object(Bucket=bucket, Key="big")
    assert used() == (0, 0)


def test_an_upload_that_is_aborted_makes_room(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    limit(size=len(PART))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=PART)
    assert refused(s3.put_object, Bucket=bucket, Key="small", Body=b"x")
    s3.abort_multipart_upload(Bucket=bucket, Key="big", UploadId=upload)
    assert not refused(s3.put_object, Bucket=bucket, Key="small", Body=b"x")
    assert used() == (1, 1)


def test_a_copy_counts_although_it_moves_no_bytes(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    limit(size=250_000)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 100_000)
    source = {"Bucket": bucket, "Key": "a"}
    assert not refused(s3.copy_object, Bucket=bucket, Key="b", CopySource=source)
    assert refused(s3.copy_object, Bucket=bucket, Key="c", CopySource=source)
    assert used() == (200_000, 2)


def test_versions_count_and_marks_of_deletions_do_not(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    limit(objects=4, size=1000)
    versions = [s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10)["VersionId"] for _ in range(3)]
    assert used() == (30, 3)
    s3.delete_object(Bucket=bucket, Key="k")
    assert used() == (30, 3), "it was kept, and a mark has no bytes"
    s3.put_object(Bucket=bucket, Key="other", Body=b"x")
    assert refused(s3.put_object, Bucket=bucket, Key="more", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=versions[0])
    assert not refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x")
    assert used() == (22, 4)


def test_a_full_bucket_with_versions_takes_deletes(s3: Any, bucket: str, limit: Limit, used: Any) -> None:
    """What is kept for a delete is there already, and counts once."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    limit(objects=3, size=30)
    old, new = (s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10)["VersionId"] for _ in range(2))
    s3.put_object(Bucket=bucket, Key="other", Body=b"x" * 10)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"")
    for _ in range(2):
        marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
        assert refused(s3.put_object, Bucket=bucket, Key="more", Body=b""), "nothing is gone"
        s3.delete_object(Bucket=bucket, Key="k", VersionId=marker)
        assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == new
    s3.delete_object(Bucket=bucket, Key="k", VersionId=new)
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == old
    assert not refused(s3.put_object, Bucket=bucket, Key="more", Body=b"x" * 10)
    assert refused(s3.put_object, Bucket=bucket, Key="too much", Body=b"")
    for key in ("k", "other", "more"):
        s3.delete_object(Bucket=bucket, Key=key)
    assert used() == (30, 3)
    versions = s3.list_object_versions(Bucket=bucket)
    for one in [*versions["Versions"], *versions["DeleteMarkers"]]:
        s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
    assert used() == (0, 0)
    assert not refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x" * 30)


def test_tags_and_conditions_go_on_in_a_full_bucket(s3: Any, bucket: str, limit: Limit) -> None:
    limit(objects=1)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"y", IfNoneMatch="*")
    assert refused(s3.put_object, Bucket=bucket, Key="new", Body=b"y", IfNoneMatch="*")


def test_without_a_quota_again_it_takes_everything(
    gateway: Gateway, s3: Any, bucket: str, limit: Limit
) -> None:
    limit(objects=1)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(s3.put_object, Bucket=bucket, Key="new", Body=b"y")
    gateway.run(gateway.client.objects.quotas.clear(bucket))
    assert not refused(s3.put_object, Bucket=bucket, Key="new", Body=b"y")
    assert gateway.run(gateway.client.objects.quotas.show(bucket)) is None
    limit(objects=2)
    assert refused(s3.put_object, Bucket=bucket, Key="third", Body=b"y"), "and all was counted again"


def test_a_bucket_is_deleted_with_its_quota(gateway: Gateway, s3: Any, bucket: str, limit: Limit) -> None:
    limit(objects=1)
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    for number in range(3):
        assert not refused(s3.put_object, Bucket=bucket, Key=f"k{number}", Body=b"x")

    async def buckets() -> list[str]:
        return [use.bucket async for use in gateway.client.objects.quotas.all()]

    assert bucket not in gateway.run(buckets())
