"""Access control lists: canned ones, those of headers and documents, and what they grant. Pure.

Kept as JSON beside what they are for (a bucket's settings, an object's metadata); nothing kept means that the
owner alone may do everything.  ``grants`` are pairs of grantee and permission; a grantee is a user's name, or
one of the two groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ssastore.core.users import ANYBODY
from ssastore.s3.errors import S3Error
from ssastore.s3.xmlread import Element, read_tree

EVERYBODY = "http://acs.amazonaws.com/groups/global/AllUsers"
KNOWN_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
_GROUPS = (EVERYBODY, KNOWN_USERS)
_LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
FULL_CONTROL = "FULL_CONTROL"
PERMISSIONS = (FULL_CONTROL, "READ", "WRITE", "READ_ACP", "WRITE_ACP")
OWNERSHIPS = ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter")
"What PutBucketOwnershipControls may say."
GRANTS_MAX = 100
"As in AWS."
_HEADERS = {
    "x-amz-grant-read": "READ",
    "x-amz-grant-write": "WRITE",
    "x-amz-grant-read-acp": "READ_ACP",
    "x-amz-grant-write-acp": "WRITE_ACP",
    "x-amz-grant-full-control": FULL_CONTROL,
}
_CANNED = {
    "private": (),
    "public-read": ((EVERYBODY, "READ"),),
    "public-read-write": ((EVERYBODY, "READ"), (EVERYBODY, "WRITE")),
    "authenticated-read": ((KNOWN_USERS, "READ"),),
    "log-delivery-write": ((_LOG_DELIVERY, "WRITE"), (_LOG_DELIVERY, "READ_ACP")),
    "aws-exec-read": (),
}
_OF_BUCKET_OWNER = {"bucket-owner-read": "READ", "bucket-owner-full-control": FULL_CONTROL}
HEADERS = ("x-amz-acl", *_HEADERS)

Grant = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Acl:
    """Who may do what with a bucket or an object."""

    owner: str
    grants: tuple[Grant, ...]

    @staticmethod
    def private(owner: str) -> Acl:
        """Everything for the owner."""
        return Acl(owner, ((owner, FULL_CONTROL),))

    @staticmethod
    def decode(kept: Any, owner: str) -> Acl:
        """What was kept; ``owner`` of what has none."""
        if not isinstance(kept, dict):
            return Acl.private(owner)
        return Acl(str(kept["owner"]), tuple((str(who), str(what)) for who, what in kept["grants"]))

    def encode(self) -> dict[str, Any]:
        """As it is kept."""
        return {"owner": self.owner, "grants": [list(grant) for grant in self.grants]}

    def allows(self, user: str, permission: str, *, ignores_public: bool = False) -> bool:
        """Whether a user has a permission; ``ignores_public`` leaves out what both groups have."""
        for grantee, granted in self.grants:
            if granted not in (permission, FULL_CONTROL):
                continue
            if grantee in _GROUPS:
                if not ignores_public and (grantee == EVERYBODY or user != ANYBODY):
                    return True
            elif grantee == user != ANYBODY:
                return True
        return False

    @property
    def shown(self) -> list[Grant]:
        """The grants as they are listed: groups first."""
        return sorted(self.grants, key=lambda grant: not grant[0].startswith("http:"))

    @property
    def is_public(self) -> bool:
        """Whether it lets strangers in."""
        return any(grantee in _GROUPS for grantee, _ in self.grants)

    @property
    def users(self) -> set[str]:
        """Users that it names."""
        return {grantee for grantee, _ in self.grants if grantee not in (*_GROUPS, _LOG_DELIVERY)}


def canned(name: str, owner: str, bucket_owner: str) -> Acl:
    """The ACL of an ``x-amz-acl``. S3Error InvalidArgument."""
    if name in _OF_BUCKET_OWNER:
        mine = (owner, FULL_CONTROL)
        theirs = (bucket_owner, _OF_BUCKET_OWNER[name])
        return Acl(owner, (mine,) if owner == bucket_owner else (mine, theirs))
    if name not in _CANNED:
        raise S3Error(
            "InvalidArgument", "No such canned ACL.", ArgumentName="x-amz-acl", ArgumentValue=name[:64]
        )
    return Acl(owner, (*_CANNED[name], (owner, FULL_CONTROL)))


def of_headers(headers: Mapping[str, str], owner: str, bucket_owner: str) -> Acl | None:
    """The ACL that a request's headers ask for; None when they ask for none.

    Raises:
        S3Error: InvalidArgument, UnresolvableGrantByEmailAddress, InvalidRequest (both kinds of headers).
    """
    name = headers.get("x-amz-acl")
    grants = [
        (grantee, permission)
        for header, permission in _HEADERS.items()
        if header in headers
        for grantee in _grantees(headers[header])
    ]
    if name is not None and grants:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if name is not None:
        return canned(name, owner, bucket_owner)
    return Acl(owner, _bounded(grants)) if grants else None


def _grantees(text: str) -> Iterable[str]:
    """``id="NAME", uri="GROUP"`` of a grant header."""
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = part.partition("=")
        value = value.strip().strip('"')
        kind = kind.strip().lower()
        if (kind == "id" and value) or (kind == "uri" and value in (*_GROUPS, _LOG_DELIVERY)):
            yield value
        elif kind == "emailaddress":
            raise S3Error("UnresolvableGrantByEmailAddress")
        else:
            raise S3Error("InvalidArgument", "A grant header is id=, uri= or emailAddress=.")


def of_document(body: bytes, owner: str) -> Acl:
    """The ACL of an ``AccessControlPolicy``; what it is for keeps its owner.

    Raises:
        S3Error: MalformedACLError, UnresolvableGrantByEmailAddress, AccessDenied (another owner).
    """
    tree = read_tree(body, "AccessControlPolicy")
    named, listed = tree.one("Owner"), tree.one("AccessControlList")
    if listed is None or named is None or not named.value("ID"):
        raise S3Error("MalformedACLError")
    if named.value("ID") != owner:
        raise S3Error("AccessDenied", "An ACL cannot change the owner.")
    return Acl(owner, _bounded([_grant(row) for row in listed.all("Grant")]))


def _grant(row: Element) -> Grant:
    grantee, permission = row.one("Grantee"), row.value("Permission")
    if grantee is None or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    if grantee.value("EmailAddress") is not None:
        raise S3Error("UnresolvableGrantByEmailAddress")
    name, group = grantee.value("ID"), grantee.value("URI")
    if group is not None:
        if group not in (*_GROUPS, _LOG_DELIVERY):
            raise S3Error("InvalidArgument", "Invalid group uri", ArgumentValue=group[:128])
        return group, permission
    if not name:
        raise S3Error("MalformedACLError")
    return name, permission


def _bounded(grants: list[Grant]) -> tuple[Grant, ...]:
    if len(grants) > GRANTS_MAX:
        raise S3Error("MalformedACLError", f"An ACL has at most {GRANTS_MAX} grants.")
    return tuple(grants)
