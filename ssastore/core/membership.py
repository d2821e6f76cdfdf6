"""Who is there: records that live as long as a lease of the node, and how a node keeps its own.

alive/NAME    AliveRecord    under a lease of the node's worker 0; gone some seconds after it
absent/NAME   AbsentRecord   of a node whose lease is gone: since when, and what is done about it;
                             written by the coordinator (``core.guardian``)

For people, and for what should be recovered.  Nothing is made safe by a lease: a node without one
goes on serving, and one that is cut off from the control store does not stop for it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass

from ssastore.core.boot import Environment
from ssastore.core.fields import decode_fields, encode_fields, require, require_int
from ssastore.env import Clock, ControlStore, Item, Write
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import LEASE_MS, LEASE_RETRY_MS

log = logging.getLogger(__name__)

ALIVE_PREFIX = "alive/"
ABSENT_PREFIX = "absent/"


def alive_key(name: str) -> str:
    """Key of a node's record that it is there."""
    return ALIVE_PREFIX + name


def absent_key(name: str) -> str:
    """Key of the coordinator's record that a node is not there."""
    return ABSENT_PREFIX + name


@dataclass(frozen=True, slots=True)
class AliveRecord:
    """A node's worker 0 runs."""

    env: int
    "Id of its environment."
    boot: int
    since_ms: int
    "When it began."

    def __post_init__(self) -> None:
        require_int("env", self.env, 0, (1 << 32) - 1)
        require_int("boot", self.boot, 0, (1 << 32) - 1)
        require_int("since_ms", self.since_ms, 0, 1 << 63)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> AliveRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return AliveRecord(**decode_fields(value, "record that a node is alive", _ALIVE_FIELDS))


@dataclass(frozen=True, slots=True)
class AbsentRecord:
    """A node's lease is gone."""

    since_ms: int
    "When the coordinator missed it."
    says: str
    "What is done about it, in words."

    def __post_init__(self) -> None:
        require_int("since_ms", self.since_ms, 0, 1 << 63)
        require(type(self.says) is str, "says must be text", self.says)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> AbsentRecord:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return AbsentRecord(**decode_fields(value, "record that a node is absent", _ABSENT_FIELDS))


_ALIVE_FIELDS = set(AliveRecord.__dataclass_fields__)
_ABSENT_FIELDS = set(AbsentRecord.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Presence:
    """What the control store says of who is there."""

    alive: dict[str, AliveRecord]
    absent: dict[str, AbsentRecord]


async def read_presence(control: ControlStore) -> Presence:
    """By node name; a record that is not understood says that it is there. Raises Unavailable."""
    alive, _ = await control.list(ALIVE_PREFIX)
    absent, _ = await control.list(ABSENT_PREFIX)
    return Presence(
        {item.key.removeprefix(ALIVE_PREFIX): _alive(item) for item in alive},
        {item.key.removeprefix(ABSENT_PREFIX): _absent(item) for item in absent},
    )


def _alive(item: Item) -> AliveRecord:
    try:
        return AliveRecord.decode(item.value)
    except ConfigError:
        return AliveRecord(0, 0, 0)


def _absent(item: Item) -> AbsentRecord:
    try:
        return AbsentRecord.decode(item.value)
    except ConfigError:
        return AbsentRecord(0, "")


class Leased:
    """Keeps one record of this process: it is there for as long as the process gives signs."""

    def __init__(self, control: ControlStore, key: str, value: bytes) -> None:
        self._control = control
        self._key = key
        self._value = value
        self._lease = 0

    async def run(self) -> None:
        """For ever. Without the control store the process goes on, and tells it when it is back."""
        while True:
            try:
                await self.beat()
            except (SsaStoreError, OSError) as error:
                log.warning("lease.not_kept", extra={"reason": str(error)})
                await asyncio.sleep(LEASE_RETRY_MS / 1000)
            else:
                await asyncio.sleep(LEASE_MS / 3000)

    async def beat(self) -> None:
        """Renew the lease, or take another one; the record stands then. Raises Unavailable, Conflict."""
        is_kept = bool(self._lease) and await self._control.keep_alive(self._lease)
        if not is_kept:
            self._lease = await self._control.grant(LEASE_MS)
        # Another process of this name may have written its own record, and taken it along at its end.
        if not is_kept or not await self._is_written():
            await self._write()

    async def change(self, value: bytes) -> None:
        """Let the record say something else. Raises Unavailable, Conflict."""
        self._value = value
        if self._lease:
            await self._write()

    async def end(self) -> None:
        """Let the record go now, not when the lease is over. After ``run`` has ended."""
        lease, self._lease = self._lease, 0
        try:
            if lease:
                await self._control.revoke(lease)
        except (SsaStoreError, OSError) as error:
            log.warning("lease.not_ended", extra={"reason": str(error)})

    async def _is_written(self) -> bool:
        return await self._control.get(self._key) is not None

    async def _write(self) -> None:
        await self._control.transact([], [Write(self._key, self._value, self._lease)])


class Heartbeat(Leased):
    """Keeps a node's record that it is there."""

    def __init__(self, control: ControlStore, node: str, environment: Environment, clock: Clock) -> None:
        record = AliveRecord(environment.env_id, environment.boot, clock.now_ms())
        super().__init__(control, alive_key(node), record.encode())
