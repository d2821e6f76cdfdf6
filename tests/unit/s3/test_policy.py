"""Policies, where a table says more than a gateway would."""

from __future__ import annotations

import json
import re
import time
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
    start = time.process_time()
    assert not matches("*a" * 500 + "b", "a" * 5000)
    for character in ("a", "?"):
        part = "a" * 1500 + character + "a" * 500 + "b"
        for _ in range(10):  # All that a policy's length leaves room for, against the longest header.
            assert not matches(f"*{part}*", "a" * 8190)
    assert time.process_time() - start < 2


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
        ({"Condition": {"ForAnyValue:StringNotEquals": {"k:absent": ["b"]}}}, False),
        ({"Condition": {"StringNotEquals": {"k:absent": ["b"]}}}, True),
        ({"Condition": {"ForAllValues:StringEquals": {"k:absent": ["b"]}}}, True),
        ({"Condition": {"StringEquals": {"K:TAGS": "a"}}}, True),
        ({"Condition": {"StringEquals": {"k:tags": "A"}}}, False),
        ({"Condition": {"StringEqualsIgnoreCase": {"k:tags": "A"}}}, True),
    ],
    ids=str,
)
def test_statements(statement: dict[str, Any], expected: bool) -> None:
    assert verdict(statement, k__tags=["a", "b"]) == (Verdict.ALLOW if expected else Verdict.NOTHING)


@pytest.mark.parametrize(
    "principal",
    [
        "",
        "arn:aws:iam:::user/",
        "arn:aws:iam::*:root",
        "arn:aws:iam::1:user/*",
        "arn:aws:iam:::user/b?b",
        "b*",
    ],
)
def test_a_principal_is_everybody_or_one_user(principal: str) -> None:
    for name in ("Principal", "NotPrincipal"):
        with pytest.raises(S3Error, match="principal"):
            verdict({"Effect": "Deny", name: {"AWS": principal}})


NAME = "${aws:username}"
HOME = f"arn:aws:s3:::{BUCKET}/home/{NAME}"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"Resource": f"{HOME}*"}, Verdict.NOTHING),
        ({"NotResource": f"{HOME}/*"}, Verdict.NOTHING),
        ({"Condition": {"StringLike": {"s3:prefix": f"{NAME}*"}}}, Verdict.NOTHING),
        ({"Condition": {"StringNotLike": {"s3:prefix": f"{NAME}*"}}}, Verdict.NOTHING),
        ({"Effect": "Deny", "Resource": f"{HOME}/*"}, Verdict.NOTHING),
        ({"Effect": "Deny", "NotResource": f"{HOME}/*"}, Verdict.DENY),
        ({"Effect": "Deny", "Condition": {"StringNotLike": {"s3:prefix": f"{NAME}*"}}}, Verdict.DENY),
    ],
    ids=str,
)
def test_nobody_has_no_name(statement: dict[str, Any], expected: Verdict) -> None:
    assert verdict(statement, ANYBODY, s3__prefix=["x"]) is expected


@pytest.mark.parametrize("key", ["s3:TlsVersion", "s3:object-lock-remaining-retention-days", "s3:unheard"])
def test_a_condition_of_what_no_request_says_is_refused(key: str) -> None:
    with pytest.raises(S3Error, match="condition key"):
        verdict({"Effect": "Deny", "Condition": {"NumericGreaterThan": {key: 1}}})


def test_ipv4_on_a_socket_of_both() -> None:
    deny = {"Effect": "Deny", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    assert verdict(deny, aws__sourceip=["::ffff:10.1.2.3"]) is Verdict.DENY


@pytest.mark.parametrize(
    ("user", "expected"), [("bob", Verdict.NOTHING), ("alice", Verdict.DENY), (ANYBODY, Verdict.DENY)]
)
def test_a_deny_for_all_but_some(user: str, expected: Verdict) -> None:
    assert verdict({"Effect": "Deny", "NotPrincipal": {"AWS": "bob"}}, user) is expected


def test_a_deny_for_all_but_services_is_for_all_users() -> None:
    deny = {"Effect": "Deny", "NotPrincipal": {"Service": "logging.s3.amazonaws.com"}}
    assert verdict(deny, "bob") is Verdict.DENY


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
