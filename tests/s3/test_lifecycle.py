"""Lifecycle configurations through boto3, and what becomes of the objects."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from ssastore.core.expiry import Expiry
from ssastore.core.lifecycle import DAY_MS
from tests.s3.gateways import Gateway
from tests.s3.test_versions import failure, listed, put, set_versioning

KEY = "k"


def rule(*names: str, **fields: Any) -> dict[str, Any]:
    """A rule that is enabled; "r" when it has no name."""
    return {"ID": names[0] if names else "r", "Status": "Enabled", **fields}


def configure(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def refused(s3: Any, bucket: str, *rules: dict[str, Any]) -> tuple[str, int]:
    call = {"Bucket": bucket, "LifecycleConfiguration": {"Rules": list(rules)}}
    return failure(s3.put_bucket_lifecycle_configuration, **call)[:2]


DAYS: dict[str, Any] = {"Expiration": {"Days": 1}}


class TestConfiguration:
    def test_none_at_first_and_none_at_last(self, s3: Any, bucket: str) -> None:
        for _ in range(2):
            absent = ("NoSuchLifecycleConfiguration", 404)
            assert failure(s3.get_bucket_lifecycle_configuration, Bucket=bucket)[:2] == absent
            configure(s3, bucket, rule(Prefix="", **DAYS))
            s3.delete_bucket_lifecycle(Bucket=bucket)
            s3.delete_bucket_lifecycle(Bucket=bucket)

    @pytest.mark.parametrize(
        "wanted",
        [
            rule(Prefix="a/", Expiration={"Days": 31}),
            rule(Filter={"Prefix": "a/"}, **DAYS) | {"Status": "Disabled"},
            rule(Filter={"Tag": {"Key": "k", "Value": "v"}}, **DAYS),
            rule(Filter={"ObjectSizeGreaterThan": 500}, **DAYS),
            rule(
                Filter={
                    "And": {"Prefix": " p", "Tags": [{"Key": "k", "Value": ""}], "ObjectSizeLessThan": 9}
                },
                **DAYS,
            ),
            rule(Filter={"Prefix": ""}, Expiration={"Date": datetime(2030, 1, 1, tzinfo=UTC)}),
            rule(Filter={"Prefix": ""}, Expiration={"ExpiredObjectDeleteMarker": True}),
            rule(
                Filter={"Prefix": ""},
                NoncurrentVersionExpiration={"NoncurrentDays": 3, "NewerNoncurrentVersions": 2},
                AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7},
            ),
        ],
    )
    def test_what_is_set_comes_back(self, s3: Any, bucket: str, wanted: dict[str, Any]) -> None:
        other = rule("other", Prefix="other/", Expiration={"Days": 120})
        configure(s3, bucket, wanted, other)
        assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [wanted, other]

    def test_rule_without_an_id_gets_one(self, s3: Any, bucket: str) -> None:
        rules = [{"Status": "Enabled", "Filter": {}, **DAYS}, {"Status": "Enabled", "Prefix": "b", **DAYS}]
        configure(s3, bucket, *rules)
        found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert len({entry["ID"] for entry in found}) == 2

    @pytest.mark.parametrize(
        ("wrong", "code"),
        [
            (rule(Prefix="", Expiration={"Days": 0}), "InvalidArgument"),
            (rule(Prefix="", Expiration={}), "MalformedXML"),
            (rule(Prefix="", Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True}), "MalformedXML"),
            (rule(Prefix="", Expiration={"Date": datetime(2030, 1, 1, 7, tzinfo=UTC)}), "InvalidArgument"),
            (rule(Prefix=""), "InvalidRequest"),
            (rule(**DAYS), "MalformedXML"),
            (rule(Prefix="", Filter={"Prefix": ""}, **DAYS), "MalformedXML"),
            (rule(Filter={"Prefix": "a", "And": {"Prefix": "b"}}, **DAYS), "MalformedXML"),
            (rule(Prefix="", **DAYS) | {"Status": "enabled"}, "MalformedXML"),
            (rule("i" * 256, Prefix="", **DAYS), "InvalidArgument"),
            (rule(Prefix="", NoncurrentVersionExpiration={"NoncurrentDays": 0}), "InvalidArgument"),
            (rule(Prefix="", NoncurrentVersionExpiration={"NewerNoncurrentVersions": 1}), "MalformedXML"),
            (
                rule(
                    Prefix="",
                    NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 101},
                ),
                "InvalidArgument",
            ),
            (rule(Prefix="", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0}), "InvalidArgument"),
            (
                rule(
                    Filter={"Tag": {"Key": "k", "Value": "v"}},
                    AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1},
                ),
                "InvalidRequest",
            ),
            (
                rule(Filter={"ObjectSizeLessThan": 5}, Expiration={"ExpiredObjectDeleteMarker": True}),
                "InvalidRequest",
            ),
            (
                rule(Filter={"And": {"ObjectSizeGreaterThan": 5, "ObjectSizeLessThan": 5}}, **DAYS),
                "InvalidRequest",
            ),
            (
                rule(
                    Filter={"And": {"Tags": [{"Key": "k", "Value": "a"}, {"Key": "k", "Value": "b"}]}}, **DAYS
                ),
                "InvalidRequest",
            ),
        ],
    )
    def test_what_cannot_be_set(self, s3: Any, bucket: str, wrong: dict[str, Any], code: str) -> None:
        assert refused(s3, bucket, wrong) == (code, 400)
        assert refused(s3, bucket, rule("good", Prefix="", **DAYS), wrong) == (code, 400)

    def test_transitions_and_numbers_of_rules(self, s3: Any, bucket: str) -> None:
        wrong = rule(Prefix="", Transitions=[{"Days": 1, "StorageClass": "GLACIER"}])
        assert refused(s3, bucket, wrong) == ("NotImplemented", 501)
        assert refused(s3, bucket) == ("MalformedXML", 400)
        many = [rule(f"r{number}", Prefix="", **DAYS) for number in range(1001)]
        assert refused(s3, bucket, *many) == ("MalformedXML", 400)
        assert refused(s3, bucket, many[0], many[0]) == ("InvalidArgument", 400)

    def test_answers_say_when_an_object_goes(self, s3: Any, bucket: str) -> None:
        configure(s3, bucket, rule("rule 1", Prefix="a/", Expiration={"Days": 3}))
        for answer in (
            s3.put_object(Bucket=bucket, Key="a/1", Body=b""),
            s3.head_object(Bucket=bucket, Key="a/1"),
            s3.get_object(Bucket=bucket, Key="a/1"),
        ):
            found = re.fullmatch(r'expiry-date="(.*)", rule-id="rule%201"', answer["Expiration"])
            assert found
            at = parsedate_to_datetime(found[1])
            assert (
                timedelta(days=3)
                <= at - datetime.now(UTC) + timedelta(minutes=1)
                <= timedelta(days=4, minutes=1)
            )
            assert (at.hour, at.minute, at.second) == (0, 0, 0)
        assert "Expiration" not in s3.put_object(Bucket=bucket, Key="b", Body=b"")
        assert "Expiration" not in s3.head_object(Bucket=bucket, Key="b")


class TestExpiry:
    def test_passes_of_the_days(self, gateway: Gateway, s3: Any, bucket: str) -> None:
        set_versioning(s3, bucket)
        for body in (b"1", b"2"):
            put(s3, bucket, body, "a/1")
        put(s3, bucket, b"", "b")
        configure(
            s3,
            bucket,
            rule("1", Prefix="a/", Expiration={"Days": 1}, NoncurrentVersionExpiration={"NoncurrentDays": 2}),
            rule("2", Filter={"Prefix": "a/"}, Expiration={"ExpiredObjectDeleteMarker": True}),
        )
        expiry = Expiry(gateway.client.objects, gateway.clock, DAY_MS, lambda iid: True)
        told: list[int] = []
        try:
            for days in (0, 2, 5, 5):
                gateway.clock.offset_ms = days * DAY_MS
                gateway.run(expiry.work())
                gateway.clock.offset_ms = 0
                told.append(len(listed(s3, bucket, Prefix="a/")))
        finally:
            gateway.clock.offset_ms = 0
        assert told[0] == 2
        assert told[1] in (2, 3), "a marker, and what was replaced two days ago may be gone"
        assert told[-1] == 0
        assert [row[0] for row in listed(s3, bucket)] == ["b"]


def test_several_conditions_without_and_are_all_to_hold(s3: Any, bucket: str) -> None:
    rules = [rule(Filter={"Prefix": "a", "ObjectSizeLessThan": 5}, **DAYS)]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    (found,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert found["Filter"] == {"And": {"Prefix": "a", "ObjectSizeLessThan": 5}}
