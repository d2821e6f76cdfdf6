"""Users, policies and ACLs: who gets in, and who does not. Through boto3, by real gateways."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ssastore.limits import CONFIG_AGE_MS
from tests.s3.gateways import REGION, Gateway

_numbers = itertools.count(1)


def refused(call: Callable[..., Any], code: str = "AccessDenied", **arguments: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    found = caught.value.response["Error"]["Code"]
    # A HEAD has no body to say it in.
    assert found == code or (found, code) == ("403", "AccessDenied"), found


def set_policy(client: Any, bucket: str, *statements: dict[str, Any]) -> None:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))


def statement(bucket: str, action: Any, principal: Any = "*", effect: str = "Allow", **more: Any) -> Any:
    resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": resource, **more}


# -- keys and owners --------------------------------------------------------------------------------


def test_what_a_user_makes_is_his_alone(s3: Any, alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    assert mine in [found["Name"] for found in alice.list_buckets()["Buckets"]]
    assert mine not in [found["Name"] for found in bob.list_buckets()["Buckets"]]
    for stranger in (bob, nobody):
        for call, arguments in (
            (stranger.get_object, {"Key": "k"}),
            (stranger.head_object, {"Key": "k"}),
            (stranger.get_object, {"Key": "absent"}),
            (stranger.put_object, {"Key": "new", "Body": b"x"}),
            (stranger.delete_object, {"Key": "k"}),
            (stranger.list_objects_v2, {}),
            (stranger.head_bucket, {}),
            (stranger.get_bucket_acl, {}),
            (stranger.get_object_acl, {"Key": "k"}),
            (stranger.put_object_acl, {"Key": "k", "ACL": "public-read"}),
            (stranger.put_bucket_policy, {"Policy": "{}"}),
            (stranger.get_bucket_location, {}),
            (stranger.create_multipart_upload, {"Key": "k"}),
            (stranger.delete_bucket, {}),
        ):
            refused(call, Bucket=mine, **arguments)
    result = bob.delete_objects(Bucket=mine, Delete={"Objects": [{"Key": "k"}]})
    assert [found["Code"] for found in result["Errors"]] == ["AccessDenied"]
    refused(nobody.list_buckets)
    refused(nobody.create_bucket, Bucket="nobodys-bucket")
    refused(bob.create_bucket, "BucketAlreadyExists", Bucket=mine)
    refused(alice.create_bucket, "BucketAlreadyOwnedByYou", Bucket=mine)
    assert s3.get_object(Bucket=mine, Key="k")["Body"].read() == b"data", "root may everything"
    assert alice.get_object(Bucket=mine, Key="k")["Body"].read() == b"data"


def test_a_revoked_key_opens_nothing(gateway: Gateway, alice: Any) -> None:
    key = gateway.run(gateway.server._users.create("carol"))
    carol = gateway.boto(access_key=key.key_id, secret_key=key.secret)
    carol.list_buckets()
    gateway.run(gateway.server._users.revoke(key.key_id))
    gateway.clock.offset_ms += CONFIG_AGE_MS
    try:
        refused(carol.list_buckets, "InvalidAccessKeyId")
        alice.list_buckets()
    finally:
        gateway.clock.offset_ms -= CONFIG_AGE_MS


def test_an_unknown_key_is_asked_for_once(gateway: Gateway) -> None:
    stranger = gateway.boto(access_key="SSAUNKNOWN", secret_key="12345678")
    for _ in range(2):
        refused(stranger.list_buckets, "InvalidAccessKeyId")
    assert gateway.server._users._bad["SSAUNKNOWN"][0] is None


def test_a_wrong_secret_of_a_user(gateway: Gateway) -> None:
    key = gateway.run(gateway.server._users.create("dave"))
    refused(gateway.boto(access_key=key.key_id, secret_key="12345678").list_buckets, "SignatureDoesNotMatch")


# -- policies ---------------------------------------------------------------------------------------


def test_a_policy_lets_everybody_read(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    set_policy(alice, mine, statement(mine, "s3:GetObject"))
    for stranger in (bob, nobody):
        assert stranger.get_object(Bucket=mine, Key="k")["Body"].read() == b"data"
        refused(stranger.put_object, Bucket=mine, Key="k", Body=b"x")
        refused(stranger.list_objects_v2, Bucket=mine)
    assert alice.get_bucket_policy_status(Bucket=mine)["PolicyStatus"]["IsPublic"]
    alice.delete_bucket_policy(Bucket=mine)
    refused(bob.get_object, Bucket=mine, Key="k")
    refused(alice.get_bucket_policy, "NoSuchBucketPolicy", Bucket=mine)


@pytest.mark.parametrize(
    "principal", [{"AWS": "arn:aws:iam:::user/bob"}, {"AWS": ["bob"]}, {"CanonicalUser": "bob"}]
)
def test_a_policy_for_one_user(alice: Any, bob: Any, nobody: Any, mine: str, principal: Any) -> None:
    set_policy(alice, mine, statement(mine, ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], principal))
    bob.put_object(Bucket=mine, Key="bobs", Body=b"x")
    assert bob.list_objects_v2(Bucket=mine)["KeyCount"] == 2
    refused(bob.delete_object, Bucket=mine, Key="bobs")
    refused(nobody.get_object, Bucket=mine, Key="k")


def test_an_explicit_deny_wins(alice: Any, bob: Any, mine: str) -> None:
    prefix = {"Resource": f"arn:aws:s3:::{mine}/secret/*"}
    deny = statement(mine, "s3:*", "*", "Deny") | prefix
    set_policy(alice, mine, statement(mine, "s3:*"), deny)
    bob.put_object(Bucket=mine, Key="open/k", Body=b"x")
    for client in (alice, bob):
        refused(client.put_object, Bucket=mine, Key="secret/k", Body=b"x")
    alice.delete_bucket_policy(Bucket=mine)
    alice.put_object(Bucket=mine, Key="secret/k", Body=b"x")


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, True),
        ({"StringEquals": {"s3:prefix": "a"}}, True),
        ({"StringEquals": {"s3:prefix": "b"}}, False),
        ({"StringNotEquals": {"s3:prefix": "b"}}, True),
        ({"StringLike": {"s3:prefix": "?"}, "NumericLessThanEquals": {"s3:max-keys": 10}}, True),
        ({"NumericLessThanEquals": {"s3:max-keys": "9"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"Null": {"s3:delimiter": "true"}}, True),
        ({"Null": {"s3:prefix": "true"}}, False),
        ({"StringEquals": {"aws:username": "bob"}}, True),
        ({"StringEquals": {"s3:delimiter": "/"}}, False),
        ({"StringEqualsIfExists": {"s3:delimiter": "/"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
    ],
)
def test_conditions(alice: Any, bob: Any, mine: str, condition: Any, is_met: bool) -> None:
    set_policy(alice, mine, statement(mine, "s3:ListBucket", Condition=condition))
    call: dict[str, Any] = {"Bucket": mine, "Prefix": "a", "MaxKeys": 10}
    if is_met:
        bob.list_objects_v2(**call)
    else:
        refused(bob.list_objects_v2, **call)


@pytest.mark.parametrize(
    "change",
    [
        {"Version": "2020-01-01"},
        {"Statement": []},
        {"Statement": "no"},
        {"Statement": [{"Effect": "Perhaps"}]},
        {"Action": "ec2:Run"},
        {"Resource": "arn:aws:s3:::another-bucket/*"},
        {"Resource": "k"},
        {"Principal": {"Martian": "x"}},
        {"Condition": {"StringResembles": {"a": "b"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "nowhere"}}},
        {"Condition": {"StringEquals": {"s3:prefix": "${aws:unheard}"}}},
        {"Unheard": 1},
    ],
    ids=str,
)
def test_a_policy_that_is_not_understood_is_refused(alice: Any, mine: str, change: dict[str, Any]) -> None:
    row = statement(mine, "s3:GetObject")
    document = {"Version": "2012-10-17", "Statement": [row]}
    (document if {"Version", "Statement"} & set(change) else row).update(change)
    refused(alice.put_bucket_policy, "MalformedPolicy", Bucket=mine, Policy=json.dumps(document))
    refused(alice.get_bucket_policy, "NoSuchBucketPolicy", Bucket=mine)


@pytest.mark.parametrize("body", ["", "no", "[]", '{"Statement": ' + "[" * 5000])
def test_what_is_no_policy_is_refused(alice: Any, mine: str, body: str) -> None:
    refused(alice.put_bucket_policy, "MalformedPolicy", Bucket=mine, Policy=body)


# -- ACLs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acl", "readers"),
    [("private", ()), ("public-read", ("bob", "nobody")), ("authenticated-read", ("bob",))],
)
def test_canned_acls_of_an_object(
    alice: Any, people: dict[str, Any], mine: str, acl: str, readers: tuple[str, ...]
) -> None:
    alice.put_object(Bucket=mine, Key="by header", Body=b"data", ACL=acl)
    alice.put_object_acl(Bucket=mine, Key="k", ACL=acl)
    for name in ("bob", "nobody"):
        for key in ("k", "by header"):
            if name in readers:
                assert people[name].get_object(Bucket=mine, Key=key)["Body"].read() == b"data"
            else:
                refused(people[name].get_object, Bucket=mine, Key=key)
            refused(people[name].get_object_acl, Bucket=mine, Key=key)
            refused(people[name].put_object, Bucket=mine, Key=key, Body=b"x")


def test_acls_of_a_bucket(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    alice.put_bucket_acl(Bucket=mine, ACL="public-read")
    assert nobody.list_objects_v2(Bucket=mine)["KeyCount"] == 1
    refused(nobody.get_object, Bucket=mine, Key="k")
    refused(nobody.get_object, "NoSuchKey", Bucket=mine, Key="absent")
    alice.put_bucket_acl(Bucket=mine, ACL="public-read-write")
    bob.put_object(Bucket=mine, Key="bobs", Body=b"x")
    found = bob.get_object_acl(Bucket=mine, Key="bobs")
    assert found["Owner"]["ID"] == "bob"
    assert [grant["Grantee"]["ID"] for grant in found["Grants"]] == ["bob"]
    assert alice.get_object(Bucket=mine, Key="bobs")["Body"].read() == b"x", "it is her bucket"
    refused(nobody.get_object, Bucket=mine, Key="bobs")


def test_a_grant_to_one_user(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    found = alice.get_object_acl(Bucket=mine, Key="k")
    grants = [*found["Grants"], {"Grantee": {"Type": "CanonicalUser", "ID": "bob"}, "Permission": "READ"}]
    policy = {"Owner": found["Owner"], "Grants": grants}
    before = alice.head_object(Bucket=mine, Key="k")
    alice.put_object_acl(Bucket=mine, Key="k", AccessControlPolicy=policy)
    assert bob.get_object(Bucket=mine, Key="k")["Body"].read() == b"data"
    refused(nobody.get_object, Bucket=mine, Key="k")
    after = alice.head_object(Bucket=mine, Key="k")
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    for change, code in (
        (
            {"Grants": [{"Grantee": {"Type": "CanonicalUser", "ID": "no-such-user"}, "Permission": "READ"}]},
            "InvalidArgument",
        ),
        (
            {
                "Grants": [
                    {
                        "Grantee": {"Type": "AmazonCustomerByEmail", "EmailAddress": "a@b"},
                        "Permission": "READ",
                    }
                ]
            },
            "UnresolvableGrantByEmailAddress",
        ),
        ({"Owner": {"ID": "bob"}}, "AccessDenied"),
    ):
        refused(alice.put_object_acl, code, Bucket=mine, Key="k", AccessControlPolicy=policy | change)
    refused(alice.put_object_acl, "InvalidArgument", Bucket=mine, Key="k", ACL="no-such-acl")
    assert alice.get_object_acl(Bucket=mine, Key="k")["Grants"] == grants_of(grants)


def grants_of(grants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**grant, "Grantee": grant["Grantee"] | {"DisplayName": grant["Grantee"]["ID"]}} for grant in grants
    ]


# -- Block Public Access and ownership --------------------------------------------------------------


@pytest.fixture
def blocked(alice: Any, mine: str) -> Iterator[Callable[..., None]]:
    def block(*names: str) -> None:
        found = {name: name in names for name in SWITCHES}
        alice.put_public_access_block(Bucket=mine, PublicAccessBlockConfiguration=found)
        shown = alice.get_public_access_block(Bucket=mine)["PublicAccessBlockConfiguration"]
        assert shown == found

    yield block
    alice.delete_public_access_block(Bucket=mine)
    refused(alice.get_public_access_block, "NoSuchPublicAccessBlockConfiguration", Bucket=mine)


SWITCHES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def test_public_acls_are_blocked_and_ignored(alice: Any, nobody: Any, mine: str, blocked: Any) -> None:
    alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
    blocked("IgnorePublicAcls")
    refused(nobody.get_object, Bucket=mine, Key="k")
    blocked("BlockPublicAcls")
    nobody.get_object(Bucket=mine, Key="k")
    for call, arguments in (
        (alice.put_object_acl, {"Key": "k"}),
        (alice.put_object, {"Key": "new", "Body": b"x"}),
        (alice.put_bucket_acl, {}),
    ):
        refused(call, Bucket=mine, ACL="public-read", **arguments)
    alice.put_object_acl(Bucket=mine, Key="k", ACL="private")


def test_public_policies_are_blocked_and_restricted(
    alice: Any, bob: Any, nobody: Any, mine: str, blocked: Any
) -> None:
    set_policy(alice, mine, statement(mine, "s3:GetObject"))
    blocked("RestrictPublicBuckets")
    refused(nobody.get_object, Bucket=mine, Key="k")
    assert alice.get_object(Bucket=mine, Key="k")["Body"].read() == b"data"
    blocked("BlockPublicPolicy")
    with pytest.raises(ClientError):
        set_policy(alice, mine, statement(mine, "s3:ListBucket"))
    set_policy(alice, mine, statement(mine, "s3:ListBucket", {"AWS": "bob"}))
    bob.list_objects_v2(Bucket=mine)


def test_a_bucket_that_takes_no_acls(alice: Any, mine: str) -> None:
    refused(alice.get_bucket_ownership_controls, "OwnershipControlsNotFoundError", Bucket=mine)
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
    assert alice.get_bucket_ownership_controls(Bucket=mine)["OwnershipControls"] == rules
    refused(alice.put_bucket_acl, "AccessControlListNotSupported", Bucket=mine, ACL="public-read")
    alice.delete_bucket_ownership_controls(Bucket=mine)
    alice.put_bucket_acl(Bucket=mine, ACL="public-read")


def test_a_bucket_that_takes_no_acls_drops_no_grant(alice: Any, mine: str) -> None:
    """A client that is told 200 may believe that bob can read."""
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
    given_up = {"ACL": "bucket-owner-full-control"}
    for said in ({"GrantRead": "id=bob"}, {"GrantRead": "id=bob", **given_up}, {"GrantRead": "", **given_up}):
        for call, arguments in (
            (alice.put_object, {"Body": b"x"}),
            (alice.copy_object, {"CopySource": f"{mine}/k"}),
            (alice.create_multipart_upload, {}),
        ):
            refused(call, "AccessControlListNotSupported", Bucket=mine, Key="new", **arguments, **said)
    alice.put_object(Bucket=mine, Key="new", Body=b"x", **given_up)


def test_a_bucket_is_not_made_with_an_acl_that_does_not_count(alice: Any, mine: str) -> None:
    made = {"Bucket": f"{mine}-new", "ObjectOwnership": "BucketOwnerEnforced"}
    for said in ({"ACL": "public-read"}, {"GrantRead": "id=bob"}):
        refused(alice.create_bucket, "InvalidBucketAclWithObjectOwnership", **made, **said)
    alice.create_bucket(**made, ACL="private")


def test_a_copy_needs_the_right_to_read(alice: Any, bob: Any, mine: str) -> None:
    theirs = f"bobs-{next(_numbers)}"
    bob.create_bucket(Bucket=theirs)
    copy: dict[str, Any] = {"Bucket": theirs, "Key": "copy", "CopySource": f"{mine}/k"}
    refused(bob.copy_object, **copy)
    alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
    bob.copy_object(**copy)
    assert bob.get_object(Bucket=theirs, Key="copy")["Body"].read() == b"data"
    assert [g["Grantee"]["ID"] for g in bob.get_object_acl(Bucket=theirs, Key="copy")["Grants"]] == ["bob"]
    refused(alice.get_object, Bucket=theirs, Key="copy")


def test_a_copy_with_a_bad_acl_is_refused_before_its_source_is_read(alice: Any, mine: str) -> None:
    copy: dict[str, Any] = {"Bucket": mine, "Key": "copy", "CopySource": f"{mine}/absent"}
    refused(alice.copy_object, "InvalidArgument", ACL="nobodys", **copy)
    refused(alice.copy_object, "InvalidArgument", GrantRead="id=no-such-user", **copy)
    refused(alice.copy_object, "InvalidRequest", ObjectLockLegalHoldStatus="ON", **copy)
    refused(alice.copy_object, "NoSuchKey", **copy)


def test_every_version_has_an_acl_of_its_own(alice: Any, bob: Any, mine: str) -> None:
    alice.put_bucket_versioning(Bucket=mine, VersioningConfiguration={"Status": "Enabled"})
    secret = alice.put_object(Bucket=mine, Key="v", Body=b"secret")["VersionId"]
    shown = alice.put_object(Bucket=mine, Key="v", Body=b"shown", ACL="public-read")["VersionId"]
    assert bob.get_object(Bucket=mine, Key="v")["Body"].read() == b"shown"
    assert bob.get_object(Bucket=mine, Key="v", VersionId=shown)["Body"].read() == b"shown"
    refused(bob.get_object, Bucket=mine, Key="v", VersionId=secret)
    refused(bob.get_object, Bucket=mine, Key="v", VersionId="nonsense")
    copy: dict[str, Any] = {"Bucket": mine, "Key": "v", "VersionId": secret}
    theirs = f"bobs-{next(_numbers)}"
    bob.create_bucket(Bucket=theirs)
    refused(bob.copy_object, Bucket=theirs, Key="copy", CopySource=copy)
    alice.put_object_acl(ACL="public-read", **copy)
    assert bob.get_object(**copy)["Body"].read() == b"secret"
    alice.put_object_acl(Bucket=mine, Key="v", ACL="private")
    refused(bob.get_object, Bucket=mine, Key="v")
    assert bob.get_object(**copy)["Body"].read() == b"secret"
    alice.delete_object(Bucket=mine, Key="v")
    refused(bob.get_object, Bucket=mine, Key="v")
    alice.put_bucket_acl(Bucket=mine, ACL="public-read")
    refused(bob.get_object, "NoSuchKey", Bucket=mine, Key="v")


def test_a_bucket_of_another_owner_than_expected(alice: Any, s3: Any, mine: str) -> None:
    for client in (alice, s3):
        client.get_object(Bucket=mine, Key="k", ExpectedBucketOwner="alice")
        refused(client.get_object, Bucket=mine, Key="k", ExpectedBucketOwner="bob")
        refused(client.list_objects_v2, Bucket=mine, ExpectedBucketOwner="bob")
        copy: dict[str, Any] = {"Bucket": mine, "Key": "copy", "CopySource": f"{mine}/k"}
        client.copy_object(ExpectedSourceBucketOwner="alice", **copy)
        refused(client.copy_object, ExpectedSourceBucketOwner="bob", **copy)


def test_buckets_are_listed_in_pages(gateway: Gateway) -> None:
    key = gateway.run(gateway.server._users.create("erin"))
    erin = gateway.boto(access_key=key.key_id, secret_key=key.secret)
    names = [f"erins-{letter}" for letter in "abc"]
    for name in names:
        erin.create_bucket(Bucket=name)
    found: list[list[str]] = []
    token: dict[str, str] = {}
    while True:
        page = erin.list_buckets(MaxBuckets=2, **token)
        found.append([bucket["Name"] for bucket in page["Buckets"]])
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert found == [names[:2], names[2:]]
    assert [bucket["Name"] for bucket in erin.list_buckets(Prefix="erins-b")["Buckets"]] == ["erins-b"]
    refused(erin.list_buckets, "InvalidArgument", ContinuationToken="nonsense")
    assert "BucketRegion" not in erin.list_buckets()["Buckets"][0]
    here = erin.list_buckets(BucketRegion=REGION)["Buckets"]
    assert [(bucket["Name"], bucket["BucketRegion"]) for bucket in here] == [(name, REGION) for name in names]
    assert erin.list_buckets(BucketRegion="mars-1")["Buckets"] == []


def test_whose_an_upload_is_by_the_bucket(alice: Any, bob: Any, mine: str) -> None:
    everything = statement(mine, "s3:*")
    set_policy(alice, mine, everything)

    def owners(**options: Any) -> list[str]:
        bob.put_object(Bucket=mine, Key="o", Body=b"x", **options)
        bob.copy_object(Bucket=mine, Key="c", CopySource=f"{mine}/o", **options)
        upload = bob.create_multipart_upload(Bucket=mine, Key="m", **options)["UploadId"]
        part = bob.upload_part(Bucket=mine, Key="m", UploadId=upload, PartNumber=1, Body=b"x")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        bob.complete_multipart_upload(Bucket=mine, Key="m", UploadId=upload, MultipartUpload=parts)
        return [bob.get_object_acl(Bucket=mine, Key=key)["Owner"]["ID"] for key in "ocm"]

    given_up = {"ACL": "bucket-owner-full-control"}
    assert owners() == ["bob"] * 3 and owners(**given_up) == ["bob"] * 3
    for ownership, others in (("BucketOwnerPreferred", "bob"), ("BucketOwnerEnforced", "alice")):
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
        assert owners() == [others] * 3 and owners(**given_up) == ["alice"] * 3
    refused(bob.put_object, "AccessControlListNotSupported", Bucket=mine, Key="o", Body=b"x", ACL="private")
    alice.delete_bucket_ownership_controls(Bucket=mine)
    alice.put_bucket_acl(Bucket=mine, ACL="public-read")
    refused(
        alice.put_bucket_ownership_controls,
        "InvalidBucketAclWithObjectOwnership",
        Bucket=mine,
        OwnershipControls=rules,
    )


def test_who_may_list_a_prefix_may_know_what_is_not_there(alice: Any, bob: Any, mine: str) -> None:
    condition = {"StringLike": {"s3:prefix": "public/*"}}
    set_policy(alice, mine, statement(mine, "s3:ListBucket", Condition=condition))
    refused(bob.get_object, "NoSuchKey", Bucket=mine, Key="public/absent")
    refused(bob.get_object, Bucket=mine, Key="private/absent")


def test_uploads_and_listings_say_whose_they_are(alice: Any, bob: Any, mine: str) -> None:
    alice.put_bucket_acl(Bucket=mine, ACL="public-read-write")
    for name, client in (("alice", alice), ("bob", bob)):
        upload = client.create_multipart_upload(Bucket=mine, Key=name)["UploadId"]
        assert alice.list_parts(Bucket=mine, Key=name, UploadId=upload)["Owner"]["ID"] == name
    for client in (alice, bob):
        uploads = client.list_multipart_uploads(Bucket=mine)["Uploads"]
        assert [(found["Key"], found["Owner"]["ID"]) for found in uploads] == [
            ("alice", "alice"),
            ("bob", "bob"),
        ]
    bob.put_object(Bucket=mine, Key="bobs", Body=b"x")
    for version in (False, True):
        if version:
            status = {"Status": "Enabled"}
            alice.put_bucket_versioning(Bucket=mine, VersioningConfiguration=status)
            for key, writer in (("bobs", alice), ("bobs", bob), ("k", bob)):
                writer.put_object(Bucket=mine, Key=key, Body=b"y")
        expected = {"bobs": "bob", "k": "bob" if version else "alice"}
        assert owners_listed(alice, mine) == [expected] * 2
    versions = alice.list_object_versions(Bucket=mine)["Versions"]
    assert [(found["Key"], found["Owner"]["ID"]) for found in versions] == [
        *[("bobs", name) for name in ("bob", "alice", "bob")],
        *[("k", name) for name in ("bob", "alice")],
    ]
    assert "Owner" not in alice.list_objects_v2(Bucket=mine)["Contents"][0]
    alice.put_bucket_acl(Bucket=mine, ACL="private")
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
    assert owners_listed(alice, mine) == [{"bobs": "alice", "k": "alice"}] * 2
    versions = alice.list_object_versions(Bucket=mine)["Versions"]
    assert {found["Owner"]["ID"] for found in versions} == {"alice"}


def owners_listed(client: Any, bucket: str) -> list[dict[str, str]]:
    """Owner by key, of both kinds of listing."""
    pages = client.list_objects_v2(Bucket=bucket, FetchOwner=True), client.list_objects(Bucket=bucket)
    return [{found["Key"]: found["Owner"]["ID"] for found in page["Contents"]} for page in pages]
