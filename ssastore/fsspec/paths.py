"""What URLs and paths say, without asking anybody. Pure.

A path is BUCKET/KEY.  The service can stand in front: ``ssa://[PREFIX]:PORT/BUCKET/KEY?replicas=N``,
or with its name in the brackets.
Keys are taken as they are, ``?`` and ``#`` too: only that one query is ours.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Network
from typing import Any

from ssastore.client import is_name, parse_url
from ssastore.errors import ConfigError
from ssastore.keyspace import service_network
from ssastore.rules.record import NATIVE_PORT

_SCHEME = "ssa://"
_WITH_SERVICE = re.compile(r"ssa://(\[[^\]/]*\](?::\d+)?)(?:/(.*?))?(\?replicas=\d+)?", re.DOTALL)
_NAME_IN_BRACKETS = re.compile(r"(?<=^ssa://)\[([^\]/:]+)\]")


def _take_apart(url: str) -> tuple[str, str, str]:
    """(host, path, query) of a URL that begins with ``ssa://[``."""
    match = _WITH_SERVICE.fullmatch(url)
    if match is None:
        # fsspec cuts URLs at "::" before anybody else sees them.
        raise ConfigError(
            f"{url!r} has no whole service prefix; '::' joins file systems in fsspec, "
            "so write the zeros: ssa://[2001:db8:5a:1:0:0:0:0]/BUCKET/KEY"
        )
    host, path, query = match.groups(default="")
    return host, path, query


def path_of(url: str) -> str:
    """BUCKET/KEY of a URL, or of a path; no slash at either end."""
    if url.startswith("ssa://["):
        url = _take_apart(url)[1]
    return url.removeprefix(_SCHEME).strip("/")


def options_of(url: str) -> dict[str, Any]:
    """What a URL says of the service, as storage options. Raises ConfigError."""
    if not url.startswith("ssa://["):
        return {}
    host, _, query = _take_apart(url)
    service, port, replicas = endpoint(f"{_SCHEME}{host}/{query}")
    options: dict[str, Any] = {"service": str(service)}
    if port != _usual_port(service):
        options["port"] = port
    if replicas:
        options["replicas"] = replicas
    return options


def url_of(service: IPv6Network | str, port: int, path: str) -> str:
    """The URL of a path, with the service in it, spelled without the ``::`` that fsspec cuts at."""
    host = service if isinstance(service, str) else _spelled_out(service)
    return f"{_SCHEME}[{host}]{'' if port == _usual_port(service) else f':{port}'}/{path}"


def _spelled_out(service: IPv6Network) -> str:
    return ":".join(f"{int(hextet, 16):x}" for hextet in service.network_address.exploded.split(":"))


def _usual_port(service: IPv6Network | str) -> int:
    """The one that need not be told; 0 is what a name says."""
    return 0 if isinstance(service, str) else NATIVE_PORT


def endpoint(service: str) -> tuple[IPv6Network | str, int, int]:
    """(prefix or name, port, replicas or 0) of a service: ``ssa://`` URL, name, prefix, or its first address.

    Raises:
        ConfigError: it is none of them.
    """
    if service.startswith(_SCHEME):
        # A bucket may be called as a name in DNS is, so beside a bucket a name stands in brackets.
        found, port, replicas, _ = parse_url(_NAME_IN_BRACKETS.sub(r"\1", service))
        return found, port or _usual_port(found), replicas
    if is_name(service):
        return service, 0, 0
    try:
        return service_network(service if "/" in service else f"{service}/64"), NATIVE_PORT, 0
    except ValueError as error:
        raise ConfigError(f"service: {error}") from None


def split_path(path: str) -> tuple[str, str]:
    """(bucket, key); either may be empty."""
    bucket, _, key = path.partition("/")
    return bucket, key


def below(key: str) -> str:
    """What the keys below a directory begin with; ``key`` is empty for a bucket."""
    return f"{key}/" if key else ""
