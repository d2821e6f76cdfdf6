"""What settings must be, in the words of the one who set them."""

from __future__ import annotations

import re

from ssastore.errors import ConfigError
from ssastore.routes.bgpspeaker import AS_MAX, parse_neighbours
from ssastore.rules.record import record_from_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DOMAIN = re.compile(r"(?=.{1,190}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"Lower case; with the longest bucket name in front it is still a name of DNS (RFC 1035)."
NAME_RULE = "letters, digits, dot, hyphen, underscore"


def require(claim: bool, name: str, wanted: str) -> None:
    """Raises ConfigError."""
    if not claim:
        raise ConfigError(f"{name} must be {wanted}")


def check_announce(announce: str, number: int, neighbours: str) -> None:
    """Raise ConfigError unless that is how routers can be told of a host's prefixes."""
    require(announce in ("", "kernel", "bgp"), "announce", "kernel, bgp, or empty")
    if announce == "bgp":
        require(1 <= number <= AS_MAX, "bgp_as", f"1 to {AS_MAX}")
        try:
            parse_neighbours(neighbours)
        except ConfigError as error:
            raise ConfigError(f"bgp_neighbours: {error}") from None


def check_rules(text: str) -> None:
    """A service record, or nothing. Raises ConfigError."""
    if text:
        try:
            record_from_text(text)
        except ConfigError as error:
            raise ConfigError(f"rules: {error}") from None


def check_port(name: str, port: int) -> None:
    """Raises ConfigError."""
    require(1 <= port <= 65535, name, "1 to 65535")


def check_listen(name: str, text: str) -> None:
    """See ``parse_listen``. Raises ConfigError."""
    try:
        parse_listen(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of ``HOST:PORT``, IPv6 hosts in brackets. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{text!r} must be HOST:PORT, as in [::1]:7482")
    check_port("port", int(port))
    return host.strip("[]"), int(port)


def check_tls(name: str, files: tuple[str, str, str]) -> None:
    """All settings of TLS or none. Raises ConfigError."""
    if name or any(files):
        require(DOMAIN.fullmatch(name) is not None, "tls_name", "a name such as store.example.org, with TLS")
        for setting, path in zip(("tls_ca", "tls_cert", "tls_key"), files, strict=True):
            require(path != "", setting, "the name of a file, with tls_name")
