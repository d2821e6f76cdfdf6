"""Bucket policies: read strictly, evaluated purely.

A policy is a list of statements; the words are those of AWS's policy language (IAM user guide, "Policy
evaluation logic"): an explicit Deny wins, else an Allow, else the policy says nothing.  What this module does
not know (an operator, a variable) is refused when the policy is set, for a condition that is ignored would
open what its author wanted shut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from ssastore.core.users import ANYBODY
from ssastore.limits import KIB
from ssastore.s3.errors import S3Error

POLICY_BYTES_MAX = 20 * KIB
"As in AWS."
ARN = "arn:aws:s3:::"
_NAME = "${aws:username}"
_VERSIONS = ("2008-10-17", "2012-10-17")
_KEYS = frozenset(
    {
        "s3:authtype",
        "s3:delimiter",
        "s3:max-keys",
        "s3:prefix",
        "s3:requestobjecttagkeys",
        "s3:signatureage",
        "s3:signatureversion",
        "s3:versionid",
    }
)
_KEY_PREFIXES = ("s3:existingobjecttag/", "s3:requestobjecttag/", "s3:x-amz-")
"Condition keys of S3 that requests have here."
_FIXED = ("aws:userid", "aws:username")
"Keys whose values only some users have, besides those of sources and principals."
_IP_BITS_PUBLIC = 8
"A range of addresses wider than /8 restricts nobody (AWS: the meaning of public)."


class Verdict(Enum):
    """What a policy says of a request."""

    ALLOW = "allow"
    DENY = "deny"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a policy sees it."""

    user: str
    "ANYBODY without credentials."
    action: str
    "As ``s3:GetObject``."
    resource: str
    "Bucket, or bucket, slash and key."
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    "Values of condition keys, their names in lower case."


def matches(pattern: str, text: str) -> bool:
    """Whether ``*`` (any run) and ``?`` (any character) of a pattern give ``text``.

    What is between two stars is looked for once, from the left, in C: whose policy it is may choose the
    text as well, and would stop the gateway with a loop of ours.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _is_at(first, text, 0)
    at, last = len(first), rest.pop()
    if not _is_at(first, text, 0):
        return False
    for part in rest:
        found = _find(part, text, at)
        if found < 0:
            return False
        at = found + len(part)
    return at <= len(text) - len(last) and _is_at(last, text, len(text) - len(last))


def _is_at(part: str, text: str, at: int) -> bool:
    if "?" not in part:
        return text.startswith(part, at)
    return _compiled(part).match(text, at) is not None


def _find(part: str, text: str, at: int) -> int:
    """Where a part of a pattern is first, not before ``at``; -1 for nowhere."""
    if "?" not in part:
        return text.find(part, at)
    found = _compiled(part).search(text, at)
    return found.start() if found else -1


@lru_cache(maxsize=512)
def _compiled(part: str) -> re.Pattern[str]:
    return re.compile(".".join(map(re.escape, part.split("?"))), re.DOTALL)


# -- conditions -------------------------------------------------------------------------------------

Test = Callable[[str, str], bool]
"""(value wanted, value found) -> whether they fit."""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise S3Error("MalformedPolicy", f"{text[:40]!r} is no number.") from None


def _time(text: str) -> float:
    try:
        if text.isdigit():
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise S3Error("MalformedPolicy", f"{text[:40]!r} is no date.") from None


def _is_in(network: str, address: str) -> bool:
    try:
        found = ip_address(address)
        # What came by IPv4 to a socket of both.
        return (getattr(found, "ipv4_mapped", None) or found) in ip_network(network, strict=False)
    except ValueError:
        return False


_TESTS: dict[str, Test] = {
    "StringEquals": lambda wanted, found: wanted == found,
    "StringEqualsIgnoreCase": lambda wanted, found: wanted.lower() == found.lower(),
    "StringLike": matches,
    "ArnEquals": matches,
    "ArnLike": matches,
    "NumericEquals": lambda wanted, found: _number(found) == _number(wanted),
    "NumericLessThan": lambda wanted, found: _number(found) < _number(wanted),
    "NumericLessThanEquals": lambda wanted, found: _number(found) <= _number(wanted),
    "NumericGreaterThan": lambda wanted, found: _number(found) > _number(wanted),
    "NumericGreaterThanEquals": lambda wanted, found: _number(found) >= _number(wanted),
    "DateEquals": lambda wanted, found: _time(found) == _time(wanted),
    "DateLessThan": lambda wanted, found: _time(found) < _time(wanted),
    "DateLessThanEquals": lambda wanted, found: _time(found) <= _time(wanted),
    "DateGreaterThan": lambda wanted, found: _time(found) > _time(wanted),
    "DateGreaterThanEquals": lambda wanted, found: _time(found) >= _time(wanted),
    "Bool": lambda wanted, found: wanted.lower() == found.lower(),
    "IpAddress": _is_in,
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}


@dataclass(frozen=True, slots=True)
class _Condition:
    """One operator on one key."""

    name: str
    "Of the operator, without qualifiers and negation."
    is_negated: bool
    if_exists: bool
    over: str
    "``any``, ``all``, or empty: how several values of a request count."
    key: str
    wanted: tuple[str, ...]

    def holds(self, asked: Asked) -> bool:
        found = asked.context.get(self.key)
        if self.name == "Null":
            return (not found) == (self.wanted[0].lower() == "true")
        if not found:
            return self.if_exists or self.over == "all" or (self.is_negated and self.over != "any")
        wanted = _filled(self.wanted, asked)
        test = _TESTS[self.name]
        fits = [any(test(text, value) for text in wanted) != self.is_negated for value in found]
        return all(fits) if self.over == "all" else any(fits)


def _filled(texts: Sequence[str], asked: Asked) -> list[str]:
    """Texts with the user's name in them; of nobody, who has none, only those that do not ask for it."""
    return [text.replace(_NAME, asked.user) for text in texts if asked.user != ANYBODY or _NAME not in text]


def _conditions(document: Any) -> tuple[_Condition, ...]:
    if not isinstance(document, dict):
        raise S3Error("MalformedPolicy", "Condition must be an object.")
    found = []
    for operator, keys in document.items():
        over, _, name = operator.rpartition(":")
        if over not in ("", "ForAnyValue", "ForAllValues") or not isinstance(keys, dict):
            raise S3Error("MalformedPolicy", f"Invalid Condition type: {operator[:64]}")
        plain = name.removesuffix("IfExists")
        is_negated = plain in _NEGATED
        plain = _NEGATED.get(plain, plain)
        if plain not in _TESTS and plain != "Null":
            raise S3Error("MalformedPolicy", f"Invalid Condition type: {operator[:64]}")
        for key, value in keys.items():
            wanted = _texts(value, f"a value of {key[:64]}")
            _check_key(key.lower())
            over_word = {"": "", "ForAnyValue": "any", "ForAllValues": "all"}[over]
            condition = _Condition(
                plain, is_negated, name.endswith("IfExists"), over_word, key.lower(), wanted
            )
            _check_values(condition)
            found.append(condition)
    return tuple(found)


def _check_key(key: str) -> None:
    """S3Error MalformedPolicy for one of S3's that no request has here: a deny by it would deny nothing."""
    if key.startswith("s3:") and key not in _KEYS and not key.startswith(_KEY_PREFIXES):
        raise S3Error("MalformedPolicy", f"Policy has an invalid condition key: {key[:64]}")


def _check_values(condition: _Condition) -> None:
    for text in condition.wanted:
        if condition.name.startswith("Numeric"):
            _number(text)
        elif condition.name.startswith("Date"):
            _time(text)
        elif condition.name == "IpAddress":
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise S3Error("MalformedPolicy", f"{text[:64]!r} is no range of addresses.") from None


# -- statements -------------------------------------------------------------------------------------


def _texts(value: Any, what: str) -> tuple[str, ...]:
    """A text, number or truth value, or a list of them, as texts. S3Error MalformedPolicy."""
    values = value if isinstance(value, list) else [value]
    texts = []
    for one in values:
        if isinstance(one, bool):
            one = str(one).lower()
        elif isinstance(one, int | float):
            one = str(one)
        if not isinstance(one, str):
            raise S3Error("MalformedPolicy", f"{what} must be a text.")
        if "${" in one.replace(_NAME, ""):
            raise S3Error("MalformedPolicy", f"{one[:64]!r} has a variable that is not known here.")
        texts.append(one)
    if not texts:
        raise S3Error("MalformedPolicy", f"{what} is missing.")
    return tuple(texts)


def _principals(value: Any) -> tuple[str, ...]:
    """Names of users, ``*`` for everybody."""
    if value == "*":
        return ("*",)
    if not isinstance(value, dict) or not value:
        raise S3Error("MalformedPolicy", "Invalid principal in policy")
    names: list[str] = []
    for kind, found in value.items():
        if kind not in ("AWS", "CanonicalUser", "Service", "Federated"):
            raise S3Error("MalformedPolicy", "Invalid principal in policy")
        if kind in ("AWS", "CanonicalUser"):
            names += [_user_of(text) for text in _texts(found, "a principal")]
    return tuple(names)


def _user_of(text: str) -> str:
    """The user of ``arn:aws:iam::ACCOUNT:user/NAME``, ``arn:aws:iam::NAME:root`` or plain NAME.

    Raises:
        S3Error: MalformedPolicy, also for a name that is only part of one: it would be everybody's.
    """
    if text == "*":
        return text
    name = text
    if text.startswith("arn:"):
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[2] not in ("iam", "sts"):
            raise S3Error("MalformedPolicy", "Invalid principal in policy")
        name = parts[4] if parts[5] == "root" else parts[5].rpartition("/")[2]
    if not name or "*" in name or "?" in name:
        raise S3Error("MalformedPolicy", "Invalid principal in policy")
    return name


@dataclass(frozen=True, slots=True)
class _Statement:
    is_allow: bool
    principals: tuple[str, ...] | None
    "None: all but ``not_principals``."
    not_principals: tuple[str, ...]
    actions: tuple[str, ...]
    "Empty: all but ``not_actions``; resources alike."
    not_actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_resources: tuple[str, ...]
    conditions: tuple[_Condition, ...]

    def fits(self, asked: Asked) -> bool:
        """Whether the statement is about this request."""
        return (
            self._fits_user(asked.user)
            and (_fits_any(self.actions or self.not_actions, asked.action.lower()) == bool(self.actions))
            and (_fits_any(self._resources(asked), asked.resource) == bool(self.resources))
            and all(condition.holds(asked) for condition in self.conditions)
        )

    def _resources(self, asked: Asked) -> list[str]:
        return _filled(self.resources or self.not_resources, asked)

    def _fits_user(self, user: str) -> bool:
        if user == ANYBODY and self.is_allow and self._asks_for_name:
            return False  # Who has no name is none of those that it lets in by name, or shuts out.
        if self.principals is None:
            return "*" not in self.not_principals and user not in self.not_principals
        return "*" in self.principals or (user != ANYBODY and user in self.principals)

    @property
    def _asks_for_name(self) -> bool:
        texts = (*self.resources, *self.not_resources, *[text for c in self.conditions for text in c.wanted])
        return any(_NAME in text for text in texts)

    @property
    def is_public(self) -> bool:
        """It lets everybody in, whoever and wherever they are."""
        if not self.is_allow or "*" not in (self.principals or ()):
            return False
        return not any(_restricts(condition) for condition in self.conditions)


def _restricts(condition: _Condition) -> bool:
    """Whether only some can fulfil a condition, by what AWS counts as such."""
    # Over "all" of what a request does not say, a condition holds.
    if condition.is_negated or condition.if_exists or condition.over == "all" or condition.name not in _TESTS:
        return False
    if condition.key == "aws:sourceip":
        return condition.name == "IpAddress" and all(
            ip_network(text, strict=False).prefixlen > _IP_BITS_PUBLIC for text in condition.wanted
        )
    is_fixed = condition.key in _FIXED or condition.key.startswith(("aws:source", "aws:principal"))
    return is_fixed and not any("*" in text or "?" in text for text in condition.wanted)


def _fits_any(patterns: Sequence[str], text: str) -> bool:
    return any(matches(pattern, text) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was checked."""

    statements: tuple[_Statement, ...]

    def verdict(self, asked: Asked) -> Verdict:
        """An explicit deny, else an allow, else nothing."""
        fitting = [statement.is_allow for statement in self.statements if statement.fits(asked)]
        if not fitting:
            return Verdict.NOTHING
        return Verdict.ALLOW if all(fitting) else Verdict.DENY

    @property
    def is_public(self) -> bool:
        """Whether it lets everybody in (``GetBucketPolicyStatus``)."""
        return any(statement.is_public for statement in self.statements)

    def asks_for(self, prefix: str) -> bool:
        """Whether a condition has a key that begins so, in lower case."""
        return any(c.key.startswith(prefix) for s in self.statements for c in s.conditions)


def parse_policy(body: str, bucket: str) -> Policy:
    """Read a policy of a bucket.

    Raises:
        S3Error: MalformedPolicy, with what is wrong.
    """
    if len(body) > POLICY_BYTES_MAX:
        raise S3Error("MalformedPolicy", f"A policy has at most {POLICY_BYTES_MAX} bytes.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise S3Error(
            "MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'"
        ) from None
    if not isinstance(document, dict):
        raise S3Error("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'")
    if document.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise S3Error("MalformedPolicy", "The policy must contain a valid version string")
    rows = document.get("Statement")
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows:
        raise S3Error("MalformedPolicy", "Missing required field Statement")
    return Policy(tuple(_statement(row, bucket) for row in rows))


_FIELDS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"}
_FIELDS |= {"Resource", "NotResource", "Condition"}


def _statement(row: Any, bucket: str) -> _Statement:
    if not isinstance(row, dict) or not _FIELDS.issuperset(row):
        raise S3Error("MalformedPolicy", "A statement has fields that are not known.")
    if row.get("Effect") not in ("Allow", "Deny"):
        raise S3Error("MalformedPolicy", "Missing required field Effect")
    for name in ("Principal", "Action", "Resource"):
        if (name in row) == (f"Not{name}" in row):
            raise S3Error("MalformedPolicy", f"Missing required field {name}")
    is_allow = row["Effect"] == "Allow"
    if is_allow and "NotPrincipal" in row:
        # As in AWS: whoever is not named, the nameless too, is never what is meant.
        raise S3Error("MalformedPolicy", "Allow with NotPrincipal is not supported")
    resources = [
        _texts(row[name], "a resource") if name in row else () for name in ("Resource", "NotResource")
    ]
    actions = [_texts(row[name], "an action") if name in row else () for name in ("Action", "NotAction")]
    for text in (*actions[0], *actions[1]):
        if text != "*" and not text.lower().startswith("s3:"):
            raise S3Error("MalformedPolicy", "Policy has invalid action")
    return _Statement(
        is_allow,
        _principals(row["Principal"]) if "Principal" in row else None,
        _principals(row["NotPrincipal"]) if "NotPrincipal" in row else (),
        tuple(text.lower() for text in actions[0]),
        tuple(text.lower() for text in actions[1]),
        tuple(_resource(text, bucket) for text in resources[0]),
        tuple(_resource(text, bucket) for text in resources[1]),
        _conditions(row.get("Condition", {})),
    )


def _resource(text: str, bucket: str) -> str:
    """Bucket and key pattern of an ARN of this bucket."""
    parts = text.split(":", 5)
    if len(parts) != 6 or parts[:3] != ["arn", "aws", "s3"]:
        raise S3Error("MalformedPolicy", "Policy has invalid resource")
    name = parts[5].partition("/")[0]
    if not matches(name, bucket):
        raise S3Error("MalformedPolicy", "Policy has invalid resource")
    return parts[5]
