"""Policies, where a table says more than a gateway would."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.users import ANYBODY
from ssastore.s3.errors import S3Error
from ssastore.s3.policy import Asked, Verdict, matches, parse_policy

BUCKET = "photos"


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=16))
def test_wildcards_mean_what_they_mean(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(character, character) for character in pattern)
    assert matches(pattern, text) == bool(re.fullmatch(expression, text))


def test_wildcards_of_an_attacker_take_no_time() -> None:
    assert not matches("*a" * 500 + "b", "a" * 5000)


def verdict(
    statement: dict[str, Any], user: str = "bob", action: str = "s3:GetObject", **context: Any
) -> Verdict:
    row = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    for name in ("Principal", "Action", "Resource"):
        if f"Not{name}" in statement:
            del row[name]
    text = json.dumps({"Version": "2012-10-17", "Statement": row | statement})
    found = {name.replace("__", ":"): value for name, value in context.items()}
    return parse_policy(text, BUCKET).verdict(Asked(user, action, f"{BUCKET}/home/bob/k", found))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"NotAction": "s3:PutObject"}, True),
        ({"NotAction": ["s3:get*"]}, False),
        ({"Action": "s3:getobject"}, True),
        ({"Action": "S3:Get?bject"}, True),
        ({"Principal": {"Service": "logging.s3.amazonaws.com"}}, False),
        ({"NotResource": f"arn:aws:s3:::{BUCKET}/home/*"}, False),
        ({"NotResource": f"arn:aws:s3:::{BUCKET}/other/*"}, True),
        ({"Resource": f"arn:aws:s3:::{BUCKET}/home/${{aws:username}}/*"}, True),
        ({"Resource": "arn:aws:s3:::*"}, True),
        ({"Condition": {"ForAllValues:StringEquals": {"k:tags": ["a", "b"]}}}, True),
        ({"Condition": {"ForAllValues:StringEquals": {"k:tags": ["a"]}}}, False),
        ({"Condition": {"ForAnyValue:StringEquals": {"k:tags": ["b", "c"]}}}, True),
        ({"Condition": {"ForAnyValue:StringEquals": {"k:absent": ["b"]}}}, False),
        ({"Condition": {"ForAllValues:StringEquals": {"k:absent": ["b"]}}}, True),
        ({"Condition": {"StringEquals": {"K:TAGS": "a"}}}, True),
        ({"Condition": {"StringEquals": {"k:tags": "A"}}}, False),
        ({"Condition": {"StringEqualsIgnoreCase": {"k:tags": "A"}}}, True),
    ],
    ids=str,
)
def test_statements(statement: dict[str, Any], expected: bool) -> None:
    assert verdict(statement, k__tags=["a", "b"]) == (Verdict.ALLOW if expected else Verdict.NOTHING)


def test_nobody_has_no_name() -> None:
    assert verdict({"Principal": {"AWS": ""}}, ANYBODY) is Verdict.NOTHING


@pytest.mark.parametrize(
    ("user", "expected"), [("bob", Verdict.NOTHING), ("alice", Verdict.DENY), (ANYBODY, Verdict.DENY)]
)
def test_a_deny_for_all_but_some(user: str, expected: Verdict) -> None:
    assert verdict({"Effect": "Deny", "NotPrincipal": {"AWS": "bob"}}, user) is expected


def test_an_allow_for_all_but_some_is_refused() -> None:
    with pytest.raises(S3Error, match="NotPrincipal"):
        verdict({"NotPrincipal": {"AWS": "bob"}})


@pytest.mark.parametrize(
    ("statement", "is_public"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"AWS": "bob"}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/24"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
        ({"Condition": {"StringLike": {"aws:UserAgent": "*"}}}, True),
        ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, True),
    ],
    ids=str,
)
def test_what_is_public(statement: dict[str, Any], is_public: bool) -> None:
    row = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    text = json.dumps({"Statement": [row | statement]})
    assert parse_policy(text, BUCKET).is_public == is_public
