"""Open uploads are their initiators', and what an upload brings along needs rights of its own, as in AWS."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.s3.gateways import Gateway
from tests.s3.test_access import refused, set_policy, statement
from tests.s3.test_intruders import asked
from tests.s3.test_post import form_of, send

TAGS = "security=public"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def carol(gateway: Gateway) -> Any:
    key = gateway.run(gateway.server._users.create("carol"))
    return gateway.boto(access_key=key.key_id, secret_key=key.secret)


@pytest.fixture
def theirs(bob: Any) -> str:
    """An empty bucket of bob's."""
    name = f"theirs-{next(_numbers)}"
    bob.create_bucket(Bucket=name)
    return name


# -- open uploads -----------------------------------------------------------------------------------


def begin(client: Any, bucket: str) -> dict[str, Any]:
    upload = client.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    return {"Bucket": bucket, "Key": "m", "UploadId": upload}


def add(client: Any, upload: dict[str, Any]) -> dict[str, Any]:
    """What completes the upload by the part that is added."""
    etag = client.upload_part(PartNumber=1, Body=b"x", **upload)["ETag"]
    return {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}, **upload}


def let_write(alice: Any, mine: str, how: str) -> None:
    if how == "acl":
        alice.put_bucket_acl(Bucket=mine, ACL="public-read-write")
    else:
        set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:GetObject"]))
    if how == "enforced":
        rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)


@pytest.mark.parametrize("how", ["acl", "policy", "enforced"])
def test_an_open_upload_is_its_initiators(alice: Any, bob: Any, carol: Any, mine: str, how: str) -> None:
    """Nobody else may add to it or complete it, and only the bucket's owner look at it and end it."""
    let_write(alice, mine, how)
    for client, others in ((bob, (carol, alice)), (alice, (carol, bob))):
        upload = begin(client, mine)
        completion = add(client, upload)
        for other in others:
            refused(other.upload_part, PartNumber=1, Body=b"evil", **upload)
            source = {"CopySource": f"{mine}/k"}
            if other is not alice and how == "acl":
                alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
            refused(other.upload_part_copy, PartNumber=1, **source, **upload)
            refused(other.complete_multipart_upload, **completion)
        for other in {carol, bob} - {client}:
            refused(other.list_parts, **upload)
            refused(other.abort_multipart_upload, **upload)
        for reader in (client, alice):
            assert reader.list_parts(**upload)["Initiator"]["ID"] == ("bob" if client is bob else "alice")
        client.complete_multipart_upload(**completion)
        refused(carol.complete_multipart_upload, **completion)
        client.complete_multipart_upload(**completion)
        assert alice.get_object(Bucket=mine, Key="m")["Body"].read() == b"x"
        ended = begin(client, mine)
        client.abort_multipart_upload(**ended)
        for ask in (client.abort_multipart_upload, client.list_parts):
            refused(ask, "NoSuchUpload", **ended)


def test_an_owner_ends_the_uploads_of_others(alice: Any, bob: Any, s3: Any, mine: str) -> None:
    let_write(alice, mine, "acl")
    for client in (alice, s3):
        client.abort_multipart_upload(**begin(bob, mine))
    assert "Uploads" not in alice.list_multipart_uploads(Bucket=mine)


def test_policies_are_about_initiators_too(alice: Any, bob: Any, carol: Any, mine: str) -> None:
    set_policy(
        alice,
        mine,
        statement(mine, "s3:PutObject"),
        statement(mine, ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"], {"AWS": "carol"}),
        statement(mine, "s3:AbortMultipartUpload", {"AWS": "bob"}, "Deny"),
    )
    upload = begin(bob, mine)
    refused(bob.abort_multipart_upload, **upload)
    bob.list_parts(**upload)
    carol.list_parts(**upload)
    carol.abort_multipart_upload(**upload)


def test_who_may_not_upload_learns_nothing_of_uploads(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    upload = begin(alice, mine)
    absent = upload | {"UploadId": "0" * 32}
    for stranger in (bob, nobody):
        for named in (upload, absent):
            refused(stranger.abort_multipart_upload, **named)
            refused(stranger.list_parts, **named)


def test_an_upload_of_nobodys_is_not_everybodys(alice: Any, nobody: Any, mine: str) -> None:
    """Who has no name did not begin it: the next one without a name may be anybody."""
    let_write(alice, mine, "acl")
    upload = begin(nobody, mine)
    completion = add(nobody, upload)
    refused(nobody.list_parts, **upload)
    refused(nobody.abort_multipart_upload, **upload)
    assert alice.list_parts(**upload)["Initiator"]["ID"] == "alice"
    nobody.complete_multipart_upload(**completion)


# -- what an upload brings along --------------------------------------------------------------------


def uploads(client: Any, bucket: str, **said: str) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    """All ways of making an object that says something of itself."""
    copy = {"TaggingDirective": "REPLACE"} if "Tagging" in said else {}
    return [
        (client.put_object, {"Bucket": bucket, "Key": "new", "Body": b"x", **said}),
        (client.create_multipart_upload, {"Bucket": bucket, "Key": "new", **said}),
        (client.copy_object, {"Bucket": bucket, "Key": "new", "CopySource": f"{bucket}/k", **said, **copy}),
    ]


def test_tags_need_a_right_of_their_own(alice: Any, bob: Any, mine: str) -> None:
    may_write = ["s3:PutObject", "s3:GetObject"]
    set_policy(alice, mine, statement(mine, may_write))
    for call, arguments in uploads(bob, mine):
        call(**arguments)
    for call, arguments in uploads(bob, mine, Tagging=TAGS):
        refused(call, **arguments)
    set_policy(alice, mine, statement(mine, [*may_write, "s3:PutObjectTagging"]))
    for call, arguments in uploads(bob, mine, Tagging=TAGS):
        call(**arguments)


def test_a_tag_that_may_not_be_set_may_not_be_brought_along(alice: Any, bob: Any, mine: str) -> None:
    condition = {"StringNotEquals": {"s3:RequestObjectTag/security": "public"}}
    set_policy(
        alice,
        mine,
        statement(mine, ["s3:PutObject", "s3:GetObject", "s3:PutObjectTagging"]),
        statement(mine, "s3:PutObjectTagging", "*", "Deny", Condition=condition),
    )
    for call, arguments in uploads(bob, mine, Tagging=TAGS):
        call(**arguments)
    for call, arguments in uploads(bob, mine, Tagging="security=secret"):
        refused(call, **arguments)


def test_a_forms_tags_and_acl_need_rights_too(gateway: Gateway, alice: Any, mine: str) -> None:
    tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    fields = ({"tagging": tagging}, {"acl": "public-read"})
    set_policy(alice, mine, statement(mine, "s3:PutObject"))
    assert send(gateway, mine, form_of({"key": "f"}, b"data"))[0] == 204
    for field in fields:
        assert send(gateway, mine, form_of({"key": "f", **field}, b"data"))[0] == 403
    set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging"]))
    for field in fields:
        assert send(gateway, mine, form_of({"key": "f", **field}, b"data"))[0] == 204


def test_who_will_own_an_object_sets_its_acl(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    """And nobody else: an object that nobody uploads is the bucket's owner's."""
    may_write = ["s3:PutObject", "s3:GetObject"]
    given_up, public = {"ACL": "bucket-owner-full-control"}, {"ACL": "public-read"}
    for action in ("s3:PutObject", "s3:PutObjectAcl"):
        set_policy(alice, mine, statement(mine, [*may_write, action]))
        for said in (given_up, public, {"GrantRead": "id=alice"}):
            for call, arguments in uploads(bob, mine, **said):
                call(**arguments)
        for said in (public, {"ACL": "private"}, {"GrantRead": "id=bob"}):
            for call, arguments in uploads(nobody, mine, **said):
                if action == "s3:PutObjectAcl":
                    call(**arguments)
                else:
                    refused(call, **arguments)
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    alice.put_bucket_acl(Bucket=mine, ACL="private")
    alice.put_bucket_ownership_controls(Bucket=mine, OwnershipControls=rules)
    set_policy(alice, mine, statement(mine, may_write))
    for client in (bob, nobody):
        for call, arguments in uploads(client, mine, **given_up):
            call(**arguments)


def test_an_acl_that_is_denied_is_denied(alice: Any, bob: Any, mine: str) -> None:
    deny = statement(mine, "s3:PutObjectAcl", "*", "Deny")
    set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:GetObject"]), deny)
    for client in (alice, bob):
        for call, arguments in uploads(client, mine, ACL="public-read"):
            refused(call, **arguments)


def test_write_of_an_acl_is_all_there_is(alice: Any, bob: Any, nobody: Any, mine: str) -> None:
    """ACLs have no finer right than to write."""
    alice.put_bucket_acl(Bucket=mine, ACL="public-read-write")
    for client in (bob, nobody):
        for said in ({"ACL": "public-read"}, {"Tagging": TAGS}):
            client.put_object(Bucket=mine, Key="new", Body=b"x", **said)


# -- copies and tags --------------------------------------------------------------------------------


def test_a_copy_takes_no_tags_that_may_not_be_read(alice: Any, bob: Any, mine: str, theirs: str) -> None:
    alice.put_object(Bucket=mine, Key="k", Body=b"data", Tagging=TAGS)
    copy: dict[str, Any] = {"Bucket": theirs, "Key": "copy", "CopySource": f"{mine}/k"}
    set_policy(alice, mine, statement(mine, "s3:GetObject"))
    refused(bob.copy_object, **copy)
    bob.copy_object(TaggingDirective="REPLACE", **copy)
    assert bob.get_object_tagging(Bucket=theirs, Key="copy")["TagSet"] == []
    set_policy(alice, mine, statement(mine, ["s3:GetObject", "s3:GetObjectTagging"]))
    bob.copy_object(**copy)
    assert bob.get_object_tagging(Bucket=theirs, Key="copy")["TagSet"] == [
        {"Key": "security", "Value": "public"}
    ]
    alice.delete_object_tagging(Bucket=mine, Key="k")
    alice.delete_bucket_policy(Bucket=mine)
    alice.put_object_acl(Bucket=mine, Key="k", ACL="public-read")
    bob.copy_object(**copy)


def test_the_tags_of_a_version_are_read_by_their_own_right(
    alice: Any, bob: Any, mine: str, theirs: str
) -> None:
    alice.put_bucket_versioning(Bucket=mine, VersioningConfiguration={"Status": "Enabled"})
    version = alice.put_object(Bucket=mine, Key="k", Body=b"data", Tagging=TAGS)["VersionId"]
    source = {"Bucket": mine, "Key": "k", "VersionId": version}
    copy: dict[str, Any] = {"Bucket": theirs, "Key": "copy", "CopySource": source}
    may_read = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging"]
    set_policy(alice, mine, statement(mine, may_read))
    refused(bob.copy_object, **copy)
    set_policy(alice, mine, statement(mine, [*may_read, "s3:GetObjectVersionTagging"]))
    bob.copy_object(**copy)


def test_tags_are_copied_to_where_they_may_be_set(alice: Any, bob: Any, mine: str, theirs: str) -> None:
    bob.put_object(Bucket=theirs, Key="source", Body=b"data", Tagging=TAGS)
    copy: dict[str, Any] = {"Bucket": mine, "Key": "copy", "CopySource": f"{theirs}/source"}
    set_policy(alice, mine, statement(mine, "s3:PutObject"))
    refused(bob.copy_object, **copy)
    set_policy(alice, mine, statement(mine, ["s3:PutObject", "s3:PutObjectTagging"]))
    bob.copy_object(**copy)


def test_how_many_tags_there_are_is_told_who_may_read_them(alice: Any, bob: Any, mine: str) -> None:
    alice.put_object(Bucket=mine, Key="k", Body=b"data", Tagging=TAGS)
    set_policy(alice, mine, statement(mine, "s3:GetObject"))
    for call in (bob.get_object, bob.head_object):
        assert "x-amz-tagging-count" not in call(Bucket=mine, Key="k")["ResponseMetadata"]["HTTPHeaders"]
    set_policy(alice, mine, statement(mine, ["s3:GetObject", "s3:GetObjectTagging"]))
    for client in (alice, bob):
        assert client.get_object(Bucket=mine, Key="k")["TagCount"] == 1


def test_policies_see_the_tags_that_a_copy_takes_along(alice: Any, bob: Any, mine: str, theirs: str) -> None:
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    copies: dict[str, dict[str, Any]] = {}
    for value in ("public", "secret"):
        bob.put_object(Bucket=theirs, Key=value, Body=b"data", Tagging=f"security={value}")
        copies[value] = {"Bucket": mine, "Key": "copy", "CopySource": f"{theirs}/{value}"}
    may_write = statement(mine, "s3:PutObject")
    set_policy(alice, mine, may_write, statement(mine, "s3:PutObjectTagging", Condition=condition))
    bob.copy_object(**copies["public"])
    refused(bob.copy_object, **copies["secret"])
    deny = statement(mine, "s3:PutObjectTagging", "*", "Deny", Condition=condition)
    set_policy(alice, mine, may_write, statement(mine, "s3:PutObjectTagging"), deny)
    bob.copy_object(**copies["secret"])
    refused(bob.copy_object, **copies["public"])


# -- tags of a body ---------------------------------------------------------------------------------


def tag_set(value: str) -> dict[str, Any]:
    return {"TagSet": [{"Key": "security", "Value": value}]}


def test_policies_see_the_tags_of_a_body(gateway: Gateway, alice: Any, bob: Any, mine: str) -> None:
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    set_policy(alice, mine, statement(mine, "s3:PutObjectTagging", Condition=condition))
    call: dict[str, Any] = {"Bucket": mine, "Key": "k"}
    for value in ("secret", "Public"):
        refused(bob.put_object_tagging, Tagging=tag_set(value), **call)
    refused(bob.put_object_tagging, Tagging={"TagSet": []}, **call)
    bob.put_object_tagging(Tagging=tag_set("public"), **call)
    assert alice.get_object_tagging(**call)["TagSet"] == tag_set("public")["TagSet"]
    keys = {"ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["other"]}}
    set_policy(alice, mine, statement(mine, "s3:PutObjectTagging", Condition=keys))
    refused(bob.put_object_tagging, Tagging=tag_set("public"), **call)
    set_policy(
        alice,
        mine,
        statement(mine, "s3:PutObjectTagging"),
        statement(mine, "s3:PutObjectTagging", "*", "Deny", Condition=condition),
    )
    refused(bob.put_object_tagging, Tagging=tag_set("public"), **call)
    bob.put_object_tagging(Tagging=tag_set("secret"), **call)


def test_policies_see_the_tags_that_a_version_gets(alice: Any, bob: Any, mine: str) -> None:
    alice.put_bucket_versioning(Bucket=mine, VersioningConfiguration={"Status": "Enabled"})
    version = alice.put_object(Bucket=mine, Key="k", Body=b"data")["VersionId"]
    call: dict[str, Any] = {"Bucket": mine, "Key": "k", "VersionId": version}
    condition = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    set_policy(alice, mine, statement(mine, "s3:PutObjectVersionTagging", Condition=condition))
    refused(bob.put_object_tagging, Tagging=tag_set("secret"), **call)
    bob.put_object_tagging(Tagging=tag_set("public"), **call)


def test_who_may_set_no_tags_is_told_so(gateway: Gateway, alice: Any, bob: Any, mine: str) -> None:
    """Without a look at them, where no policy is about them."""
    refused(bob.put_object_tagging, Bucket=mine, Key="k", Tagging=tag_set("x"))
    assert asked(gateway, "PUT", f"/{mine}/k?tagging", body=b"<no").code == "AccessDenied"


# -- grants -----------------------------------------------------------------------------------------


def test_grants_of_headers_are_to_users_that_there_are(alice: Any, bob: Any, mine: str) -> None:
    unknown = {"GrantRead": 'id="bob", id="no-such-user"'}
    for call, arguments in uploads(alice, mine, **unknown):
        refused(call, "InvalidArgument", **arguments)
    refused(alice.create_bucket, "InvalidArgument", Bucket=f"{mine}-new", **unknown)
    known = {"GrantRead": "id=bob, id=root"}
    for call, arguments in uploads(alice, mine, **known):
        call(**arguments)
    alice.create_bucket(Bucket=f"{mine}-new", **known)
    assert bob.list_objects_v2(Bucket=f"{mine}-new")["KeyCount"] == 0
    assert bob.get_object(Bucket=mine, Key="new")["Body"].read()


def test_who_was_made_a_moment_ago_can_be_granted_something(gateway: Gateway, alice: Any, mine: str) -> None:
    """Also where somebody was looked for in vain just before."""
    name = f"late-{next(_numbers)}"
    call: dict[str, Any] = {"Bucket": mine, "Key": "new", "Body": b"x", "GrantRead": f"id={name}"}
    refused(alice.put_object, "InvalidArgument", **call)
    gateway.run(gateway.server._users.create(name))
    alice.put_object(**call)
