"""CORS: which rules S3 takes, which rule counts, and what a browser is told."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.s3 import xmlsettings
from ssastore.s3.cors import answer_headers, parse_cors, preflight_headers
from ssastore.s3.errors import S3Error


def rule(origins: list[str], methods: list[str], **more: Any) -> dict[str, Any]:
    fields = {"id": None, "headers": [], "exposed": [], "max_age_s": None} | more
    return {"origins": origins, "methods": methods, **fields}


RULES = [
    rule(["*suffix"], ["GET"]),
    rule(["start*end"], ["GET"]),
    rule(["prefix*"], ["GET", "HEAD"], exposed=["ETag", "x-amz-meta-a"], max_age_s=60),
    rule(["*.put"], ["PUT"], headers=["x-amz-*", "Content-Type"]),
    rule(["http://any"], ["DELETE"], headers=["*"]),
]


@pytest.mark.parametrize(
    ("origin", "method", "fits"),
    [
        ("foo.suffix", "GET", True),
        ("suffix", "GET", True),
        ("foo.bar", "GET", False),
        ("foo.suffix.get", "GET", False),
        ("startend", "GET", True),
        ("start1end", "GET", True),
        ("starend", "GET", False),
        ("0start12end", "GET", False),
        ("prefix.suffix", "GET", True),
        ("bla.prefix", "GET", False),
        ("foo.suffix", "PUT", False),
        ("foo.put", "PUT", True),
        ("prefix", "HEAD", True),
    ],
)
def test_first_rule_that_fits(origin: str, method: str, fits: bool) -> None:
    told = answer_headers(RULES, method, {"Origin": origin})
    assert told.get("Access-Control-Allow-Origin") == (origin if fits else None)
    if fits:
        assert method in told["Access-Control-Allow-Methods"].split(", ")
        assert told["Access-Control-Allow-Credentials"] == "true" and "Origin" in told["Vary"]


def test_answers_to_others_say_nothing() -> None:
    assert answer_headers(RULES, "GET", {}) == {}
    assert answer_headers([], "GET", {"Origin": "foo.suffix"}) == {}


def test_rule_says_what_a_page_may_see_and_for_how_long() -> None:
    told = answer_headers(RULES, "GET", {"Origin": "prefix"})
    assert told["Access-Control-Expose-Headers"] == "ETag, x-amz-meta-a"
    assert told["Access-Control-Max-Age"] == "60"


def test_rule_for_all_origins_names_none() -> None:
    told = answer_headers([rule(["*"], ["GET"])], "GET", {"Origin": "http://a"})
    assert told["Access-Control-Allow-Origin"] == "*" and "Access-Control-Allow-Credentials" not in told


def asking(origin: str, method: str, *headers: str) -> dict[str, str]:
    asked = {"Access-Control-Request-Headers": ", ".join(headers)} if headers else {}
    return {"Origin": origin, "Access-Control-Request-Method": method, **asked}


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        (asking("foo.put", "PUT"), None),
        (asking("foo.put", "PUT", "X-Amz-Date", "content-type"), "x-amz-date, content-type"),
        (asking("http://any", "DELETE", "anything"), "anything"),
    ],
)
def test_preflight_that_is_allowed(headers: dict[str, str], allowed: str | None) -> None:
    told = preflight_headers(RULES, headers)
    assert told["Access-Control-Allow-Origin"] == headers["Origin"]
    assert told.get("Access-Control-Allow-Headers") == allowed


@pytest.mark.parametrize(
    ("rules", "headers", "code", "status"),
    [
        (RULES, {}, "BadRequest", 400),
        (RULES, {"Origin": "foo.suffix"}, "BadRequest", 400),
        (RULES, asking("foo.suffix", "PATCH"), "BadRequest", 400),
        (RULES, asking("foo.suffix", "PUT"), "AccessForbidden", 403),
        (RULES, asking("foo.put", "PUT", "x-other"), "AccessForbidden", 403),
        (RULES, asking("foo.suffix", "GET", "x-amz-date"), "AccessForbidden", 403),
        (None, asking("foo.suffix", "GET"), "AccessForbidden", 403),
    ],
)
def test_preflight_that_is_not(rules: Any, headers: dict[str, str], code: str, status: int) -> None:
    with pytest.raises(S3Error) as caught:
        preflight_headers(rules, headers)
    assert (caught.value.code, caught.value.status) == (code, status)


def test_rules_come_back_as_they_were_set() -> None:
    assert parse_cors(xmlsettings.cors(RULES)) == RULES
    named = [rule(["*"], ["POST"], id="a <b>", headers=["*"], exposed=["ETag"], max_age_s=0)]
    assert parse_cors(xmlsettings.cors(named)) == named


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([], "MalformedXML"),
        ([rule([], ["GET"])], "MalformedXML"),
        ([rule(["*"], [])], "MalformedXML"),
        ([rule(["*"], ["PATCH"])], "InvalidRequest"),
        ([rule(["*"], ["get"])], "InvalidRequest"),
        ([rule(["*.*"], ["GET"])], "InvalidRequest"),
        ([rule(["*"], ["GET"], headers=["x-*-*"])], "InvalidRequest"),
        ([rule(["*"], ["GET"], exposed=["x-*"])], "InvalidRequest"),
        ([rule(["*"], ["GET"], exposed=["a\r\nb"])], "InvalidRequest"),
        ([rule(["ü"], ["GET"])], "InvalidRequest"),
        ([rule(["*"], ["GET"], id="i" * 256)], "InvalidRequest"),
        ([rule(["*"], ["GET"], max_age_s="soon")], "InvalidArgument"),
        ([rule(["*"], ["GET"], max_age_s=1 << 31)], "InvalidArgument"),
        ([rule(["*"], ["GET"])] * 101, "MalformedXML"),
    ],
)
def test_rules_that_s3_refuses(rules: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_cors(xmlsettings.cors(rules))
    assert (caught.value.code, caught.value.status) == (code, 400)
