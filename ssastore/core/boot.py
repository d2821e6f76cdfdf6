"""What makes an environment's ballots unique for ever: its id and the number of its starts. Coroutines.

The id is drawn at random and claimed in the control store once, so no two
environments of a cluster ever have the same; it is kept in the environment itself.  The
boot number is raised durably at every start, before the first message.
"""

from __future__ import annotations

from ssastore.core.ceiling import start_ceiling
from ssastore.core.register import Ballots
from ssastore.env import Compare, ControlStore, Randomness, Store, Write, WriteTxn
from ssastore.errors import CorruptObject

ENVIRONMENT_KEY = b"\xff\xff\xff\xff\x01environment"
"Plane f holds no data, so its last locator is free for bookkeeping."

ENV_PREFIX = "env/"

_CLAIMS_MAX = 100


async def start_environment(
    store: Store, control: ControlStore, randomness: Randomness, owner: str
) -> Ballots:
    """Ballots for this start of an environment.

    Args:
        store: the environment.
        control: where a new id is claimed.
        randomness: draws a new id.
        owner: node and worker, for operators who read the control store.

    Raises:
        Unavailable: the control store does not answer.
        CorruptObject: the environment's own record is damaged.
    """
    with store.read() as txn:
        stored = txn.get(ENVIRONMENT_KEY)
        env_id, boot = _decode(bytes(stored)) if stored is not None else (0, 0)
    if not env_id:
        env_id = await _claim(control, randomness, owner)

    def raise_boot(txn: WriteTxn) -> None:
        if stored is None:
            start_ceiling(txn)
        txn.put(ENVIRONMENT_KEY, env_id.to_bytes(4, "big") + (boot + 1).to_bytes(4, "big"), use_reserve=True)

    await store.submit(raise_boot)
    return Ballots(env_id, boot + 1)


def _decode(stored: bytes) -> tuple[int, int]:
    if len(stored) != 8:
        raise CorruptObject("the record of this environment's id and boot is damaged")
    return int.from_bytes(stored[:4], "big"), int.from_bytes(stored[4:], "big")


async def _claim(control: ControlStore, randomness: Randomness, owner: str) -> int:
    for _ in range(_CLAIMS_MAX):
        env_id = int.from_bytes(randomness.bytes(4), "big")
        key = f"{ENV_PREFIX}{env_id:08x}"
        if env_id and await control.transact([Compare(key, 0)], [Write(key, owner.encode())]):
            return env_id
    raise CorruptObject("the control store has no free environment id")
