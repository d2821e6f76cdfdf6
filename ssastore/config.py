"""Settings of a node and of a gateway: one TOML file each, checked in full before anything starts.

A wrong setting is a ConfigError that names file, line and what would be right.
Secrets are never in the file: it names files that only their owner can read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ssastore.control.address import parse_control
from ssastore.core.cluster import WEIGHT_MAX
from ssastore.core.fields import is_node_address
from ssastore.env import ControlStore
from ssastore.errors import ConfigError
from ssastore.keyspace import PLANES_MAX
from ssastore.limits import (
    BLOB_GRACE_MS,
    CALL_DEADLINE_MS,
    CALL_DEADLINE_MS_MAX,
    MAP_BYTES_DEFAULT,
    MIB,
    TOMBSTONE_KEPT_MS,
)
from ssastore.routes.bgpspeaker import AS_MAX, parse_neighbours
from ssastore.rules.hashes import KEY_BYTES, ServiceKeys
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.rule import Binding
from ssastore.transport.session import Credentials

C = TypeVar("C")

_YEAR_S = 366 * 24 * 3600
_FILE_BYTES_MAX = 1 * MIB
_DOMAIN = re.compile(r"(?=.{1,190}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"Lower case; with the longest bucket name in front it is still a name of DNS (RFC 1035)."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "letters, digits, dot, hyphen, underscore"
_WORKERS_MAX = 16
_WRAPPING_KEYS = "wrapping_keys"
_RULE_SECRETS = "rule_secrets"
_WRAPPING_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``ssastore node --config FILE``."""

    name: str
    "Name of this node, as in the control store."
    control: str
    "The control store: the path of its Unix socket, or `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`."
    data_dir: str
    "Where this node's data is. One node, one directory, on a disk of its machine."
    secrets_file: str
    "JSON with cluster_secret and access_keys; readable by its owner only."
    port: int = 7480
    "Native protocol, on all addresses of the host."
    workers: int = 1
    "Processes that share the node by lane, 1 to 16, when it joins; then the cluster's record counts."
    map_bytes: int = MAP_BYTES_DEFAULT
    "Most that one worker can store; the file grows only as it is written."
    tombstone_kept_s: int = TOMBSTONE_KEPT_MS // 1000
    "How long a delete is remembered. Shorter than an hour only for tests: calls are repeated that long."
    blob_grace_s: int = BLOB_GRACE_MS // 1000
    "How long a blob is kept for an upload that has not named it yet. Shorter than a day only for tests."
    scrub_every_s: int = 24 * 3600
    "Time from one scrub pass to the next; one begins 10 s after the start as well."
    scrub_bytes_per_s: int = 32 * MIB
    "What a scrub pass reads in a second, at most."
    lifecycle_day_s: int = 24 * 3600
    "What a day is for lifecycle rules of buckets. Shorter only for tests."
    rules: str = ""
    "The published service record, as `v=SSA1; data=content+source`: connections that break its rule end."
    rules_monitor: bool = False
    "Connections that break the rule are counted and go on: while a rule is brought in, or changed."
    manage_routes: bool = True
    "Set this host's AnyIP routes for what the node owns (needs CAP_NET_ADMIN)."
    announce: str = ""
    "How routers hear of it: `kernel`, by routes for BIRD or FRR; `bgp`, by this node; empty: by others."
    bgp_as: int = 0
    'With `announce = "bgp"`: the autonomous system of this node.'
    bgp_neighbours: str = ""
    "And the routers that are told: `ADDRESS as NUMBER`, with commas between them."
    simulated: bool = False
    "Every node is a port of ::1, as in a lab without namespaces; never on a network."
    log_format: str = "text"
    "text or json."

    def check(self) -> None:
        """Raise ConfigError for a value that no node can have."""
        parse_control(self.control)
        _require(_NAME.fullmatch(self.name) is not None, "name", _NAME_RULE)
        _check_port("port", self.port)
        _require(1 <= self.workers <= _WORKERS_MAX, "workers", f"1 to {_WORKERS_MAX}")
        _require(16 * MIB <= self.map_bytes <= 1 << 46, "map_bytes", "16 MiB to 64 TiB")
        _require(1 <= self.tombstone_kept_s <= _YEAR_S, "tombstone_kept_s", "1 s to a year")
        _require(1 <= self.blob_grace_s <= _YEAR_S, "blob_grace_s", "1 s to a year")
        _require(1 <= self.scrub_every_s <= _YEAR_S, "scrub_every_s", "1 s to a year")
        _require(1 <= self.lifecycle_day_s <= 24 * 3600, "lifecycle_day_s", "1 s to a day")
        _check_rules(self.rules)
        self._check_announce()
        _require(MIB <= self.scrub_bytes_per_s <= 1 << 40, "scrub_bytes_per_s", "1 MiB to 1 TiB")
        _require(self.log_format in ("text", "json"), "log_format", "text or json")

    def _check_announce(self) -> None:
        _require(self.announce in ("", "kernel", "bgp"), "announce", "kernel, bgp, or empty")
        _require(self.manage_routes or not self.announce, "announce", "empty without manage_routes")
        if self.announce == "bgp":
            _require(1 <= self.bgp_as <= AS_MAX, "bgp_as", f"1 to {AS_MAX}")
            try:
                parse_neighbours(self.bgp_neighbours)
            except ConfigError as error:
                raise ConfigError(f"bgp_neighbours: {error}") from None


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``ssastore gateway --config FILE``."""

    control: str
    "The control store: the path of its Unix socket, or `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`."
    secrets_file: str
    "JSON with cluster_secret, access_keys and wrapping_keys; readable by its owner only."
    name: str = ""
    "Name of this gateway in the front plane; empty: it owns no part of it, and has no addresses there."
    address: str = ""
    "With a name: the address of this host, outside the service prefix, to which routers send its part."
    weight: int = 1
    "Share of the front plane, relative to other gateways."
    s3_listen: str = "[::]:7482"
    "Address and port of the S3 interface; with a name all addresses, `[::]`."
    admin_listen: str = "[::1]:7481"
    "Address and port of health, status and metrics; empty for none."
    region: str = "us-east-1"
    "Region that requests are signed for."
    s3_domain: str = ""
    "`s3.example.org` makes `BUCKET.s3.example.org` a bucket (virtual-host style); empty: path style alone."
    rules: str = ""
    "The published service record, as for nodes: it keeps the rule; with a name, who dials it has to as well."
    rules_monitor: bool = False
    "Connections that break the rule are counted and go on, as for nodes."
    deadline_ms: int = 10_000
    "Bound on one call to a node, retries included: S3 clients retry by themselves."
    log_format: str = "text"
    "text or json."

    def check(self) -> None:
        """Raise ConfigError for a value that no gateway can have."""
        parse_control(self.control)
        for name in ("s3_listen", "admin_listen"):
            if text := getattr(self, name):
                _check_listen(name, text)
        if self.name:
            _require(_NAME.fullmatch(self.name) is not None, "name", _NAME_RULE)
            _require(
                is_node_address(self.address), "address", "a routable IPv6 address for a gateway with a name"
            )
            _require(1 <= self.weight <= WEIGHT_MAX, "weight", f"1 to {WEIGHT_MAX}")
            _require(self.s3_listen.startswith("[::]:"), "s3_listen", "[::]:PORT for a gateway with a name")
        is_domain = not self.s3_domain or _DOMAIN.fullmatch(self.s3_domain) is not None
        _require(is_domain, "s3_domain", "a domain such as s3.example.org, without a port")
        _check_rules(self.rules)
        _require(100 <= self.deadline_ms <= CALL_DEADLINE_MS_MAX, "deadline_ms", "100 to 60000")
        _require(self.log_format in ("text", "json"), "log_format", "text or json")


assert CALL_DEADLINE_MS <= CALL_DEADLINE_MS_MAX


def _require(claim: bool, name: str, wanted: str) -> None:
    if not claim:
        raise ConfigError(f"{name} must be {wanted}")


def _check_rules(text: str) -> None:
    if text:
        try:
            record_from_text(text)
        except ConfigError as error:
            raise ConfigError(f"rules: {error}") from None


def _check_port(name: str, port: int) -> None:
    _require(1 <= port <= 65535, name, "1 to 65535")


def _check_listen(name: str, text: str) -> None:
    try:
        parse_listen(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of ``HOST:PORT``, IPv6 hosts in brackets. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{text!r} must be HOST:PORT, as in [::1]:7482")
    _check_port("port", int(port))
    return host.strip("[]"), int(port)


def load(path: str, kind: type[C]) -> C:
    """Settings from a TOML file.

    Raises:
        ConfigError: unreadable, too large, not TOML, an unknown, missing or wrong setting; the
            message names file and line.
    """
    content = _read_small(path)
    try:
        text = content.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        mark = "begins with a byte order mark; " if text.startswith("\ufeff") else ""
        raise ConfigError(f"{path}: {mark}{error}") from None
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{_where(path, text, name)}: unknown setting {name!r}")
        if type(value) is not types[name]:
            wanted = types[name].__name__
            raise ConfigError(f"{_where(path, text, name)}: {name} must be {wanted}, got {value!r}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise ConfigError(f"{path}: missing {', '.join(missing)}")
    settings: Any = kind(**values)
    try:
        settings.check()
    except ConfigError as error:
        name = str(error).split(" ", 1)[0].rstrip(":")
        raise ConfigError(f"{_where(path, text, name)}: {error}") from None
    checked: C = settings
    return checked


def _read_small(path: str) -> bytes:
    """A file's bytes, bounded: it may be a device that never ends. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {_FILE_BYTES_MAX} bytes, which no such file is")
    return content


def _where(path: str, text: str, name: str) -> str:
    """``path:line`` of a setting, table or dotted key, as far as it can be found."""
    setting = re.compile(rf"[\s\[]*[\"']?{re.escape(name)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), 1):
        if setting.match(line):
            return f"{path}:{number}"
    return path


def load_secrets(path: str) -> Credentials:
    """Cluster secret and access keys.

    Raises:
        ConfigError: missing, not JSON of that shape, or readable by others than its owner.
    """
    text = _read_secret(path)
    try:
        content = json.loads(text)
        secret = bytes.fromhex(content["cluster_secret"])
        keys = {name: value.encode() for name, value in content["access_keys"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Not "from": the cause would quote the secret.
        raise ConfigError(f"{path}: must be JSON with cluster_secret (hex) and access_keys") from None
    if len(secret) < 16:
        raise ConfigError(f"{path}: cluster_secret must have at least 16 bytes")
    if not all(keys.values()):
        raise ConfigError(f"{path}: an access key must have a secret")
    return Credentials(secret, keys)


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
            bytes.fromhex(secret) for secret in json.loads(_read_secret(path)).get(_RULE_SECRETS, [])
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
    text = _read_secret(path)
    try:
        keys = [(row["id"], bytes.fromhex(row["key"])) for row in json.loads(text).get(_WRAPPING_KEYS, [])]
        is_good = all(_NAME.fullmatch(name) and len(key) == _WRAPPING_KEY_BYTES for name, key in keys)
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


def _change_wrapping_keys(path: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    """Compare and set: a key that somebody else adds meanwhile is not lost, nor what it wraps."""
    path = os.path.realpath(path)  # Of a link, what it leads to is replaced.
    with _locked(path):
        text = _read_secret(path)
        load_secrets(path)
        load_wrapping_keys(path)
        content = json.loads(text)
        changed = json.dumps(content | {_WRAPPING_KEYS: change(content.get(_WRAPPING_KEYS, []))})
        if _read_secret(path) != text:
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


def _read_secret(path: str) -> bytes:
    """A file's bytes, if only its owner can read it. Raises ConfigError."""
    text = _read_small(path)
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise ConfigError(f"{path}: readable by others; run: chmod 600 {path}")
    return text


def open_control(control: str, secrets_file: str) -> ControlStore:
    """A client of the control store that a setting names; nothing is connected before its first call.

    The secrets file may hold ``etcd``, with user and password.

    Raises:
        ConfigError: the setting, the secrets file, or a file for TLS is wrong.
    """
    # Each loads much that the other has no use for.
    if (address := parse_control(control)) is None:
        from ssastore.control.embedded import EmbeddedControlStore

        return EmbeddedControlStore(Path(control))
    from ssastore.control.etcd import EtcdControlStore

    user, password = _etcd_login(secrets_file)
    return EtcdControlStore(address, user=user, password=password)


def _etcd_login(path: str) -> tuple[str, str]:
    """(user, password) for etcd; empty when the secrets file names none. Raises ConfigError."""
    text = _read_secret(path)
    try:
        login = json.loads(text).get("etcd", {})
        user, password = (login["user"], login["password"]) if login else ("", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        user = None
    if not isinstance(user, str) or not isinstance(password, str) or bool(user) != bool(password):
        raise ConfigError(f"{path}: etcd must have user and password, two texts") from None
    return user, password


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


def write_private(path: str | Path, text: str) -> None:
    """Replace a file by one that only its owner can read: durable, and never seen half written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
