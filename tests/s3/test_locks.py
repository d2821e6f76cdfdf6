"""Object lock through boto3: what is locked stays, whoever asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3.gateways import Gateway
from tests.s3.test_versions import body_of, failure, listed, put, set_versioning

KEY = "k"
_numbers = itertools.count(1)
LATE = datetime(2140, 1, 1, tzinfo=UTC)
LATER = datetime(2140, 1, 2, tzinfo=UTC)
DENIED = ("AccessDenied", 403)


@pytest.fixture
def locking(s3: Any) -> str:
    """A bucket with object lock."""
    name = f"locking-{next(_numbers)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def later(gateway: Gateway) -> Iterator[Any]:
    """Moves the gateway's clock, and back at the end; requests are signed by the true one."""
    yield lambda ms: setattr(gateway.clock, "offset_ms", ms)
    gateway.clock.offset_ms = 0


def retain(s3: Any, bucket: str, mode: str, until: datetime, **arguments: Any) -> None:
    retention = {"Mode": mode, "RetainUntilDate": until}
    s3.put_object_retention(Bucket=bucket, Key=KEY, Retention=retention, **arguments)


def refused(s3: Any, bucket: str, mode: str, until: datetime, **arguments: Any) -> tuple[str, int]:
    retention = {"Mode": mode, "RetainUntilDate": until}
    return failure(s3.put_object_retention, Bucket=bucket, Key=KEY, Retention=retention, **arguments)[:2]


def rule(mode: str = "GOVERNANCE", **period: int) -> dict[str, Any]:
    return {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": mode, **(period or {"Days": 1})}},
    }


class TestConfiguration:
    def test_bucket_that_was_made_with_it(self, s3: Any, locking: str) -> None:
        assert s3.get_bucket_versioning(Bucket=locking)["Status"] == "Enabled"
        got = s3.get_object_lock_configuration(Bucket=locking)["ObjectLockConfiguration"]
        assert got == {"ObjectLockEnabled": "Enabled"}
        for wanted in (rule(), rule("COMPLIANCE", Years=2), {"ObjectLockEnabled": "Enabled"}):
            s3.put_object_lock_configuration(Bucket=locking, ObjectLockConfiguration=wanted)
            assert s3.get_object_lock_configuration(Bucket=locking)["ObjectLockConfiguration"] == wanted
        suspended = {"Bucket": locking, "VersioningConfiguration": {"Status": "Suspended"}}
        assert failure(s3.put_bucket_versioning, **suspended)[:2] == ("InvalidBucketState", 409)

    def test_bucket_that_gets_it_later(self, s3: Any, bucket: str) -> None:
        absent = ("ObjectLockConfigurationNotFoundError", 404)
        assert failure(s3.get_object_lock_configuration, Bucket=bucket)[:2] == absent
        call = {"Bucket": bucket, "ObjectLockConfiguration": rule()}
        assert failure(s3.put_object_lock_configuration, **call)[:2] == ("InvalidBucketState", 409)
        set_versioning(s3, bucket, "Suspended")
        assert failure(s3.put_object_lock_configuration, **call)[:2] == ("InvalidBucketState", 409)
        set_versioning(s3, bucket)
        s3.put_object_lock_configuration(**call)

    @pytest.mark.parametrize(
        ("wanted", "code"),
        [
            (rule("governance"), "MalformedXML"),
            (rule("abc"), "MalformedXML"),
            (rule(Days=1, Years=1), "MalformedXML"),
            (rule(Days=0), "InvalidRetentionPeriod"),
            (rule(Years=-1), "InvalidRetentionPeriod"),
            (rule(Days=36_501), "InvalidRetentionPeriod"),
            (rule() | {"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
            ({"Rule": {}}, "MalformedXML"),
        ],
    )
    def test_what_cannot_be_set(self, s3: Any, locking: str, wanted: dict[str, Any], code: str) -> None:
        call = {"Bucket": locking, "ObjectLockConfiguration": wanted}
        assert failure(s3.put_object_lock_configuration, **call)[:2] == (code, 400)

    def test_bucket_without_locks_takes_none(self, s3: Any, bucket: str) -> None:
        set_versioning(s3, bucket)
        put(s3, bucket, b"data")
        named = {"Bucket": bucket, "Key": KEY}
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": LATE}
        for call, arguments in (
            (s3.get_object_retention, {}),
            (s3.put_object_retention, {"Retention": retention}),
            (s3.get_object_legal_hold, {}),
            (s3.put_object_legal_hold, {"LegalHold": {"Status": "ON"}}),
            (s3.put_object, {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATE}),
            (s3.put_object, {"ObjectLockLegalHoldStatus": "ON"}),
        ):
            assert failure(call, **named, **arguments)[:2] == ("InvalidRequest", 400), call


class TestRetention:
    def test_locked_version_stays(self, s3: Any, locking: str) -> None:
        version = put(s3, locking, b"data")
        assert failure(s3.get_object_retention, Bucket=locking, Key=KEY)[:2] == (
            "NoSuchObjectLockConfiguration",
            404,
        )
        retain(s3, locking, "GOVERNANCE", LATE)
        assert s3.get_object_retention(Bucket=locking, Key=KEY)["Retention"] == {
            "Mode": "GOVERNANCE",
            "RetainUntilDate": LATE,
        }
        named = {"Bucket": locking, "Key": KEY, "VersionId": version}
        assert failure(s3.delete_object, **named)[:2] == DENIED
        marker = s3.delete_object(Bucket=locking, Key=KEY)["VersionId"]
        assert failure(s3.delete_object, **named)[:2] == DENIED
        put(s3, locking, b"other")
        assert failure(s3.delete_object, **named)[:2] == DENIED
        entries = {"Objects": [{"Key": KEY, "VersionId": version}, {"Key": KEY, "VersionId": marker}]}
        answer = s3.delete_objects(Bucket=locking, Delete=entries)
        assert [entry["Code"] for entry in answer["Errors"]] == ["AccessDenied"]
        assert [entry["VersionId"] for entry in answer["Deleted"]] == [marker]
        assert body_of(s3, locking, version) == b"data"
        s3.delete_object(**named, BypassGovernanceRetention=True)
        assert len(listed(s3, locking)) == 1

    def test_compliance_only_grows(self, s3: Any, locking: str) -> None:
        version = put(s3, locking, b"data", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=LATE)
        over = {"BypassGovernanceRetention": True}
        named = {"Bucket": locking, "Key": KEY, "VersionId": version}
        assert failure(s3.delete_object, **named, **over)[:2] == DENIED
        assert refused(s3, locking, "GOVERNANCE", LATER, **over) == DENIED
        assert refused(s3, locking, "COMPLIANCE", LATE - timedelta(days=1), **over) == DENIED
        assert failure(s3.put_object_retention, Bucket=locking, Key=KEY, Retention={}, **over)[:2] == DENIED
        retain(s3, locking, "COMPLIANCE", LATER)
        head = s3.head_object(Bucket=locking, Key=KEY)
        assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", LATER)

    def test_governance_is_overruled_by_who_says_so(self, s3: Any, locking: str) -> None:
        put(s3, locking, b"data", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=LATE)
        over = {"BypassGovernanceRetention": True}
        retain(s3, locking, "GOVERNANCE", LATER)
        assert refused(s3, locking, "GOVERNANCE", LATE) == DENIED
        assert refused(s3, locking, "COMPLIANCE", LATER) == DENIED
        retain(s3, locking, "GOVERNANCE", LATE, **over)
        s3.put_object_retention(Bucket=locking, Key=KEY, Retention={}, **over)
        assert failure(s3.get_object_retention, Bucket=locking, Key=KEY)[0] == "NoSuchObjectLockConfiguration"
        retain(s3, locking, "COMPLIANCE", LATER)

    def test_lock_ends_with_its_time(self, s3: Any, locking: str, later: Any) -> None:
        until = datetime.now(UTC) + timedelta(seconds=300)
        version = put(s3, locking, b"data", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
        named = {"Bucket": locking, "Key": KEY, "VersionId": version}
        assert failure(s3.delete_object, **named)[:2] == DENIED
        later(400_000)
        s3.delete_object(**named)
        assert listed(s3, locking) == []

    def test_default_of_the_bucket(self, s3: Any, locking: str) -> None:
        s3.put_object_lock_configuration(Bucket=locking, ObjectLockConfiguration=rule(Days=2))
        put(s3, locking, b"data")
        s3.copy_object(Bucket=locking, Key="copy", CopySource={"Bucket": locking, "Key": KEY})
        for key in (KEY, "copy"):
            found = s3.get_object_retention(Bucket=locking, Key=key)["Retention"]
            assert found["Mode"] == "GOVERNANCE"
            assert (
                timedelta(days=1, hours=23)
                < found["RetainUntilDate"] - datetime.now(UTC)
                <= timedelta(days=2)
            )
        put(s3, locking, b"data", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=LATE)
        assert s3.get_object_retention(Bucket=locking, Key=KEY)["Retention"]["RetainUntilDate"] == LATE

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ({"ObjectLockMode": "GOVERNANCE"}, "InvalidArgument"),
            ({"ObjectLockRetainUntilDate": LATE}, "InvalidArgument"),
            ({"ObjectLockMode": "governance", "ObjectLockRetainUntilDate": LATE}, "InvalidArgument"),
            (
                {
                    "ObjectLockMode": "GOVERNANCE",
                    "ObjectLockRetainUntilDate": datetime(2015, 1, 1, tzinfo=UTC),
                },
                "InvalidArgument",
            ),
            ({"ObjectLockLegalHoldStatus": "on"}, "InvalidArgument"),
        ],
    )
    def test_puts_that_are_refused(self, s3: Any, locking: str, arguments: dict[str, Any], code: str) -> None:
        assert failure(s3.put_object, Bucket=locking, Key=KEY, Body=b"x", **arguments)[:2] == (code, 400)
        assert listed(s3, locking) == []

    def test_of_an_older_version(self, s3: Any, locking: str) -> None:
        first = put(s3, locking, b"first")
        put(s3, locking, b"second")
        retain(s3, locking, "GOVERNANCE", LATE, VersionId=first)
        assert s3.get_object_retention(Bucket=locking, Key=KEY, VersionId=first)["Retention"]["Mode"]
        assert failure(s3.get_object_retention, Bucket=locking, Key=KEY)[1] == 404
        assert refused(s3, locking, "GOVERNANCE", datetime(2015, 1, 1, tzinfo=UTC)) == (
            "InvalidArgument",
            400,
        )
        assert refused(s3, locking, "free", LATE) == ("MalformedXML", 400)


class TestMultipart:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATE},
            {"ObjectLockLegalHoldStatus": "ON"},
            {},
        ],
    )
    def test_upload_keeps_what_it_was_begun_with(
        self, s3: Any, locking: str, arguments: dict[str, Any]
    ) -> None:
        """The last has none of its own: then it is the bucket's default."""
        s3.put_object_lock_configuration(Bucket=locking, ObjectLockConfiguration=rule())
        upload = s3.create_multipart_upload(Bucket=locking, Key=KEY, **arguments)
        named = {"Bucket": locking, "Key": KEY, "UploadId": upload["UploadId"]}
        part = {"PartNumber": 1, "ETag": s3.upload_part(**named, PartNumber=1, Body=b"data")["ETag"]}
        version = s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [part]})["VersionId"]
        assert failure(s3.delete_object, Bucket=locking, Key=KEY, VersionId=version)[:2] == DENIED


class TestLegalHold:
    def test_held_version_stays_whoever_asks(self, s3: Any, locking: str) -> None:
        version = put(s3, locking, b"data", ObjectLockLegalHoldStatus="ON")
        named = {"Bucket": locking, "Key": KEY, "VersionId": version}
        assert failure(s3.delete_object, **named, BypassGovernanceRetention=True)[:2] == DENIED
        assert s3.head_object(Bucket=locking, Key=KEY)["ObjectLockLegalHoldStatus"] == "ON"
        s3.put_object_legal_hold(Bucket=locking, Key=KEY, LegalHold={"Status": "OFF"})
        assert s3.get_object_legal_hold(Bucket=locking, Key=KEY)["LegalHold"] == {"Status": "OFF"}
        s3.delete_object(**named)

    def test_what_is_no_hold(self, s3: Any, locking: str) -> None:
        put(s3, locking, b"data")
        assert failure(s3.get_object_legal_hold, Bucket=locking, Key=KEY)[:2] == (
            "NoSuchObjectLockConfiguration",
            404,
        )
        call = {"Bucket": locking, "Key": KEY, "LegalHold": {"Status": "abc"}}
        assert failure(s3.put_object_legal_hold, **call)[:2] == ("MalformedXML", 400)
