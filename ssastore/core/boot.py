"""The start of an environment: which one it is, and whether it may still vote.

An environment is one worker's store.  Its id is drawn once and claimed in the control
store, so no two environments of a cluster ever have the same; it is kept in the
environment itself.  The boot number is raised durably at every start and published
before the first message: together they make ballots unique for ever.

    env/ID        who claimed an id: node and worker
    first/OWNER   the first environment of a worker, written once: it votes for all slices that
                  no group record gives to another one
    mark/ID       ``core.marks``

An environment has *lost its state* when the control store or a peer was told of a later
boot or mark than its disk shows (an old copy, a disk that forgot), or when its id was
claimed by another worker.  What it may have voted since is forgotten, and its next boot
number has been used.  So it keeps its data but becomes a new environment, with a new id,
which no group record names: it is QUARANTINED until a recovery gives it slices.  An
empty directory under slices that had an environment is the same without the data.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ssastore.core.ceiling import start_ceiling
from ssastore.core.marks import Watermark, mark_name
from ssastore.core.register import Ballots
from ssastore.env import Compare, ControlStore, Item, Randomness, ReadTxn, Store, Write, WriteTxn
from ssastore.errors import ConfigError, CorruptObject

log = logging.getLogger(__name__)

ENVIRONMENT_KEY = b"\xff\xff\xff\xff\x01environment"

ENV_PREFIX = "env/"
FIRST_PREFIX = "first/"

_CLAIMS_MAX = 100
_RECORD = struct.Struct(">IIQ")

AskPeers = Callable[[int], Awaitable[Watermark]]
"""From an environment's id the highest that its peers were told; peers that do not answer know nothing."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One start of an environment."""

    env_id: int
    boot: int
    first_env: int
    "Id of the first environment of this worker."
    lost: str = ""
    "Why the state that this store had before must not be trusted; empty when it may."
    sequence: int = 0
    "Of the last mark on its disk."

    @property
    def is_first(self) -> bool:
        """Whether its worker never had another: the one that votes for what was never recovered."""
        return self.env_id == self.first_env

    def ballots(self) -> Ballots:
        """Ballots of this boot."""
        return Ballots(self.env_id, self.boot)


async def start_environment(
    store: Store, control: ControlStore, randomness: Randomness, owner: str, ask_peers: AskPeers
) -> Environment:
    """Start an environment. Until this returns it must have said nothing to anybody.

    Args:
        store: the environment.
        control: where ids, boots and first environments stand.
        randomness: draws a new id.
        owner: node and worker.
        ask_peers: what peers were told.

    Raises:
        Unavailable: the control store does not answer: the environment stays silent until it does.
        CorruptObject: the environment's own record is damaged.
    """
    with store.read() as txn:
        env_id, (boot, sequence) = read_environment(txn)
    told = await control.get(mark_name(env_id)) if env_id else None
    lost = ""
    if env_id:
        lost = await _why_lost(control, told, env_id, Watermark(boot, sequence), owner, ask_peers)
    if lost:
        log.critical("environment.quarantined", extra={"env": f"{env_id:08x}", "boot": boot, "reason": lost})
    if lost or not env_id:
        env_id, boot, sequence, told = await _claim(control, randomness, owner), 0, 0, None
    is_new = boot == 0
    await make_durable(store, env_id, Watermark(boot + 1, sequence), is_new=is_new)
    # Of two copies that start at the same time, one gets the boot number.
    mark, unchanged = Watermark(boot + 1, sequence), told.revision if told else 0
    name = mark_name(env_id)
    if await control.transact([Compare(name, unchanged)], [Write(name, mark.encode())]) is None:
        raise ConfigError(f"another process runs environment {env_id:08x} of {owner}")
    return Environment(env_id, boot + 1, await _first(control, owner, env_id), lost, sequence)


def read_environment(txn: ReadTxn) -> tuple[int, Watermark]:
    """Which environment a store is, and how far it is; 0 when it was never started. Raises CorruptObject."""
    stored = txn.get(ENVIRONMENT_KEY)
    env_id, boot, sequence = _decode(bytes(stored)) if stored is not None else (0, 0, 0)
    return env_id, Watermark(boot, sequence)


async def make_durable(store: Store, env_id: int, mark: Watermark, *, is_new: bool = False) -> None:
    """Let the environment's own disk show a mark, before anybody is told of it.

    ``is_new``: it is a new environment, which has promised nothing yet; the ceiling says so.
    """

    def change(txn: WriteTxn) -> None:
        if is_new:
            start_ceiling(txn)
        txn.put(ENVIRONMENT_KEY, _RECORD.pack(env_id, mark.boot, mark.sequence), use_reserve=True)

    await store.submit(change)


async def forget(store: Store) -> None:
    """Let a copy of a store be no environment any more, though all its data are there.

    Its next start makes it a new one, which votes for nothing until a recovery gives it slices: the one that
    was copied may have gone on voting since.
    """

    def change(txn: WriteTxn) -> None:
        txn.delete(ENVIRONMENT_KEY)

    await store.submit(change)


async def publish(control: ControlStore, env_id: int, mark: Watermark) -> bool:
    """Tell the control store how far an environment is. False: it was told of a later boot, by somebody else.

    Raises Unavailable.
    """
    key = mark_name(env_id)
    while True:
        item = await control.get(key)
        known = Watermark.decode(item.value) if item else Watermark()
        if known.boot > mark.boot:
            return False
        if known == mark:
            return True
        compare = Compare(key, item.revision if item else 0)
        if await control.transact([compare], [Write(key, mark.encode())]) is not None:
            return True


async def _why_lost(
    control: ControlStore, told: Item | None, env_id: int, mark: Watermark, owner: str, ask_peers: AskPeers
) -> str:
    """Why the state of an environment must not be trusted; empty when nobody knows better."""
    item = await control.get(f"{ENV_PREFIX}{env_id:08x}")
    if item is None:
        return "the control store does not know this environment"
    if item.value != owner.encode():
        return f"the environment belongs to {item.value.decode(errors='replace')}, this is {owner}"
    for who, known in (
        ("the control store was", Watermark.decode(told.value) if told else Watermark()),
        ("peers were", await ask_peers(env_id)),
    ):
        if mark.is_behind(known):
            return (
                f"{who} told of boot {known.boot}, mark {known.sequence}; "
                f"this disk shows boot {mark.boot}, mark {mark.sequence}"
            )
    return ""


async def _first(control: ControlStore, owner: str, env_id: int) -> int:
    """The first environment of a worker: this one, when there was none before."""
    key, packed = FIRST_PREFIX + owner, f"{env_id:08x}".encode()
    while (item := await control.get(key)) is None:
        await control.transact([Compare(key, 0)], [Write(key, packed)])
    try:
        return int(item.value, 16)
    except ValueError:
        raise ConfigError(f"{key} in the control store is no environment") from None


def _decode(stored: bytes) -> tuple[int, int, int]:
    """(id, boot, sequence); before there were marks, a record had eight bytes."""
    if len(stored) not in (8, _RECORD.size):
        raise CorruptObject("the record of this environment's id and boot is damaged")
    env_id, boot, sequence = _RECORD.unpack(stored.ljust(_RECORD.size, b"\0"))
    return env_id, boot, sequence


async def _claim(control: ControlStore, randomness: Randomness, owner: str) -> int:
    for _ in range(_CLAIMS_MAX):
        env_id = int.from_bytes(randomness.bytes(4), "big")
        key = f"{ENV_PREFIX}{env_id:08x}"
        if env_id and await control.transact([Compare(key, 0)], [Write(key, owner.encode())]):
            return env_id
    raise CorruptObject("the control store has no free environment id")
