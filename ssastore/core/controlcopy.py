"""What a node keeps of the control store beside its data, so that a lost one can be made anew.

Pure, but for reading it.

Everything that stands there for good: the cluster, its nodes and groups, who claimed which environment, what
an operator has set.  Not what lives by a lease, no orders, no marks, which environments have themselves.

It may be some seconds old.  What has happened since shows in the standings of the environments
(``core.rebuilding``).

A *backup* is the same in a file that an operator keeps elsewhere, and may be of any age:

    ssastore control backup 1 SHA-256-OF-THE-REST
    {"format": 1, "taken_ms": ..., "items": {...}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ssastore.core.boot import ENV_PREFIX, FIRST_PREFIX
from ssastore.core.cluster import CLUSTER_KEY, NODE_PREFIX, ClusterRecord, node_key
from ssastore.core.clusterview import ClusterView
from ssastore.core.fields import decode_fields, encode_fields, require, require_int
from ssastore.core.groups import GROUP_PREFIX, group_key
from ssastore.core.settings import SETTING_PREFIX
from ssastore.env import ControlStore
from ssastore.errors import ConfigError

_LISTED = (FIRST_PREFIX, ENV_PREFIX, SETTING_PREFIX)
_KEPT = (NODE_PREFIX, GROUP_PREFIX, *_LISTED)

_BACKUP = b"ssastore control backup "
_BACKUP_FORMAT = b"1"


@dataclass(frozen=True, slots=True)
class ControlCopy:
    """Keys and values as they were at about one time."""

    taken_ms: int
    items: Mapping[str, bytes]

    @property
    def cluster_id(self) -> str:
        """ConfigError: the copy is of no cluster."""
        return ClusterRecord.decode(self.items.get(CLUSTER_KEY, b"")).cluster_id

    def encode(self) -> bytes:
        items = {key: self.items[key].decode() for key in sorted(self.items)}
        return encode_fields({"taken_ms": self.taken_ms, "items": items})

    @staticmethod
    def decode(value: bytes) -> ControlCopy:
        """Inverse of ``encode``. ConfigError: not such a record."""
        found = decode_fields(value, "copy of the control store", {"taken_ms", "items"})
        require_int("taken_ms", found["taken_ms"], 0, 1 << 63)
        items = found["items"]
        is_text = type(items) is dict and all(type(text) is str for text in items.values())
        require(is_text, "items must be keys and values", type(items))
        copy = ControlCopy(found["taken_ms"], {key: text.encode() for key, text in items.items()})
        _ = copy.cluster_id
        return copy


async def read_copy(view: ClusterView, control: ControlStore, now_ms: int) -> ControlCopy:
    """Take one: groups and nodes as they are followed, the rest from the control store.

    Raises Unavailable; ConfigError: there is no cluster, or a value is no text.
    """
    cluster = await control.get(CLUSTER_KEY)
    if cluster is None:
        raise ConfigError("the control store holds no cluster")
    items = {CLUSTER_KEY: cluster.value}
    items |= {node_key(name): node.encode() for name, node in view.nodes.items()}
    items |= {group_key(group): record.encode() for group, record in view.groups.items()}
    for prefix in _LISTED:
        items |= {found.key: found.value for found in (await control.list(prefix))[0]}
    return _made(now_ms, items)


async def read_whole(control: ControlStore, now_ms: int) -> ControlCopy:
    """Take one of a single moment, from the control store alone.

    Raises Unavailable; ConfigError: there is no cluster, or a value is no text.
    """
    found, _ = await control.list("")
    items = {item.key: item.value for item in found if item.key.startswith(_KEPT)}
    items |= {item.key: item.value for item in found if item.key == CLUSTER_KEY}
    if CLUSTER_KEY not in items:
        raise ConfigError("the control store holds no cluster")
    return _made(now_ms, items)


def encode_backup(copy: ControlCopy) -> bytes:
    """A backup's file."""
    body = copy.encode()
    head = _BACKUP + _BACKUP_FORMAT + b" " + hashlib.sha256(body).hexdigest().encode()
    return head + b"\n" + body + b"\n"


def is_backup(value: bytes) -> bool:
    """Whether it begins as a backup of any format."""
    return value.startswith(_BACKUP)


def decode_backup(value: bytes) -> ControlCopy:
    """Inverse of ``encode_backup``. ConfigError: it is none, of a newer format, cut or changed."""
    head, _, body = value.partition(b"\n")
    number, _, digest = head.removeprefix(_BACKUP).partition(b" ")
    require(is_backup(value), "a backup of a control store begins otherwise", value[:40])
    known = _BACKUP_FORMAT.decode()
    require(number == _BACKUP_FORMAT, f"a backup's format must be {known} for this version", number)
    body = body.removesuffix(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ConfigError("the backup is damaged: it is not what its checksum says")
    return ControlCopy.decode(body)


def _made(now_ms: int, items: dict[str, bytes]) -> ControlCopy:
    try:
        for value in items.values():
            value.decode()
    except ValueError as error:
        raise ConfigError("the control store holds what this version has not written") from error
    return ControlCopy(now_ms, items)
