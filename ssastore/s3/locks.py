"""Object lock: what retains a version, who may change that, and what a bucket gives by default. Pure.

bucket config  ``object-lock``   {"rule": {"mode", "days" or "years"}}: locks can be set in it
extra          ``lock``, ``hold``                           (``core.locks``)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssastore.core.buckets import Bucket
from ssastore.core.locks import COMPLIANCE, GOVERNANCE, is_locked
from ssastore.core.metadata import Metadata
from ssastore.core.versions import Guard
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_time
from ssastore.s3.xmlread import Element, read_tree
from ssastore.s3.xmltext import iso8601

SETTING = "object-lock"
"Name of the setting in a bucket's config."

_MODES = (GOVERNANCE, COMPLIANCE)
_HOLDS = ("ON", "OFF")
_MODE = "x-amz-object-lock-mode"
_UNTIL = "x-amz-object-lock-retain-until-date"
_HOLD = "x-amz-object-lock-legal-hold"
_DAY_MS = 24 * 3600 * 1000
_YEAR_DAYS = 365
_DAYS_MAX = 36_500
_YEARS_MAX = 100
"As S3."

Lock = dict[str, Any]


def check_has_locks(bucket: Bucket) -> None:
    """S3Error InvalidRequest for a bucket without object lock."""
    if SETTING not in bucket.config:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def parse_configuration(body: bytes) -> dict[str, Any]:
    """The rule that a bucket gets, as its setting.

    Raises:
        S3Error: MalformedXML, InvalidRetentionPeriod.
    """
    wanted = read_tree(body, "ObjectLockConfiguration")
    if wanted.value("ObjectLockEnabled") not in (None, "Enabled"):
        raise S3Error("MalformedXML", "ObjectLockEnabled must be Enabled.")
    rule = wanted.one("Rule")
    if rule is None:
        return {}
    default = rule.one("DefaultRetention")
    if default is None:
        raise S3Error("MalformedXML", "A Rule needs DefaultRetention.")
    days, years = default.value("Days"), default.value("Years")
    if (days is None) == (years is None):
        raise S3Error("MalformedXML", "DefaultRetention takes either Days or Years.")
    unit, text, most = ("years", years, _YEARS_MAX) if days is None else ("days", days, _DAYS_MAX)
    return {"rule": {"mode": _mode(default), unit: _period(text or "", most)}}


def _mode(element: Element) -> str:
    mode = element.value("Mode")
    if mode not in _MODES:
        raise S3Error("MalformedXML", f"Mode must be one of {', '.join(_MODES)}.")
    return mode


def _period(text: str, most: int) -> int:
    try:
        period = int(text)
    except ValueError:
        raise S3Error("MalformedXML", "A period is a number.") from None
    if not 1 <= period <= most:
        text = f"The retention period must be a positive integer of at most {most}."
        raise S3Error("InvalidRetentionPeriod", text)
    return period


def parse_retention(body: bytes, now_ms: int) -> Lock | None:
    """The lock that PutObjectRetention asks for, None for none. S3Error MalformedXML, InvalidArgument."""
    wanted = read_tree(body, "Retention")
    until = wanted.value("RetainUntilDate")
    if wanted.value("Mode") is None and until is None:
        return None
    mode = _mode(wanted)
    if until is None:
        raise S3Error("MalformedXML", "Retention needs RetainUntilDate.")
    return {"mode": mode, "until_ms": _future(until, now_ms)}


def _future(text: str, now_ms: int) -> int:
    until_ms = parse_time("RetainUntilDate", text)
    if until_ms <= now_ms:
        text = "The retain until date must be in the future!"
        raise S3Error("InvalidArgument", text, ArgumentName="RetainUntilDate")
    return until_ms


def parse_hold(body: bytes) -> str:
    """The status that PutObjectLegalHold asks for. S3Error MalformedXML."""
    status = read_tree(body, "LegalHold").value("Status")
    if status not in _HOLDS:
        raise S3Error("MalformedXML", "Status must be ON or OFF.")
    return status


def lock_to_keep(headers: Mapping[str, str], bucket: Bucket, now_ms: int) -> dict[str, Any]:
    """What an upload keeps of locks in the object's ``extra``: what it says, or the bucket's default.

    Raises:
        S3Error: InvalidArgument; InvalidRequest: the bucket has no object lock.
    """
    mode, until, hold = headers.get(_MODE), headers.get(_UNTIL), headers.get(_HOLD)
    if mode or until or hold:
        check_has_locks(bucket)
    if (mode is None) != (until is None):
        raise S3Error("InvalidArgument", f"{_UNTIL} and {_MODE} must both be supplied.", ArgumentName=_MODE)
    if mode is not None and mode not in _MODES:
        raise S3Error("InvalidArgument", "Unknown wormMode directive.", ArgumentName=_MODE)
    if hold is not None and hold not in _HOLDS:
        raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'", ArgumentName=_HOLD)
    kept: dict[str, Any] = {"hold": hold} if hold else {}
    if until is not None:
        kept["lock"] = {"mode": mode, "until_ms": _future(until, now_ms)}
    elif rule := bucket.config.get(SETTING, {}).get("rule"):
        days = rule.get("days") or rule["years"] * _YEAR_DAYS
        kept["lock"] = {"mode": rule["mode"], "until_ms": now_ms + days * _DAY_MS}
    return kept


def lock_of_upload(headers: Mapping[str, str], bucket: Bucket, now_ms: int) -> dict[str, Any]:
    """What a multipart upload says of locks when it begins; the bucket's default comes at its end.

    Raises S3Error as ``lock_to_keep``.
    """
    kept = lock_to_keep(headers, bucket, now_ms)
    if _MODE not in headers:
        kept.pop("lock", None)
    return kept


def check_change(old: Lock | None, new: Lock | None, now_ms: int, *, may_bypass: bool) -> None:
    """S3Error AccessDenied unless a lock may become another: longer always, else only if overruled."""
    if old is None or old["until_ms"] <= now_ms:
        return
    if new is not None and new["mode"] == old["mode"] and new["until_ms"] >= old["until_ms"]:
        return
    if old["mode"] == COMPLIANCE or not may_bypass:
        raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")


def guard(now_ms: int, *, may_bypass: bool) -> Guard:
    """Refuses to let a version go that is locked."""

    def check(metadata: Metadata) -> None:
        if is_locked(metadata, now_ms, may_bypass=may_bypass):
            raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")

    return check


def lock_headers(extra: Mapping[str, Any]) -> dict[str, str]:
    """What a read says of an object's locks."""
    found: dict[str, str] = {}
    if lock := extra.get("lock"):
        found = {_MODE: lock["mode"], _UNTIL: iso8601(lock["until_ms"])}
    return found | ({_HOLD: extra["hold"]} if "hold" in extra else {})


def enabled_by(headers: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a bucket that is created with object lock; none without. S3Error InvalidArgument."""
    name = "x-amz-bucket-object-lock-enabled"
    value = headers.get(name, "false").lower()
    if value not in ("true", "false"):
        raise S3Error("InvalidArgument", f"{name} must be true or false.", ArgumentName=name)
    return {"versioning": "Enabled", SETTING: {}} if value == "true" else {}
