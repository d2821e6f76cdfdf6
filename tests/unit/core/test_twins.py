"""Versions that have two records: whatever becomes of writes, nothing counts too little."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import product
from typing import Any, cast

import pytest

from ssastore.core.amounts import ZERO, Amount, amount_of
from ssastore.core.bill import OneBill
from ssastore.core.ledger import Ledger
from ssastore.core.metadata import Metadata, Version
from ssastore.core.names import RecordName
from ssastore.core.place import expected_position
from ssastore.core.register import LIVE, TOMBSTONE, Value
from ssastore.core.shardname import ShardName
from ssastore.core.shardplanes import Reckoned
from ssastore.core.twins import Change, Record, Twins, other_of
from ssastore.core.versionnames import NAME_LENGTH, version_key
from ssastore.messages import HOLD_BYTES, Kind

KEY = b"key"
PLANES = frozenset((0, 1, 2))
GONE = Value(TOMBSTONE, 1)
NAMES = [f"{number}" * NAME_LENGTH for number in range(3)]
OBJECT = (Kind.OBJECT, KEY)


def version(name: str, size: int) -> Value:
    return Value(LIVE, 1, Metadata("e", size, version=Version(name)).encode())


def kept(name: str) -> Record:
    return Kind.VERSION, version_key(KEY, name)


class Shard:
    """The planes of a shard, and who counts it: what each record may be, and may be seen to be."""

    def __init__(self, share: Amount) -> None:
        self.ledger = Ledger(bytes(HOLD_BYTES), 1, PLANES, share, ZERO)
        self.ledger.count(ZERO, Counter(), PLANES)
        self.ledger.twins.count({}, [])
        self.ledgers = {ShardName(7, 1, 0): self.ledger}
        self.may_be: dict[Record, list[Value]] = {OBJECT: [GONE], **{kept(name): [GONE] for name in NAMES}}

    def ledger_of(self, shard: ShardName, cfg: int) -> Ledger:
        return self.ledger

    def check(self, shard: ShardName, ledger: Ledger) -> None:
        pass

    async def grant(self, *_: Any) -> bool:
        return False

    async def count_again(self, *_: Any) -> None:
        pass

    async def audit(self, *_: Any) -> None:
        pass

    def credited(self, *_: Any) -> None:
        pass

    async def is_twin(self, shard: ShardName, ledger: Ledger, change: Change, pair: bytes) -> bool:
        other = other_of(change.record, pair)
        if not ledger.twins.is_certain(other):
            return False
        (value,) = self.may_be[other]
        known = Change(other, value, value)
        return (known.was, known.before) == (pair, change.after)

    def bill(self, record: Record) -> OneBill:
        kind, key = record
        bill = OneBill(cast(Any, self), RecordName(expected_position(7, 1, key), kind, 7, 1, key))
        bill.look(1)
        return bill

    async def write(self, record: Record, old: Value, new: Value, outcome: str) -> bool:
        bill = self.bill(record)
        if not await bill.charge(old, new):
            return False
        if outcome == "chosen":
            bill.settle()
            self.may_be[record] = [new]
        elif outcome == "not sent":
            bill.release()
        else:
            self.may_be[record].append(new)
        bill.end()
        return True

    def most(self) -> Amount:
        """What the records have at most, in bytes and in objects."""
        most = ZERO
        for values in product(*self.may_be.values()):
            found, once = ZERO, set[bytes]()
            for record, value in zip(self.may_be, values, strict=True):
                pair = Change(record, value, value).was
                if not pair or pair not in once:
                    found += amount_of(record[0], value)
                once.add(pair)
            most = most.most(found)
        return most


async def play(seed: int) -> tuple[bool, int]:
    """Whether the ledger never says less than what there may be, and how often something was lent."""
    draw = random.Random(seed)
    shard, lent = Shard(Amount(25, 3)), 0
    values = [version(name, 10 - number) for number, name in enumerate(NAMES)]
    for _ in range(40):
        number = draw.randrange(3)
        record = draw.choice([OBJECT, kept(NAMES[number])])
        old = draw.choice(shard.may_be[record])
        new = draw.choice([values[number], values[number], GONE])
        pairs = len(shard.ledger.twins._pairs)
        await shard.write(
            record, old, new, draw.choice(["chosen", "chosen", "chosen", "not sent", "unknown"])
        )
        lent += len(shard.ledger.twins._pairs) > pairs
        if len(shard.may_be[record]) > 3:
            return True, lent
        if not shard.most().fits(shard.ledger.used):
            return False, lent
    return True, lent


def run(seeds: int) -> tuple[bool, int]:
    async def all_of_them() -> tuple[bool, int]:
        found = [await play(seed) for seed in range(seeds)]
        return all(is_good for is_good, _ in found), sum(lent for _, lent in found)

    return asyncio.run(all_of_them())


def test_whatever_becomes_of_writes_nothing_counts_too_little() -> None:
    is_good, lent = run(400)
    assert is_good and lent > 100


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("base", lambda self, change: change.before),
        ("is_certain", lambda self, record: record not in self._doubted or True),
    ],
)
def test_who_takes_pairs_for_less_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    monkeypatch.setattr(Twins, name, wrong)
    with pytest.raises((AssertionError, ValueError)):
        assert run(400)[0]


async def test_a_version_is_kept_and_its_object_deleted_in_a_full_shard() -> None:
    shard, value = Shard(Amount(10, 1)), version(NAMES[0], 10)
    assert await shard.write(OBJECT, GONE, value, "chosen")
    assert not await shard.write(kept(NAMES[1]), GONE, version(NAMES[1], 10), "chosen"), "it is another one"
    assert await shard.write(kept(NAMES[0]), GONE, value, "chosen")
    assert not await shard.write(OBJECT, value, version(NAMES[1], 10), "chosen"), "both need room"
    assert await shard.write(OBJECT, value, value, "chosen"), "its tags are changed"
    assert await shard.write(OBJECT, value, GONE, "chosen")
    assert shard.ledger.used == Amount(10, 1)
    assert await shard.write(kept(NAMES[0]), value, GONE, "chosen")
    assert shard.ledger.used == ZERO


async def test_nothing_is_lent_of_what_is_in_doubt() -> None:
    shard, value = Shard(Amount(20, 2)), version(NAMES[0], 10)
    await shard.write(OBJECT, GONE, value, "chosen")
    await shard.write(OBJECT, value, version(NAMES[1], 10), "unknown")
    await shard.write(kept(NAMES[2]), GONE, version(NAMES[2], 10), "chosen")
    assert not await shard.write(kept(NAMES[0]), GONE, value, "chosen")


async def test_what_is_chosen_beside_it_makes_no_doubt_certain() -> None:
    """The one in doubt may have the higher ballot, and come up later."""
    shard, value, other = Shard(Amount(10, 1)), version(NAMES[0], 10), version(NAMES[1], 10)
    await shard.write(OBJECT, GONE, value, "chosen")
    one, two = shard.bill(OBJECT), shard.bill(OBJECT)
    assert await one.charge(value, other) and await two.charge(value, value)
    one.end()
    two.settle()
    assert not await shard.write(kept(NAMES[0]), GONE, value, "chosen")


async def in_full_shard() -> tuple[Shard, Value]:
    shard, value = Shard(Amount(10, 1)), version(NAMES[0], 10)
    assert await shard.write(OBJECT, GONE, value, "chosen")
    return shard, value


async def test_a_pair_lasts_while_its_record_may_come_back() -> None:
    """Kept by one whose outcome nobody knows, deleted by another: the first may come up after that."""
    shard, value = await in_full_shard()
    one, two = shard.bill(kept(NAMES[0])), shard.bill(kept(NAMES[0]))
    assert await one.charge(GONE, value) and await two.charge(value, GONE)
    two.settle()
    one.end()
    assert not await shard.write(OBJECT, value, version(NAMES[1], 10), "chosen")


async def test_a_pair_lasts_while_another_call_has_made_it() -> None:
    shard, value = await in_full_shard()
    one, two = shard.bill(kept(NAMES[0])), shard.bill(kept(NAMES[0]))
    assert await one.charge(GONE, value) and await two.charge(GONE, value)
    one.release()
    two.settle()
    assert not await shard.write(OBJECT, value, version(NAMES[1], 10), "chosen")


def test_who_looks_is_told_when_something_was_sent_meanwhile() -> None:
    twins = Twins()
    twins.watch(OBJECT)
    assert twins.was_still(OBJECT)
    twins.watch(OBJECT)
    twins.begin(OBJECT)
    twins.end(OBJECT)
    assert not twins.was_still(OBJECT)


def row(key: bytes, size: int, ballot: bytes, name: str | None = None) -> list[Any]:
    return [key, 1, "e", size, ballot] if name is None else [key, 1, "e", size, name, ballot]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([(NAMES[0], 10, b"1")] * 2, Amount(10, 1)),
        ([(NAMES[2], 10, b"1")] * 2, Amount(20, 2)),
        ([(NAMES[0], 10, b"1"), (NAMES[2], 7, b"2")], Amount(17, 2)),
        ([(NAMES[0], 10, b"1"), (NAMES[0], 10, b"2")], Amount(10, 1)),
    ],
)
def test_a_count_takes_both_records_for_one(objects: list[tuple[str, int, bytes]], expected: Amount) -> None:
    """And of what is in doubt the most that there may be."""
    found = Reckoned(frozenset((0, 1)))
    stored = version_key(KEY, NAMES[0])
    amount = found.add(Kind.VERSION, stored, [row(stored, 10, b"0", NAMES[0])] * 2, set())
    is_pair = any(name == NAMES[0] for name, *_ in objects)
    rows = [row(KEY, size, ballot, name) for name, size, ballot in objects]
    found.add_object(KEY, rows, {stored: amount} if is_pair else {})
    assert (found.amount, set(found.pairs)) == (expected, {stored} if is_pair else set())
