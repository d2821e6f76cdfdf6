"""Which slices vote: every row of the judgement, and what of it is on disk."""

from __future__ import annotations

import pytest

from ssastore.core.boot import Environment
from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.core.moving import begin_move, cancel_move, finish_move
from ssastore.core.records import standing_key
from ssastore.core.standing import (
    UNTOUCHED,
    Standing,
    State,
    judge,
    pack_stands,
    read_standings,
    unpack_stands,
    write_standing,
)
from ssastore.errors import BadFrame
from ssastore.store.memory import MemoryStore

FIRST, LATER = 7, 8
OWNERS = (PlaneOwner("a"), PlaneOwner("b"), PlaneOwner("c"))
FRESH = GroupRecord(0xA3F, OWNERS)
BEGUN = FRESH.begin_recovery(1, LATER)
DONE = BEGUN.finish_recovery(1)
ZONES = dict.fromkeys("abcd", "")
MOVING = begin_move(FRESH, 1, "d", LATER, ZONES)
CANCELLED = cancel_move(MOVING, 1)
MOVING_AGAIN = begin_move(CANCELLED, 1, "d", LATER, ZONES)
MOVED = finish_move(MOVING, 1)
AGAIN = DONE.begin_recovery(1, LATER).finish_recovery(1)


def environment(env_id: int) -> Environment:
    return Environment(env_id, 1, FIRST)


@pytest.mark.parametrize(
    ("record", "env_id", "standing", "expected"),
    [
        (FRESH, FIRST, UNTOUCHED, State.ACTIVE),
        (FRESH, LATER, UNTOUCHED, State.QUARANTINED),
        (BEGUN, LATER, UNTOUCHED, State.RECOVERING),
        (BEGUN, LATER, Standing(3, 2), State.FILLED),
        (BEGUN, FIRST, UNTOUCHED, State.QUARANTINED),
        (DONE, LATER, Standing(3, 2), State.ACTIVE),
        (DONE, LATER, UNTOUCHED, State.QUARANTINED),
        (DONE, LATER, Standing(5, 2), State.UNKNOWN),
        (DONE, FIRST, UNTOUCHED, State.QUARANTINED),
        (DONE, LATER, Standing(3, 3), State.UNKNOWN),
        (BEGUN, LATER, Standing(1, 3), State.UNKNOWN),
        (AGAIN, LATER, Standing(3, 2), State.QUARANTINED),
        (AGAIN, LATER, Standing(5, 3), State.ACTIVE),
        (MOVING, FIRST, UNTOUCHED, State.ACTIVE),
        (MOVING, FIRST, Standing(1, 1, 2), State.SEALED),
        (MOVING, LATER, UNTOUCHED, State.QUARANTINED),
        (FRESH, FIRST, Standing(1, 1, 2), State.UNKNOWN),
        (CANCELLED, FIRST, Standing(1, 1, 2), State.ACTIVE),
        (CANCELLED, FIRST, Standing(0, 1, 2), State.QUARANTINED),
        (MOVING_AGAIN, FIRST, Standing(1, 1, 2), State.ACTIVE),
        (MOVING_AGAIN, FIRST, Standing(1, 1, 4), State.SEALED),
        (MOVED, LATER, Standing(3, 1, 2), State.ACTIVE),
        (MOVED, LATER, Standing(0, 1, 2), State.QUARANTINED),
        (MOVED, FIRST, Standing(3, 1, 2), State.QUARANTINED),
    ],
)
def test_judgement(record: GroupRecord, env_id: int, standing: Standing, expected: State) -> None:
    assert judge(record, 1, environment(env_id), standing) is expected


def test_mates_of_a_recovered_plane_go_on_voting() -> None:
    """Their own planes were not touched: only the cfg is new to them."""
    for record in (BEGUN, DONE):
        assert judge(record, 0, environment(FIRST), UNTOUCHED) is State.ACTIVE
        assert judge(record, 0, environment(FIRST), Standing(1, record.cfg)) is State.ACTIVE


async def test_standings_are_durable_and_found_again() -> None:
    store = MemoryStore()
    await store.submit(lambda txn: write_standing(txn, 0x1A3F, Standing(5, 3)))
    await store.submit(lambda txn: write_standing(txn, 0x1A40, Standing(5, 3, 6)))
    with store.read() as txn:
        assert read_standings(txn) == {0x1A3F: Standing(5, 3), 0x1A40: Standing(5, 3, 6)}
        assert len(txn.get(standing_key(0x1A3F)) or b"") == 16, "as before there were seals"


async def test_damaged_standing_makes_its_slice_a_lost_one() -> None:
    store = MemoryStore()
    for slice16 in (0x1A3E, 0x1A3F, 0x1A40, 0x1A41):
        await store.submit(lambda txn, slice16=slice16: write_standing(txn, slice16, Standing(3, 2)))
    store.poke(standing_key(0x1A3F), b"rotten rotten")
    await store.submit(lambda txn: txn.put(standing_key(0x1A41), b"short"))
    with store.read() as txn:
        found = read_standings(txn)
    assert found[0x1A3E] == found[0x1A40] == Standing(3, 2)
    for damaged in (0x1A3F, 0x1A41):
        assert judge(DONE, 1, environment(LATER), found[damaged]) is State.QUARANTINED
        assert judge(FRESH, 0, environment(FIRST), found[damaged]) is State.QUARANTINED


def test_stands_travel() -> None:
    stands = [(0, 1), (0xA3F, 1 << 40)]
    assert unpack_stands(pack_stands(stands)) == stands
    with pytest.raises(BadFrame):
        unpack_stands(pack_stands([(4096, 1)]))
