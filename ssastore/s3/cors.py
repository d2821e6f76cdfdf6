"""Which pages of other origins may use a bucket: its CORS rules, and what a browser is told of them. Pure.

A browser asks before a request that could do harm (the preflight: ``OPTIONS``, without
credentials, so without authentication here), and looks at the headers of every answer.  The
rule that counts is the first one that fits the origin, the method, and in a preflight the headers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssastore.limits import CORS_ID_CHARACTERS_MAX, CORS_RULES_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number
from ssastore.s3.xmlread import Element, read_tree

Rule = dict[str, Any]
"""``origins``, ``methods``, ``headers``, ``exposed`` (lists of texts), ``max_age_s`` and ``id`` (or None):
plain, as it lies in the bucket's record."""

_METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
_MAX_AGE_S_MAX = (1 << 31) - 1
_VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


def parse_cors(body: bytes) -> list[Rule]:
    """The rules of a CORSConfiguration. S3Error MalformedXML, InvalidRequest."""
    rules = [_rule(found) for found in read_tree(body, "CORSConfiguration").all("CORSRule")]
    if not 0 < len(rules) <= CORS_RULES_MAX:
        raise S3Error("MalformedXML", f"A CORSConfiguration has 1 to {CORS_RULES_MAX} CORSRules.")
    return rules


def _rule(found: Element) -> Rule:
    origins, methods = _texts(found, "AllowedOrigin"), _texts(found, "AllowedMethod")
    headers, exposed = _texts(found, "AllowedHeader"), _texts(found, "ExposeHeader")
    if not origins or not methods:
        raise S3Error("MalformedXML", "A CORSRule needs an AllowedOrigin and an AllowedMethod.")
    if unknown := [method for method in methods if method not in _METHODS]:
        message = f"Found unsupported HTTP method in CORS config. Unsupported method is {unknown[0][:32]}"
        raise S3Error("InvalidRequest", message)
    for what, values in (("AllowedOrigin", origins), ("AllowedHeader", headers)):
        for value in values:
            if value.count("*") > 1:
                message = f'{what} "{value[:128]}" can not have more than one wildcard.'
                raise S3Error("InvalidRequest", message)
    for value in exposed:
        if "*" in value:
            message = f'ExposeHeader "{value[:128]}" contains wildcard. It is not supported for ExposeHeader.'
            raise S3Error("InvalidRequest", message)
    for value in (*origins, *headers, *exposed):
        if not value or not value.isascii() or not value.isprintable():
            raise S3Error("InvalidRequest", "Origins and headers of CORS rules are printable ASCII.")
    name = found.value("ID")
    if name is not None and len(name) > CORS_ID_CHARACTERS_MAX:
        raise S3Error("InvalidRequest", f"The ID of a rule has at most {CORS_ID_CHARACTERS_MAX} characters.")
    age = found.value("MaxAgeSeconds")
    max_age_s = None if age is None else parse_number("MaxAgeSeconds", age, least=0, most=_MAX_AGE_S_MAX)
    return {
        "id": name,
        "origins": origins,
        "methods": methods,
        "headers": headers,
        "exposed": exposed,
        "max_age_s": max_age_s,
    }


def _texts(found: Element, name: str) -> list[str]:
    elements = found.all(name)
    if any(element.children for element in elements):
        raise S3Error("MalformedXML", f"{name} must be text.")
    return [element.text.strip() for element in elements]


def _fits(pattern: str, text: str) -> bool:
    """Whether a text is as a pattern says, which has at most one ``*``."""
    first, star, last = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(first) + len(last) and text.startswith(first) and text.endswith(last)


def _first(rules: Sequence[Rule], origin: str, method: str, asked: Sequence[str]) -> tuple[Rule, str] | None:
    """The rule that counts, and what it says of the origin."""
    for rule in rules:
        found = next((pattern for pattern in rule["origins"] if _fits(pattern, origin)), None)
        if found is None or method not in rule["methods"]:
            continue
        patterns = [pattern.lower() for pattern in rule["headers"]]
        if all(any(_fits(pattern, header) for pattern in patterns) for header in asked):
            return rule, "*" if found == "*" else origin
    return None


def answer_headers(rules: Sequence[Rule], method: str, headers: Mapping[str, str]) -> dict[str, str]:
    """What the answer to a request says to browsers; nothing where no rule fits, or no page asks.

    Args:
        rules: of the bucket.
        method: of the request.
        headers: of the request, case-insensitive.
    """
    origin = headers.get("Origin")
    if origin is None:
        return {}
    found = _first(rules, origin, headers.get("Access-Control-Request-Method", method), ())
    return _headers(*found) if found else {}


def preflight_headers(rules: Sequence[Rule] | None, headers: Mapping[str, str]) -> dict[str, str]:
    """The answer to a preflight.

    Raises:
        S3Error: BadRequest when it does not say who asks for what; AccessForbidden when no rule fits, or
            there are none (``rules`` is None).
    """
    origin, method = headers.get("Origin"), headers.get("Access-Control-Request-Method")
    if origin is None:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method is None or method not in _METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {(method or 'null')[:32]}")
    if rules is None:
        raise S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
    text = headers.get("Access-Control-Request-Headers", "")
    asked = [name for name in (part.strip().lower() for part in text.split(",")) if name]
    found = _first(rules, origin, method, asked)
    if found is None:
        message = (
            "CORSResponse: This CORS request is not allowed. This is usually because the evaluation of "
            "Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers "
            "are not whitelisted by the resource's CORS spec."
        )
        raise S3Error("AccessForbidden", message, Method=method, ResourceType="OBJECT")
    told = _headers(*found)
    if asked:
        told["Access-Control-Allow-Headers"] = ", ".join(asked)
    return told


def _headers(rule: Rule, origin: str) -> dict[str, str]:
    told = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": ", ".join(rule["methods"]),
        "Vary": _VARY,
    }
    if origin != "*":
        told["Access-Control-Allow-Credentials"] = "true"
    if rule["exposed"]:
        told["Access-Control-Expose-Headers"] = ", ".join(rule["exposed"])
    if rule["max_age_s"] is not None:
        told["Access-Control-Max-Age"] = str(rule["max_age_s"])
    return told
