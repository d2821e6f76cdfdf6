"""The secrets file: what opens connections, wraps keys of objects, and goes into keyed rules."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ssastore.config.claims import NAME
from ssastore.config.files import read_secret, write_private
from ssastore.errors import ConfigError
from ssastore.filewatch import FileWatch
from ssastore.keyspace import PLANES_MAX
from ssastore.rules.hashes import KEY_BYTES, ServiceKeys
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.rule import Binding
from ssastore.transport.credentials import Credentials

_WRAPPING_KEYS = "wrapping_keys"
_RULE_SECRETS = "rule_secrets"
_FURTHER_SECRETS = "further_secrets"
_EXCHANGE = "secret_exchange"
"The last step of an exchange that is under way: a step that is made again must not undo it."
_WRAPPING_KEY_BYTES = 32


def load_secrets(path: str) -> Credentials:
    """Cluster secret and access keys.

    Raises:
        ConfigError: missing, not JSON of that shape, or readable by others than its owner.
    """
    text = read_secret(path)
    try:
        content = json.loads(text)
        secret = bytes.fromhex(content["cluster_secret"])
        keys = {name: value.encode() for name, value in content["access_keys"].items()}
        further = tuple(bytes.fromhex(one) for one in content.get(_FURTHER_SECRETS, []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Not "from": the cause would quote the secret.
        raise ConfigError(f"{path}: must be JSON with cluster_secret (hex) and access_keys") from None
    if min(map(len, (secret, *further))) < 16:
        raise ConfigError(f"{path}: cluster_secret must have at least 16 bytes")
    if not all(keys.values()):
        raise ConfigError(f"{path}: an access key must have a secret")
    return Credentials(secret, keys, further)


def watch_secrets(path: str, credentials: Credentials) -> FileWatch:
    """Have credentials become those of a file: now, and whenever it changes. Raises ConfigError."""
    # It looks before the file is read: what changes meanwhile would never be seen.
    watch = FileWatch("secrets", [path], lambda: credentials.become(load_secrets(path)))
    credentials.become(load_secrets(path))
    return watch


def load_rules(text: str, path: str) -> tuple[ServiceRecord, ServiceKeys] | None:
    """The service record of a setting, and its keys with the secrets of keyed rules; None when there is none.

    Raises:
        ConfigError: the secrets file is not one; a keyed rule, and no ``rule_secrets`` in it.
    """
    if not text:
        return None
    # The cluster says how many planes there are; a record that is older must not shut new ones out.
    record = replace(record_from_text(text), replicas=PLANES_MAX)
    try:
        secrets = tuple(
            bytes.fromhex(secret) for secret in json.loads(read_secret(path)).get(_RULE_SECRETS, [])
        )
        is_good = all(len(secret) == KEY_BYTES for secret in secrets)
    except (ValueError, TypeError, AttributeError, RecursionError):
        secrets, is_good = (), False
    if not is_good:
        # Not "from": the cause would quote a secret.
        raise ConfigError(f"{path}: {_RULE_SECRETS} must be a list of {KEY_BYTES} bytes each, in hex")
    if not secrets and any(
        Binding.KEYED in (rule.locator, rule.tail) for rule in (record.data, record.front)
    ):
        raise ConfigError(f"{path}: a keyed rule needs {_RULE_SECRETS}")
    return record, ServiceKeys((record.public,), secrets)


def load_wrapping_keys(path: str) -> list[tuple[str, bytes]]:
    """(id, key) of the keys that wrap those of encrypted objects, from the secrets file; the last one wraps.

    For gateways alone: a node that does not read them cannot give them away.

    Raises:
        ConfigError: missing, not JSON of that shape, or readable by others than its owner.
    """
    text = read_secret(path)
    try:
        keys = [(row["id"], bytes.fromhex(row["key"])) for row in json.loads(text).get(_WRAPPING_KEYS, [])]
        is_good = all(NAME.fullmatch(name) and len(key) == _WRAPPING_KEY_BYTES for name, key in keys)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        keys, is_good = [], False
    if not is_good or len(dict(keys)) != len(keys):
        wanted = f"a list of id and key, {_WRAPPING_KEY_BYTES} bytes in hex, each id once"
        raise ConfigError(f"{path}: {_WRAPPING_KEYS} must be {wanted}")  # Not "from": it would quote a key.
    return keys


def add_wrapping_key(path: str, *, is_first: bool) -> str:
    """Put a new key into a secrets file; its id. ``is_first``: it unwraps, and another one goes on wrapping.

    Raises:
        ConfigError: as ``load_wrapping_keys``.
    """
    new = _new_wrapping_key()
    _change_wrapping_keys(path, lambda known: [new, *known] if is_first else [*known, new])
    return new["id"]


def use_wrapping_key(path: str, identifier: str) -> None:
    """Let a key of a secrets file wrap from now on. Raises ConfigError, also when it has no such key."""

    def change(known: list[dict[str, str]]) -> list[dict[str, str]]:
        used = [row for row in known if row["id"] == identifier]
        if not used:
            raise ConfigError(f"{path}: has no wrapping key {identifier}")
        return [row for row in known if row["id"] != identifier] + used

    _change_wrapping_keys(path, change)


def exchange_cluster_secret(path: str, step: str) -> str:
    """One step of three by which a cluster gets another secret while it runs; what the file says now.

    After each of them the file goes to all hosts, and the next one comes when everybody has read it:

        "next"     a new secret is accepted, beside the one that is used
        "switch"   the new one is used, and the former one still accepted
        "forget"   the former one is not accepted any more

    Raises:
        ConfigError: as ``load_secrets``; the step before was not made, or this one was.
    """

    def change(content: dict[str, Any]) -> dict[str, Any]:
        secret, further = content["cluster_secret"], content.pop(_FURTHER_SECRETS, [])
        known = content.pop(_EXCHANGE, "next" if further else "")
        if known != _STEPS[step][0]:
            raise ConfigError(f"{path}: {_STATES[known]}")
        if step == "next":
            return content | {_FURTHER_SECRETS: [os.urandom(32).hex()], _EXCHANGE: step}
        if step == "switch":
            return content | {"cluster_secret": further[0], _FURTHER_SECRETS: [secret], _EXCHANGE: step}
        return content

    _change_secrets(path, change)
    return _STEPS[step][1]


_STEPS = {
    "next": ("", "a new secret is accepted"),
    "switch": ("next", "the new secret is used"),
    "forget": ("switch", "the former secret is forgotten"),
}
"Of each step the one before, and what is so after it."
_STATES = {
    "": "no exchange is under way: --next begins one",
    "next": "a new secret is accepted already: --switch comes next",
    "switch": "the new secret is used already: --forget comes next",
}
"By the last step."


def _change_wrapping_keys(path: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    def change_all(content: dict[str, Any]) -> dict[str, Any]:
        return content | {_WRAPPING_KEYS: change(content.get(_WRAPPING_KEYS, []))}

    _change_secrets(path, change_all)


def _change_secrets(path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Compare and set: what somebody else adds meanwhile is not lost, as a key that wraps something."""
    path = os.path.realpath(path)  # Of a link, what it leads to is replaced.
    with _locked(path):
        text = read_secret(path)
        load_secrets(path)
        load_wrapping_keys(path)
        changed = json.dumps(change(json.loads(text)))
        if read_secret(path) != text:
            raise ConfigError(f"{path}: was changed by somebody else meanwhile; nothing is done")
        write_private(path, changed)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a file that is replaced as a whole, against all who hold it so. Raises ConfigError."""
    while True:
        try:
            # To write, which it is not: NFS lets nobody lock alone what he may only read.
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be locked: {error.strerror}") from None
            # Who had to wait may have the lock of a file that is not there any more.
            if _is_there(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_there(path: str, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _new_wrapping_key() -> dict[str, str]:
    return {"id": os.urandom(4).hex(), "key": os.urandom(_WRAPPING_KEY_BYTES).hex()}


def make_secrets(path: str) -> None:
    """Write a secrets file with a cluster secret, one access key and one wrapping key, all new.

    FileExistsError if there is one.
    """
    key, secret = f"SSA{os.urandom(8).hex().upper()}", urlsafe_b64encode(os.urandom(30)).decode()
    write_secrets(path, os.urandom(32), {key: secret})


def write_secrets(path: str, cluster_secret: bytes, access_keys: dict[str, str]) -> None:
    """Write a secrets file that only its owner can read, or nothing. FileExistsError if there is one."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    content: dict[str, Any] = {"cluster_secret": cluster_secret.hex(), "access_keys": access_keys}
    write_private(path, json.dumps(content | {_WRAPPING_KEYS: [_new_wrapping_key()]}))
