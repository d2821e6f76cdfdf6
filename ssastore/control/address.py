"""Where a control store is, as the setting ``control`` says it.

    /path/to/control.sock                     the socket of the embedded store
    etcd://HOST:PORT[,HOST:PORT ...][/PREFIX]
                                              etcd; all keys are below /PREFIX/, by default /ssastore/
    etcds://HOST:PORT...[/PREFIX][?ca=FILE][&cert=FILE&key=FILE]
                                              the same over TLS: whom to trust, a client's certificate

User and password are no part of it: they are in the secrets file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from ssastore.errors import ConfigError

ETCD_PORT = 2379
PREFIX_DEFAULT = "ssastore"

_ENDPOINTS_MAX = 16
_SCHEMES = {"etcd": "http", "etcds": "https"}
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_TLS_FILES = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """Endpoints of one etcd cluster, and the part of its keys that is ours."""

    endpoints: tuple[str, ...]
    "URLs without a path, in the order in which they are tried first."
    prefix: str
    "Begins and ends with a slash."
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def is_secure(self) -> bool:
        return self.endpoints[0].startswith("https")


def parse_control(text: str) -> EtcdAddress | None:
    """Where etcd is; None when ``text`` is the path of a socket.

    Raises:
        ConfigError: neither; says what is wrong, without repeating what could be a password.
    """
    scheme, is_url, rest = text.partition("://")
    if not is_url:
        if not text:
            raise ConfigError("control must be the path of a socket, or etcd://HOST:PORT")
        return None
    if scheme not in _SCHEMES:
        raise ConfigError(f"control must be the path of a socket, etcd://... or etcds://..., got {scheme}://")
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    if "@" in hosts:
        raise ConfigError("control must name no user and no password: they belong into the secrets file")
    endpoints = tuple(_endpoint(_SCHEMES[scheme], host) for host in hosts.split(","))
    if len(set(endpoints)) != len(endpoints) or len(endpoints) > _ENDPOINTS_MAX:
        raise ConfigError(f"control must name 1 to {_ENDPOINTS_MAX} different endpoints")
    path = path.strip("/") or PREFIX_DEFAULT
    if not _PREFIX.fullmatch(path) or "//" in path:
        raise ConfigError("control: a prefix is made of letters, digits, dot, hyphen, underscore and slashes")
    return EtcdAddress(endpoints, f"/{path}/", **_tls_files(scheme, query))


def _endpoint(scheme: str, text: str) -> str:
    found = _ENDPOINT.fullmatch(text)
    port = int(found["port"] or ETCD_PORT) if found else 0
    if not found or not 1 <= port <= 65535:
        raise ConfigError(f"control: {text!r} is no HOST:PORT, as in etcd.example:2379 or [2001:db8::1]:2379")
    return f"{scheme}://{found['host']}:{port}"


def _tls_files(scheme: str, query: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, file in parse_qsl(query, keep_blank_values=True):
        if name not in _TLS_FILES or name in files or not file:
            raise ConfigError(
                f"control: {name!r} is no option, or it is given twice; there are ca, cert and key"
            )
        files[name] = file
    if files and scheme != "etcds":
        raise ConfigError("control: ca, cert and key are for etcds://")
    if ("cert" in files) != ("key" in files):
        raise ConfigError("control: cert and key belong together")
    return files
