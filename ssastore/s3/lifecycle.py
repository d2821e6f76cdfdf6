"""Lifecycle configurations: read with S3's checks, written back as they came; what answers say of them."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from ssastore.core.buckets import Bucket
from ssastore.core.lifecycle import DAY_MS, Rule, expiry, rules_of
from ssastore.core.objects import ObjectInfo, Objects
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3 import xmlsettings
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_time
from ssastore.s3.request import Request, Response
from ssastore.s3.xmlread import Element, read_tree

SETTING = "lifecycle"
"Name of the setting in a bucket's config."

_RULES_MAX = 1000
_ID_CHARACTERS_MAX = 255
_NEWER_MAX = 100
_NUMBER_MAX = (1 << 31) - 1
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T[\d:.]+)?(Z|[+-]00:?00)?")
_ACTIONS = ("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
_TRANSITIONS = ("Transition", "NoncurrentVersionTransition")


def parse_rules(body: bytes, fallback_id: str) -> list[Rule]:
    """The rules of a PutBucketLifecycleConfiguration; one without an id gets ``fallback_id`` and its number.

    Raises:
        S3Error: MalformedXML, InvalidArgument, InvalidRequest; NotImplemented for transitions.
    """
    rows = read_tree(body, "LifecycleConfiguration").all("Rule")
    if not 1 <= len(rows) <= _RULES_MAX:
        raise S3Error("MalformedXML", f"A configuration has 1 to {_RULES_MAX} rules.")
    rules = [_rule(row, f"{fallback_id}-{number}") for number, row in enumerate(rows, 1)]
    if len({rule.id for rule in rules}) < len(rules):
        raise S3Error(
            "InvalidArgument",
            "Rule ID must be unique. Found same ID for one or more rules",
            ArgumentName="ID",
        )
    return rules


def _rule(row: Element, fallback_id: str) -> Rule:
    for name in _TRANSITIONS:
        if row.all(name):
            raise S3Error("NotImplemented", f"{name}: there is one storage class only.")
    rule_id = row.value("ID") or fallback_id
    if len(rule_id) > _ID_CHARACTERS_MAX:
        text = f"ID length should not exceed allowed limit of {_ID_CHARACTERS_MAX}"
        raise S3Error("InvalidArgument", text, ArgumentName="ID")
    status = row.value("Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML", "Status must be Enabled or Disabled.")
    if not any(row.all(name) for name in _ACTIONS):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule.")
    fields = _filter(row) | _expiration(row.one("Expiration"))
    fields |= _noncurrent(row.one("NoncurrentVersionExpiration"))
    if (abort := row.one("AbortIncompleteMultipartUpload")) is not None:
        fields["abort_days"] = _number(abort, "DaysAfterInitiation", least=1)
    rule = Rule(rule_id, status == "Enabled", **fields)
    is_sized = rule.greater is not None or rule.less is not None
    if rule.abort_days is not None and (rule.tags or is_sized):
        text = "AbortIncompleteMultipartUpload cannot be specified with Tags or sizes."
        raise S3Error("InvalidRequest", text)
    if rule.lone_markers and (rule.tags or is_sized):
        raise S3Error("InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags or sizes.")
    if rule.greater is not None and rule.less is not None and rule.greater >= rule.less:
        raise S3Error("InvalidRequest", "ObjectSizeGreaterThan must be below ObjectSizeLessThan.")
    return rule


def _number(element: Element, name: str, *, least: int, most: int = _NUMBER_MAX) -> int:
    text = element.value(name)
    if text is None:
        raise S3Error("MalformedXML", f"{element.name} needs {name}.")
    try:
        number = int(text)
    except ValueError:
        raise S3Error("MalformedXML", f"{name} must be a number.") from None
    if not least <= number <= most:
        text = f"'{name}' for {element.name} action must be {least} to {most}"
        raise S3Error("InvalidArgument", text, ArgumentName=name, ArgumentValue=number)
    return number


def _filter(row: Element) -> dict[str, Any]:
    prefix, chosen = row.one("Prefix"), row.one("Filter")
    if (prefix is None) == (chosen is None):
        raise S3Error("MalformedXML", "A Rule needs either Filter or Prefix.")
    if chosen is None:
        assert prefix is not None
        return {"prefix": prefix.text, "is_plain": True}
    both = chosen.one("And")
    if both is not None and len(chosen.children) > 1:
        raise S3Error("MalformedXML", "A Filter has nothing beside And.")
    # Several without And mean the same: all of them are to hold, and that is the narrower reading.
    return _conditions(both if both is not None else chosen)


def _conditions(chosen: Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if (prefix := chosen.one("Prefix")) is not None:
        found["prefix"] = prefix.text
    tags: dict[str, str] = {}
    for tag in chosen.all("Tag"):
        key, value = tag.one("Key"), tag.one("Value")
        if key is None or value is None or not key.text:
            raise S3Error("MalformedXML", "A Tag needs Key and Value.")
        if key.text in tags:
            raise S3Error("InvalidRequest", "Duplicate Tag Keys are not allowed.")
        tags[key.text] = value.text
    if tags:
        found["tags"] = tags
    for field, name in (("greater", "ObjectSizeGreaterThan"), ("less", "ObjectSizeLessThan")):
        if chosen.all(name):
            found[field] = _number(chosen, name, least=0, most=1 << 50)
    return found


def _expiration(chosen: Element | None) -> dict[str, Any]:
    if chosen is None:
        return {}
    if len(chosen.children) != 1:
        text = "Expiration takes one of Days, Date and ExpiredObjectDeleteMarker."
        raise S3Error("MalformedXML", text)
    if chosen.all("Days"):
        return {"days": _number(chosen, "Days", least=1)}
    if (date := chosen.value("Date")) is not None:
        if not _DATE.fullmatch(date):
            raise S3Error("MalformedXML", "Date must be as in ISO 8601.")
        date_ms = parse_time("Date", date)
        if date_ms % DAY_MS:
            raise S3Error("InvalidArgument", "'Date' must be at midnight GMT", ArgumentName="Date")
        return {"date_ms": date_ms}
    wanted = (chosen.value("ExpiredObjectDeleteMarker") or "").lower()
    if wanted not in ("true", "false"):
        raise S3Error("MalformedXML", "ExpiredObjectDeleteMarker must be true or false.")
    return {"lone_markers": wanted == "true"}


def _noncurrent(chosen: Element | None) -> dict[str, Any]:
    if chosen is None:
        return {}
    found = {"noncurrent_days": _number(chosen, "NoncurrentDays", least=1)}
    if chosen.all("NewerNoncurrentVersions"):
        found["newer"] = _number(chosen, "NewerNoncurrentVersions", least=1, most=_NEWER_MAX)
    return found


def expiration_header(bucket: Bucket | None, info: ObjectInfo) -> dict[str, str]:
    """What an answer about an object says of when it goes."""
    rules = rules_of(bucket.config) if bucket is not None and SETTING in bucket.config else []
    due = expiry(rules, info.key, info.size, info.extra.get("tags", {}), info.modified_ms)
    if due is None:
        return {}
    at = formatdate(due[0] / 1000, usegmt=True)
    return {"x-amz-expiration": f'expiry-date="{at}", rule-id="{quote(due[1])}"'}


class LifecycleOperations:
    """Handlers; one method an operation."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def get_bucket_lifecycle_configuration(self, request: Request) -> Response:
        """The bucket's rules."""
        assert request.bucket is not None
        bucket = await self._objects.buckets.read(request.bucket)
        if SETTING not in bucket.config:
            raise S3Error("NoSuchLifecycleConfiguration", BucketName=request.bucket)
        rules = [Rule.decode(kept) for kept in bucket.config[SETTING]]
        return Response.xml(xmlsettings.lifecycle(rules))

    async def put_bucket_lifecycle_configuration(self, request: Request) -> Response:
        """Give the bucket other rules."""
        assert request.bucket is not None
        body = await request.small_body(XML_BYTES_MAX)
        rules = [rule.encode() for rule in parse_rules(body, request.request_id)]
        await self._objects.buckets.configure(request.bucket, lambda bucket: bucket.config | {SETTING: rules})
        return Response(200)

    async def delete_bucket_lifecycle(self, request: Request) -> Response:
        """Take the bucket's rules away; 204 also when it had none."""
        assert request.bucket is not None

        def change(bucket: Bucket) -> dict[str, Any]:
            return {name: value for name, value in bucket.config.items() if name != SETTING}

        await self._objects.buckets.configure(request.bucket, change)
        return Response(204)
