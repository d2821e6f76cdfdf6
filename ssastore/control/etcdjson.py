"""What etcd's JSON gateway is asked and how it answers: pure.

Protocol buffers as JSON: keys and values in base64, 64-bit integers as decimal text,
whatever is zero, empty or false left out.  A stream is one JSON object on a line, each
``{"result": ...}`` or ``{"error": ...}``.  An error has a gRPC code and a text; where one code
stands for several things the text decides, as in etcd's own clients: there is nothing else.

What does not have that form raises ``Unlike``: whoever answered was not etcd.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import ConfigError, Conflict, Overloaded, RequestError, StoreFull, Unavailable

RANGE = "/v3/kv/range"
TXN = "/v3/kv/txn"
WATCH = "/v3/watch"
GRANT = "/v3/lease/grant"
KEEP_ALIVE = "/v3/lease/keepalive"
REVOKE = "/v3/lease/revoke"
AUTHENTICATE = "/v3/auth/authenticate"

_INT64_MAX = (1 << 63) - 1

_INVALID_ARGUMENT = 3
_NOT_FOUND = 5
_PERMISSION_DENIED = 7
_RESOURCE_EXHAUSTED = 8
_FAILED_PRECONDITION = 9
_OUT_OF_RANGE = 11
_UNIMPLEMENTED = 12
_UNAUTHENTICATED = 16

_NO_SPACE = "etcdserver: mvcc: database space exceeded"
_AUTH_OFF = "etcdserver: authentication is not enabled"
_AUTH_OLD = "etcdserver: revision of auth store is old"
_AUTH_REASONS = (
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: user name is empty",
)


class Unlike(ConfigError):
    """The answer is not one of etcd's: a wrong address, a proxy, or a version that is too old."""


class TokenRefused(ConfigError):
    """The token, or its absence, was refused; a new one may be taken."""


class AuthIsOff(ConfigError):
    """There is nobody to authenticate with: etcd lets everybody in."""


# -- questions --------------------------------------------------------------------------------------


def range_request(key: bytes, end: bytes = b"", *, revision: int = 0, limit: int = 0) -> dict[str, Any]:
    """Read one key, or ``key <= k < end``, at a revision or now; a linearizable read."""
    request: dict[str, Any] = {"key": _b64(key), "range_end": _b64(end)}
    return request | {"revision": str(revision), "limit": str(limit)}


def count_request(key: bytes) -> dict[str, Any]:
    """A linearizable read that brings nothing but the revision."""
    return {"key": _b64(key), "count_only": True}


def txn_request(prefix: bytes, compares: Iterable[Compare], writes: Iterable[Write]) -> dict[str, Any]:
    return {
        "compare": [
            # A key that does not exist has the revision 0.
            {
                "key": _b64(prefix + compare.key.encode()),
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": str(compare.revision),
            }
            for compare in compares
        ],
        "success": [_operation(prefix, write) for write in writes],
    }


def _operation(prefix: bytes, write: Write) -> dict[str, Any]:
    key = _b64(prefix + write.key.encode())
    if write.value is None:
        return {"request_delete_range": {"key": key}}
    put = {"key": key, "value": _b64(write.value), "lease": str(write.lease or 0)}
    return {"request_put": put}


def watch_request(prefix: bytes, first_revision: int) -> dict[str, Any]:
    """``fragment``: etcd cuts what is too long for one answer."""
    start = {"key": _b64(prefix), "range_end": _b64(end_of(prefix)), "start_revision": str(first_revision)}
    return {"create_request": start | {"fragment": True}}


def end_of(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``."""
    kept = prefix.rstrip(b"\xff")
    assert kept, "a prefix begins with a slash"
    return kept[:-1] + bytes([kept[-1] + 1])


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


# -- answers ----------------------------------------------------------------------------------------


def parse(text: bytes | bytearray) -> dict[str, Any]:
    """One JSON object. Raises Unlike."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Unlike("it does not answer in JSON") from None
    return _object(found)


def result_of(line: dict[str, Any]) -> dict[str, Any]:
    """What a line of a stream brings; raises what ``refusal`` makes of an error."""
    if "error" in line:
        error = _object(line["error"])
        # etcd 3.4 and 3.5 say grpc_code, later ones code.
        code = integer(error, "grpc_code") or integer(error, "code")
        raise refusal(code, str(error.get("message", "")))
    return _object(line.get("result"))


def integer(answer: dict[str, Any], name: str) -> int:
    """A number that may be text, and is 0 when it is absent."""
    found = answer.get(name, 0)
    if isinstance(found, str) and found.removeprefix("-").isdecimal() and len(found) <= 20:
        found = int(found)
    if type(found) is not int or abs(found) > _INT64_MAX:
        raise Unlike(f"its {name} is no number")
    return found


def header_of(answer: dict[str, Any]) -> tuple[str, int]:
    """(cluster id, revision) that every answer carries."""
    header = _object(answer.get("header"))
    cluster_id = header.get("cluster_id")
    if not isinstance(cluster_id, str):
        raise Unlike("its answer carries no cluster id")
    return cluster_id, integer(header, "revision")


def items_of(answer: dict[str, Any], prefix: bytes) -> list[Item]:
    """The keys and values of a range."""
    return [
        Item(_key(kv, prefix), _bytes(kv, "value"), integer(kv, "mod_revision"))
        for kv in _list(answer, "kvs")
    ]


def events_of(result: dict[str, Any], prefix: bytes) -> list[Event]:
    """The changes of one line of a watch.

    Raises:
        WatchCompacted: it ends because the history that far back is gone.
        Unavailable, ConfigError: it was ended for another reason.
    """
    if result.get("canceled"):
        if compacted := integer(result, "compact_revision"):
            raise WatchCompacted(f"etcd remembers no changes before revision {compacted}")
        reason = str(result.get("cancel_reason", "no reason given"))
        if "permission denied" in reason or "auth" in reason:
            raise TokenRefused(f"etcd: {reason}")
        raise Unavailable(f"etcd ended the watch: {reason}")
    return [_event(_object(event), prefix) for event in _list(result, "events")]


def _event(event: dict[str, Any], prefix: bytes) -> Event:
    kv = _object(event.get("kv"))
    value = None if event.get("type") == "DELETE" else _bytes(kv, "value")
    return Event(_key(kv, prefix), value, integer(kv, "mod_revision"))


def _key(kv: Any, prefix: bytes) -> str:
    key = _bytes(_object(kv), "key")
    if not key.startswith(prefix):
        raise Unlike("it answers with keys that were not asked for")
    try:
        return key[len(prefix) :].decode()
    except UnicodeDecodeError:
        raise ConfigError(f"etcd holds a key below {prefix.decode()} that is not ours: {key!r}") from None


def _bytes(kv: dict[str, Any], name: str) -> bytes:
    try:
        return b64decode(kv.get(name, ""), validate=True)
    except (ValueError, TypeError):
        raise Unlike(f"its {name} is not base64") from None


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Unlike("its answer has another form")
    return found


def _list(answer: dict[str, Any], name: str) -> list[Any]:
    found = answer.get(name, [])
    if not isinstance(found, list):
        raise Unlike("its answer has another form")
    return found


def refusal(code: int, message: str) -> Exception:
    """What an error of etcd means here."""
    text = f"etcd: {message}"
    if code == _UNAUTHENTICATED or message == _AUTH_OLD:
        return TokenRefused(text)
    if code == _PERMISSION_DENIED or message in _AUTH_REASONS:
        return ConfigError(f"{text}; user and password of etcd are in the secrets file")
    if message == _AUTH_OFF:
        return AuthIsOff(text)
    if code == _RESOURCE_EXHAUSTED:
        return StoreFull(text) if message == _NO_SPACE else Overloaded(text)
    known: dict[int, type[Exception]] = {
        _INVALID_ARGUMENT: RequestError,
        _NOT_FOUND: Conflict,
        _FAILED_PRECONDITION: ConfigError,
        _OUT_OF_RANGE: WatchCompacted,
        _UNIMPLEMENTED: Unlike,
    }
    return known.get(code, Unavailable)(text)
