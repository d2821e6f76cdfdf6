"""The JSON of the control store's records: exact fields, a format number, and checks. Pure."""

from __future__ import annotations

import json
import re
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from ssastore.errors import ConfigError
from ssastore.keyspace import service_network

FORMAT = 1


def encode_fields(fields: dict[str, Any], number: int = FORMAT) -> bytes:
    """A record; ``number`` is that of its format."""
    return json.dumps({"format": number, **fields}).encode()


def decode_fields(value: bytes, what: str, *formats: set[str]) -> dict[str, Any]:
    """Inverse of ``encode_fields``; a record has the fields of format 1, 2, ... ConfigError: it has not."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: not JSON: {error}") from error
    number = found.pop("format", None) if type(found) is dict else None
    if type(number) is not int or not 1 <= number <= len(formats):
        raise ConfigError(f"{what}: format {number!r}, this version reads up to {len(formats)}")
    return exact_fields(found, what, formats[number - 1])


def exact_fields(found: Any, what: str, fields: set[str]) -> dict[str, Any]:
    """A JSON object that has exactly these fields. ConfigError: it has not."""
    if type(found) is not dict or found.keys() != fields:
        raise ConfigError(f"{what}: wants exactly the fields {', '.join(sorted(fields))}")
    return found


def require(claim: bool, rule: str, got: object) -> None:
    """ConfigError unless ``claim``."""
    if not claim:
        raise ConfigError(f"{rule}, got {got!r}")


def require_int(what: str, value: object, first: int, last: int) -> None:
    """ConfigError unless ``value`` is an integer within the bounds."""
    # bool is an int for isinstance, and JSON's true must not pass for 1.
    if type(value) is not int or not first <= value <= last:
        raise ConfigError(f"{what} must be an integer from {first} to {last}, got {value!r}")


def is_match(pattern: re.Pattern[str], value: object) -> bool:
    """Whether it is text that the pattern is all of."""
    return type(value) is str and pattern.fullmatch(value) is not None


def is_canonical_service(value: object) -> bool:
    """Whether it is a service /64 in the one spelling that is compared."""
    try:
        return type(value) is str and str(service_network(value)) == value
    except ValueError:
        return False


def is_node_address(value: object) -> bool:
    """Whether it is an address that a node can have, in the one spelling that is compared."""
    try:
        address = IPv6Address(value) if type(value) is str else None
    except AddressValueError:
        return False
    if address is None or address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    # Text is compared as text, so there is one spelling; Python versions spell mapped ones differently.
    return str(address) == value and address.ipv4_mapped is None and address.scope_id is None
