"""What a form upload may contain, and whose word that is: the policy in the form, and its signature. Pure.

Who made the page signed a policy, a JSON document of an expiration and conditions; whoever fills in the form
uploads in that name what the conditions allow.  Signed is the policy's text as it is in the form, by SigV4
(``x-amz-*`` fields), or as S3 had it first (``AWSAccessKeyId``, ``signature``), which SDKs still make.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ssastore.s3.errors import S3Error
from ssastore.s3.sigv4 import form_credential, form_signature

_UNCOVERED = frozenset({"file", "policy", "signature", "awsaccesskeyid", "x-amz-signature"})
"Fields that need no condition: they are what is signed, the signature, and the bytes."
_UNCOVERED_PREFIXES = ("x-ignore-", "x-amz-checksum-")
"A checksum allows nothing that the policy does not."


@dataclass(frozen=True, slots=True)
class Claim:
    """Who is said to have signed a form, and by what it is to be checked."""

    access_key: str
    policy: str
    signature: str
    date: bytes = b""
    region: bytes = b""
    "Of SigV4's scope; empty for the older signature."

    @staticmethod
    def of_form(fields: Mapping[str, str], region: str) -> Claim | None:
        """The claim of a form; None for one without a policy, which is anonymous.

        Raises:
            S3Error: InvalidArgument for a missing field; what credentials raise.
        """
        policy = fields.get("policy")
        if policy is None:
            return None
        if "awsaccesskeyid" in fields:
            return Claim(fields["awsaccesskeyid"], policy, _needed(fields, "signature"))
        if _needed(fields, "x-amz-algorithm") != "AWS4-HMAC-SHA256":
            raise S3Error("InvalidArgument", "X-Amz-Algorithm only supports AWS4-HMAC-SHA256")
        credential = _needed(fields, "x-amz-credential")
        _needed(fields, "x-amz-date")
        access_key, date, scope_region = form_credential(credential, region)
        return Claim(access_key, policy, _needed(fields, "x-amz-signature"), date, scope_region)

    def verify(self, secret: str) -> None:
        """S3Error SignatureDoesNotMatch."""
        if self.date:
            expected = form_signature(secret, self.date, self.region, self.policy)
        else:
            # What S3 defined in 2006; HMAC does not need of SHA-1 what it has lost.
            expected = b64encode(hmac.digest(secret.encode(), self.policy.encode(), "sha1")).decode()
        if not hmac.compare_digest(expected.encode(), self.signature.encode()):
            raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=self.access_key)


def _needed(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        message = (
            f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order "
            "of the fields."
        )
        raise S3Error("InvalidArgument", message, ArgumentName=name)
    return fields[name]


def _invalid(why: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {why}")


def _denied(why: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {why}")


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Bounds of a file, in bytes."""

    least: int
    most: int

    def check(self, size: int) -> None:
        """S3Error EntityTooLarge, EntityTooSmall."""
        if size > self.most:
            raise S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=self.most)
        if size < self.least:
            raise S3Error("EntityTooSmall", ProposedSize=size, MinSizeAllowed=self.least)


def check_policy(text: str, fields: Mapping[str, str], now_ms: int, most: int) -> SizeRange:
    """Whether a form is as its policy demands; the bounds of the file.

    Args:
        text: of the field, in base64.
        fields: names in lower case; ``bucket`` is the bucket that the form was sent to.
        now_ms: since the epoch.
        most: bytes that a file has at most without a condition.

    Raises:
        S3Error: InvalidPolicyDocument; AccessDenied.
    """
    document = _decode(text)
    _check_expiration(document.get("expiration"), now_ms)
    conditions = document.get("conditions")
    if not isinstance(conditions, list):
        raise _invalid("Policy must have a list of conditions.")
    covered: set[str] = set()
    bounds = SizeRange(0, most)
    for condition in conditions:
        operator, name, value = _condition(condition)
        if operator == "content-length-range":
            low, high = _size(name), _size(value)
            bounds = SizeRange(max(bounds.least, low), min(bounds.most, high))
            continue
        covered.add(name)
        if not _holds(operator, name, value, fields.get(name, "")):
            raise _denied(f"Policy Condition failed: {json.dumps([operator, '$' + name, value])[:512]}")
    extra = [
        name
        for name in fields
        if name not in covered and name not in _UNCOVERED and not name.startswith(_UNCOVERED_PREFIXES)
    ]
    if extra:
        raise _denied(f"Extra input fields: {', '.join(sorted(extra))[:512]}")
    return bounds


def _decode(text: str) -> dict[str, Any]:
    try:
        document = json.loads(b64decode("".join(text.split()), validate=True))
    except (ValueError, RecursionError):
        raise _invalid("it is no JSON in base64.") from None
    if not isinstance(document, dict):
        raise _invalid("it is no JSON object.")
    return document


def _check_expiration(value: Any, now_ms: int) -> None:
    if not isinstance(value, str):
        raise _invalid("Policy missing expiration.")
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"):
        try:
            expires = datetime.strptime(value, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if expires.timestamp() * 1000 <= now_ms:
            raise _denied("Policy expired.")
        return
    raise _invalid(f"Invalid 'expiration' value: '{value[:64]}'")


def _condition(condition: Any) -> tuple[str, Any, Any]:
    """(operator, field or lower bound, value or upper bound) of one condition."""
    if isinstance(condition, dict):
        if len(condition) != 1:
            raise _invalid("Simple-Conditions must have exactly one property specified.")
        ((name, value),) = condition.items()
        if not isinstance(value, str):
            raise _invalid("Value of a Simple-Condition must be a string.")
        return "eq", name.lower(), value
    if not isinstance(condition, list) or len(condition) != 3 or not isinstance(condition[0], str):
        raise _invalid("A condition is a property, or a list of operator, field and value.")
    operator, name, value = condition[0].lower(), condition[1], condition[2]
    if operator == "content-length-range":
        return operator, name, value
    if operator not in ("eq", "starts-with"):
        raise _invalid(f"Unknown operator: {operator[:64]}")
    if not isinstance(name, str) or not name.startswith("$") or not isinstance(value, str):
        raise _invalid("A condition is about a field, written with a $, and a string.")
    return operator, name[1:].lower(), value


def _holds(operator: str, name: str, wanted: str, found: str) -> bool:
    if operator == "eq":
        return found == wanted
    # A list of types: each must begin so.
    values = [part.strip() for part in found.split(",")] if name == "content-type" else [found]
    return all(value.startswith(wanted) for value in values)


def _size(value: Any) -> int:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 20:
        raise _invalid("content-length-range must have two bounds, whole numbers of bytes.")
    return int(text)
