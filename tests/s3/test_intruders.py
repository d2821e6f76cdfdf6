"""Ways in that are none: what somebody without the right tries, and what must stay shut. By real gateways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ssastore.errors import RequestError
from ssastore.s3.server import S3Server
from ssastore.system import SystemRandomness
from tests.s3.gateways import ACCESS_KEY, REGION, SECRET_KEY, Gateway
from tests.s3.raw import Sent, Site, sign
from tests.s3.test_access import refused, set_policy, statement
from tests.s3.test_post import form_of, send


def asked(gateway: Gateway, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Any:
    """The answer to a request of nobody's."""
    framing = (("Content-Length", str(len(body))),) if body or method in ("PUT", "POST") else ()
    return Site.exchange(gateway, Sent(method, target, (("Host", gateway.host), *headers, *framing), body))


# -- owners -----------------------------------------------------------------------------------------


def test_a_bucket_without_an_owner_is_roots(gateway: Gateway, s3: Any, bob: Any, nobody: Any) -> None:
    """As the command line and the Python library make them."""
    name = "without-an-owner"
    gateway.run(gateway.client.create_bucket(name))
    s3.put_object(Bucket=name, Key="k", Body=b"data")
    for stranger in (bob, nobody):
        for call, arguments in (
            (stranger.get_object, {"Key": "k"}),
            (stranger.put_object, {"Key": "k", "Body": b"x"}),
            (stranger.delete_object, {"Key": "k"}),
            (stranger.list_objects_v2, {}),
            (stranger.get_bucket_acl, {}),
            (stranger.put_bucket_acl, {"ACL": "public-read"}),
            (stranger.put_bucket_policy, {"Policy": "{}"}),
            (stranger.delete_bucket, {}),
        ):
            refused(call, Bucket=name, **arguments)


def test_who_owns_a_bucket_is_not_found_out_by_guessing(gateway: Gateway, mine: str) -> None:
    told = [
        asked(gateway, "GET", f"/{mine}/k", ("x-amz-expected-bucket-owner", guess)).element("Message")
        for guess in ("alice", "bob")
    ]
    assert told[0] == told[1]


@pytest.fixture
def other(gateway: Gateway) -> Iterator[Callable[[str], Any]]:
    """Clients of a second gateway of the same cluster, which knows by itself what it has read."""

    async def start() -> tuple[Any, Any]:
        client = gateway.cluster.client(deadline_ms=5000)
        server = S3Server(
            client.objects,
            region=REGION,
            access_keys={ACCESS_KEY: SECRET_KEY.encode()},
            clock=gateway.clock,
            randomness=SystemRandomness(),
        )
        http = server.http_server()
        listener = await gateway._loop.create_server(http, "127.0.0.1", 0)
        return http, listener

    http, listener = gateway.run(start())
    port = listener.sockets[0].getsockname()[1]

    def client(user: str) -> Any:
        key = gateway.run(gateway.server._users.create(user))
        return gateway.boto(access_key=key.key_id, secret_key=key.secret, url=f"http://127.0.0.1:{port}")

    yield client
    gateway.run(stop(http, listener))


async def stop(http: Any, listener: Any) -> None:
    listener.close()
    await http.shutdown(0.2)


def test_a_bucket_that_is_somebody_elses_by_now(
    gateway: Gateway, alice: Any, bob: Any, other: Callable[[str], Any]
) -> None:
    name = "changed-hands"
    bob_elsewhere = other("bob")
    calls: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = (
        (bob_elsewhere.get_object, {"Key": "k"}),
        (bob_elsewhere.put_object, {"Key": "k", "Body": b"x"}),
        (bob_elsewhere.delete_object, {"Key": "k"}),
        (bob_elsewhere.delete_objects, {"Delete": {"Objects": [{"Key": "k"}]}}),
        (bob_elsewhere.list_objects_v2, {}),
        (bob_elsewhere.put_object_tagging, {"Key": "k", "Tagging": {"TagSet": []}}),
        (bob_elsewhere.create_multipart_upload, {"Key": "k"}),
        (bob_elsewhere.get_object_acl, {"Key": "k"}),
        (bob_elsewhere.get_bucket_acl, {}),
        (bob_elsewhere.delete_bucket_policy, {}),
        (bob_elsewhere.put_bucket_acl, {"ACL": "public-read"}),
        (bob_elsewhere.list_object_versions, {}),
        (bob_elsewhere.list_multipart_uploads, {}),
        (bob_elsewhere.copy_object, {"Key": "l", "CopySource": f"{name}/k"}),
    )
    harmless = (
        bob_elsewhere.delete_object,
        bob_elsewhere.delete_objects,
        bob_elsewhere.list_multipart_uploads,
    )
    for call, arguments in calls:
        bob.create_bucket(Bucket=name)
        bob.put_object(Bucket=name, Key="was", Body=b"bobs")
        with suppress(ClientError):
            bob_elsewhere.head_object(
                Bucket=name, Key="was"
            )  # This gateway may still know the bucket before.
        bob_elsewhere.head_object(Bucket=name, Key="was")
        bob.delete_object(Bucket=name, Key="was")
        bob.delete_bucket(Bucket=name)
        alice.create_bucket(Bucket=name)
        alice.put_object(Bucket=name, Key="k", Body=b"hers")
        try:
            found = call(Bucket=name, **arguments)
            # The bucket that was his is empty: nothing is deleted from it, and no upload is open in it.
            assert call in harmless, (arguments, found)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            assert code in ("AccessDenied", "SlowDown", "NoSuchBucket", "NoSuchKey"), (arguments, code)
        assert alice.get_object(Bucket=name, Key="k")["Body"].read() == b"hers"
        assert alice.list_objects_v2(Bucket=name)["KeyCount"] == 1
        alice.delete_object(Bucket=name, Key="k")
        alice.delete_bucket(Bucket=name)


# -- what a right does not carry --------------------------------------------------------------------


def test_who_may_put_may_not_lock(s3: Any, alice: Any, bob: Any) -> None:
    """A lock of others' in COMPLIANCE would be for ever."""
    name = "alices-locks"
    alice.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": "2040-01-01T00:00:00Z"}
    hold = {"ObjectLockLegalHoldStatus": "ON"}
    alice.put_bucket_acl(Bucket=name, ACL="public-read-write")
    for _ in range(2):
        for said in (lock, hold):
            refused(bob.put_object, Bucket=name, Key="k", Body=b"x", **said)
            refused(bob.create_multipart_upload, Bucket=name, Key="k", **said)
            alice.put_object(Bucket=name, Key="source", Body=b"x", ACL="public-read")
            refused(bob.copy_object, Bucket=name, Key="k", CopySource=f"{name}/source", **said)
        bob.put_object(Bucket=name, Key="k", Body=b"x")
        set_policy(alice, name, statement(name, "s3:PutObject"))
    set_policy(alice, name, statement(name, ["s3:PutObject", "s3:PutObjectRetention"]))
    bob.put_object(Bucket=name, Key="k", Body=b"x", **lock)
    refused(bob.put_object, Bucket=name, Key="k", Body=b"x", **hold)


def test_who_may_write_may_not_delete_versions(alice: Any, bob: Any, mine: str) -> None:
    alice.put_bucket_versioning(Bucket=mine, VersioningConfiguration={"Status": "Enabled"})
    version = alice.put_object(Bucket=mine, Key="v", Body=b"kept")["VersionId"]
    alice.put_bucket_acl(Bucket=mine, ACL="public-read-write")
    refused(bob.delete_object, Bucket=mine, Key="v", VersionId=version)
    named = {"Objects": [{"Key": "v", "VersionId": version}]}
    assert bob.delete_objects(Bucket=mine, Delete=named)["Errors"][0]["Code"] == "AccessDenied"
    assert alice.get_object(Bucket=mine, Key="v", VersionId=version)["Body"].read() == b"kept"


def test_acls_count_no_more_where_they_are_disabled(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
    nobody.get_object(Bucket=mine, Key="k")
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
    for stranger in (bob, nobody):
        refused(stranger.get_object, Bucket=mine, Key="k")
    shown = alice.get_object_acl(Bucket=mine, Key="k")["Grants"]
    assert [(grant["Grantee"]["ID"], grant["Permission"]) for grant in shown] == [("alice", "FULL_CONTROL")]


def test_attributes_ask_for_the_object_too(alice: Any, bob: Any, mine: str) -> None:
    call: dict[str, Any] = {"Bucket": mine, "Key": "k", "ObjectAttributes": ["ETag"]}
    set_policy(alice, mine, statement(mine, "s3:GetObjectAttributes"))
    refused(bob.get_object_attributes, **call)
    set_policy(alice, mine, statement(mine, ["s3:GetObject", "s3:GetObjectAttributes"]))
    bob.get_object_attributes(**call)


@pytest.mark.parametrize(
    ("call", "action", "code"),
    [
        (
            "get_bucket_encryption",
            "GetEncryptionConfiguration",
            "ServerSideEncryptionConfigurationNotFoundError",
        ),
        ("get_bucket_replication", "GetReplicationConfiguration", "ReplicationConfigurationNotFoundError"),
        ("get_bucket_accelerate_configuration", "GetAccelerateConfiguration", ""),
        ("get_bucket_notification_configuration", "GetBucketNotification", ""),
        ("get_bucket_website", "GetBucketWebsite", "NoSuchWebsiteConfiguration"),
        ("get_bucket_lifecycle_configuration", "GetLifecycleConfiguration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_cors", "GetBucketCORS", "NoSuchCORSConfiguration"),
        (
            "get_object_lock_configuration",
            "GetBucketObjectLockConfiguration",
            "ObjectLockConfigurationNotFoundError",
        ),
        ("get_public_access_block", "GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("list_multipart_uploads", "ListBucketMultipartUploads", ""),
        ("list_object_versions", "ListBucketVersions", ""),
        ("head_bucket", "ListBucket", ""),
    ],
)
def test_actions_have_the_names_of_aws(
    alice: Any, bob: Any, mine: str, call: str, action: str, code: str
) -> None:
    ask = getattr(bob, call)
    refused(ask, Bucket=mine)
    set_policy(alice, mine, statement(mine, f"s3:{action}"))
    if code:
        refused(ask, code, Bucket=mine)
    else:
        ask(Bucket=mine)


def test_nobody_overrides_the_headers_of_an_answer(gateway: Gateway, alice: Any, bob: Any, mine: str) -> None:
    alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
    answer = asked(gateway, "GET", f"/{mine}/k?response-content-type=text/html")
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    bob.get_object(Bucket=mine, Key="k", ResponseContentType="text/plain")


def test_a_listing_condition_is_about_listings(gateway: Gateway, alice: Any, mine: str) -> None:
    condition = {"StringLike": {"s3:prefix": "public/*"}}
    set_policy(alice, mine, statement(mine, "s3:*", Condition=condition))
    assert asked(gateway, "GET", f"/{mine}?prefix=public/").status == 200
    assert asked(gateway, "GET", f"/{mine}/k?prefix=public/").status == 403
    assert asked(gateway, "DELETE", f"/{mine}/k?prefix=public/").status == 403


def test_a_repeated_header_is_read_as_it_is_signed(
    gateway: Gateway, alice: Any, nobody: Any, mine: str
) -> None:
    deny = statement(mine, "s3:PutObject", effect="Deny")
    deny |= {"Condition": {"StringLike": {"s3:x-amz-acl": "public*"}}}
    set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:PutObjectAcl"]), deny)
    for first, last in (("public-read", "private"), ("private", "public-read")):
        acls = ("x-amz-acl", first), ("x-amz-acl", last)
        assert asked(gateway, "PUT", f"/{mine}/new", *acls, body=b"x").status in (400, 403)
        refused(nobody.get_object, Bucket=mine, Key="new")
    metadata = ("x-amz-meta-a", "1"), ("X-Amz-Meta-A", "2")
    assert asked(gateway, "PUT", f"/{mine}/new", *metadata, body=b"x").status == 200
    assert alice.head_object(Bucket=mine, Key="new")["Metadata"] == {"a": "1,2"}


def test_a_list_may_come_in_several_headers(gateway: Gateway, mine: str) -> None:
    """As some SDKs send it."""
    wanted = [("x-amz-object-attributes", "ETag,ObjectSize")]
    sent = sign(gateway.host, "GET", f"/{mine}/k?attributes=", headers=wanted)
    name = "X-Amz-Object-Attributes"
    answer = Site.exchange(gateway, sent.with_header(name, "ETag").plus((name, "ObjectSize")))
    assert (answer.status, answer.element("ObjectSize")) == (200, "4")


# -- what must not crash ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        {"StringLike": {"aws:SourceIp": "10.*"}},
        {"StringEquals": {"aws:SourceIp": "nowhere"}},
        {"ForAllValues:StringEquals": {"aws:SourceArn": "arn:aws:s3:::x"}},
        {"StringEquals": {"aws:UserAgent": "anybody can say so"}},
    ],
    ids=str,
)
def test_what_restricts_nobody_is_public(alice: Any, mine: str, condition: Any) -> None:
    set_policy(alice, mine, statement(mine, "s3:GetObject", Condition=condition))
    assert alice.get_bucket_policy_status(Bucket=mine)["PolicyStatus"]["IsPublic"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32-le"])
def test_a_policy_is_utf_8(gateway: Gateway, alice: Any, mine: str, encoding: str) -> None:
    document = {"Version": "2012-10-17", "Statement": [statement(mine, "s3:GetObject")]}
    body = json.dumps(document).encode(encoding)
    answer = Site.exchange(gateway, sign(gateway.host, "PUT", f"/{mine}?policy=", body))
    assert (answer.status, answer.code) == (400, "MalformedPolicy")
    alice.head_object(Bucket=mine, Key="k")


def test_a_version_that_is_none_and_a_condition_on_tags(gateway: Gateway, alice: Any, mine: str) -> None:
    condition = {"StringEquals": {"s3:ExistingObjectTag/a": "b"}}
    set_policy(alice, mine, statement(mine, "s3:GetObject*", Condition=condition))
    assert asked(gateway, "GET", f"/{mine}/k?versionId=garbage").status in (400, 403)


def test_origins_that_are_no_text(gateway: Gateway, alice: Any, mine: str) -> None:
    rule = {"AllowedOrigins": ["http://*"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*"]}
    alice.put_bucket_cors(Bucket=mine, CORSConfiguration={"CORSRules": [rule]})
    for origin, header in (("http://\udcff", "x-a"), ("http://a", "x-\udcff"), ("http://\u00e9", "x-\u00e9")):
        headers = ("Origin", origin), ("Access-Control-Request-Headers", header)
        assert asked(gateway, "GET", f"/{mine}/k", *headers).status == 403
        preflight = (*headers, ("Access-Control-Request-Method", "GET"))
        assert asked(gateway, "OPTIONS", f"/{mine}/k", *preflight).status in (200, 400, 403)


def test_cors_headers_that_are_none(gateway: Gateway, mine: str) -> None:
    body = (
        b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
        b"<ExposeHeader>x-a&#13;&#10;Set-Cookie: a=b</ExposeHeader></CORSRule></CORSConfiguration>"
    )
    answer = Site.exchange(gateway, sign(gateway.host, "PUT", f"/{mine}?cors=", body))
    assert answer.status == 400, answer
    assert asked(gateway, "GET", f"/{mine}/k", ("Origin", "http://a")).status == 403


def test_more_grants_than_an_object_can_carry(gateway: Gateway, alice: Any, mine: str) -> None:
    grants = ", ".join(f'id="{"x" * 300}{number}"' for number in range(25))
    headers = [(f"x-amz-grant-{what}", grants) for what in ("read", "read-acp", "write-acp", "full-control")]
    sent = sign(gateway.host, "PUT", f"/{mine}/big", b"x", headers)
    answer = Site.exchange(gateway, sent)
    assert 400 <= answer.status < 500, answer
    alice.head_object(Bucket=mine, Key="k")


def test_an_old_signature(gateway: Gateway, alice: Any, bob: Any, mine: str) -> None:
    """A policy may let a presigned URL live shorter than its signer says."""
    deny = statement(mine, "s3:*", "*", "Deny", Condition={"NumericGreaterThan": {"s3:signatureAge": 60_000}})
    set_policy(alice, mine, statement(mine, "s3:GetObject"), deny)
    url = bob.generate_presigned_url("get_object", Params={"Bucket": mine, "Key": "k"}, ExpiresIn=600)
    target = url.removeprefix(gateway.url)
    assert asked(gateway, "GET", target).status == 200
    gateway.clock.offset_ms += 62_000
    try:
        assert asked(gateway, "GET", target).code == "AccessDenied"
    finally:
        gateway.clock.offset_ms -= 62_000


def test_tags_that_a_copy_does_not_take_are_none(alice: Any, bob: Any, mine: str) -> None:
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    put = statement(mine, ["s3:PutObject", "s3:PutObjectTagging"], Condition=condition)
    set_policy(alice, mine, statement(mine, "s3:GetObject*"), put)
    copy = {"Bucket": mine, "Key": "copy", "CopySource": f"{mine}/k", "Tagging": "security=public"}
    refused(bob.copy_object, **copy)
    bob.copy_object(TaggingDirective="REPLACE", **copy)


def test_tags_are_not_hidden_by_a_copy_that_is_none(gateway: Gateway, alice: Any, mine: str) -> None:
    """A header that an operation does not read must not take its tags out of a policy's sight."""
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "secret"}}
    deny = statement(mine, "s3:PutObject", "*", "Deny", Condition=condition)
    set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:PutObjectTagging"]), deny)
    tags = ("x-amz-tagging", "security=secret")
    copy = ("x-amz-copy-source", f"{mine}/k")
    assert asked(gateway, "POST", f"/{mine}/u?uploads", ("x-amz-tagging", "security=not")).status == 200
    for headers in ([tags], [tags, copy]):
        assert asked(gateway, "POST", f"/{mine}/u?uploads", *headers).code == "AccessDenied"
    fields = {"key": "f", "x-amz-tagging": "security=secret"}
    assert send(gateway, mine, form_of({"key": "f"}, b"data"))[0] == 204
    for form in (fields, fields | {"x-amz-copy-source": f"{mine}/k"}):
        assert send(gateway, mine, form_of(form, b"data"))[0] == 403


def test_tags_are_those_that_an_operation_reads(gateway: Gateway, alice: Any, mine: str) -> None:
    """The ones of PutObjectTagging are in its body: its headers have none."""
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    set_policy(alice, mine, statement(mine, ["s3:GetObject", "s3:PutObjectTagging"], Condition=condition))
    tags = ("x-amz-tagging", "security=public")
    body = b"<Tagging><TagSet><Tag><Key>security</Key><Value>secret</Value></Tag></TagSet></Tagging>"
    assert asked(gateway, "PUT", f"/{mine}/k?tagging", tags, body=body).code == "AccessDenied"
    assert asked(gateway, "GET", f"/{mine}/k", tags).code == "AccessDenied"


def test_a_policy_is_its_owners_affair(alice: Any, bob: Any, mine: str) -> None:
    """Whatever it says: nobody else sets it, and an owner who denied everything takes it back."""
    set_policy(alice, mine, statement(mine, "s3:*"))
    refused(bob.delete_bucket_policy, Bucket=mine)
    with pytest.raises(ClientError):
        set_policy(bob, mine, statement(mine, "s3:GetObject"))
    set_policy(alice, mine, statement(mine, "s3:*", "*", "Deny"))
    refused(alice.get_object, Bucket=mine, Key="k")
    alice.delete_bucket_policy(Bucket=mine)
    alice.get_object(Bucket=mine, Key="k")


def test_nobody_is_made_root(gateway: Gateway) -> None:
    with pytest.raises(RequestError, match="secrets file"):
        gateway.run(gateway.server._users.create("root"))
