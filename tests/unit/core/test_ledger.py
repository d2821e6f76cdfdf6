"""What a shard holds, as the worker that holds it reckons."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ssastore.core.amounts import ZERO, Amount, amount_of, amount_of_row
from ssastore.core.ledger import Ledger
from ssastore.core.metadata import Metadata, Version
from ssastore.core.register import LIVE, TOMBSTONE, Value
from ssastore.messages import HOLD_BYTES, Kind

UPLOAD = b"key\0" + b"a" * 32
PLANES = frozenset((0, 1, 2))


def ledger_of(size: int, objects: int = 100, *, used: Amount = ZERO) -> Ledger:
    ledger = Ledger(bytes(HOLD_BYTES), 1, PLANES, Amount(size, objects), ZERO)
    ledger.count(used, Counter(), PLANES)
    return ledger


def one(size: int) -> Amount:
    return Amount(size, 1)


def live(size: int, etag: str = "e", version: str = "") -> Value:
    described = Metadata(etag, size, version=Version(version) if version else None)
    return Value(LIVE, 1, described.encode())


def test_amounts_are_those_of_what_users_have() -> None:
    assert amount_of(Kind.OBJECT, live(5)) == Amount(5, 1)
    assert amount_of(Kind.VERSION, live(5, version="v")) == Amount(5, 1)
    assert amount_of(Kind.VERSION, live(0, etag="", version="v")) == ZERO, "a mark that it was deleted"
    assert amount_of(Kind.PART, live(5)) == Amount(5, 0)
    assert amount_of(Kind.UPLOAD, live(5)) == ZERO
    assert amount_of(Kind.OBJECT, Value(TOMBSTONE, 1)) == ZERO
    assert amount_of_row(Kind.VERSION, "", 7) == Amount(7, 1), "who has bytes is no mark, whatever it says"


def test_what_does_not_fit_is_not_charged_and_says_what_it_lacks() -> None:
    ledger = ledger_of(10, 2)
    assert ledger.charge(ZERO, one(8)) is not None
    assert ledger.charge(ZERO, one(3)) is None
    assert (ledger.used, ledger.lacks(ZERO, one(3))) == (Amount(8, 1), Amount(1, 0))
    assert ledger.charge(ZERO, one(2)) is not None
    assert ledger.charge(ZERO, one(0)) is None, "the third object"


def test_in_a_full_bucket_an_object_is_replaced_by_one_that_is_no_larger() -> None:
    ledger = ledger_of(10, 1, used=one(10))
    same = ledger.charge(one(10), one(10))
    assert same is not None
    ledger.settle(same)
    smaller = ledger.charge(one(10), one(4))
    assert smaller is not None and ledger.used == one(10), "until it is known"
    ledger.settle(smaller)
    assert ledger.used == one(4)
    gone = ledger.charge(one(4), ZERO)
    assert gone is not None
    ledger.settle(gone)
    assert ledger.used == ZERO


def test_nothing_is_credited_of_what_nobody_knows() -> None:
    ledger = ledger_of(100, used=one(10))
    charge = ledger.charge(one(10), ZERO)
    assert charge is not None
    ledger.miss(charge)
    assert ledger.used == one(10) and ledger.missed == one(10) and not ledger.is_exact


def test_what_was_not_sent_is_not_charged() -> None:
    ledger = ledger_of(10)
    charge = ledger.charge(ZERO, one(10))
    assert charge is not None
    ledger.release(charge)
    assert ledger.used == ZERO and ledger.is_exact


def test_before_the_count_all_is_used_and_counts_in_full() -> None:
    ledger = Ledger(bytes(HOLD_BYTES), 1, PLANES, Amount(10, 2), Amount(10, 2))
    assert ledger.charge(one(5), one(5)) is None, "nobody knows that it replaces five"
    ledger.share = Amount(15, 3)
    charge = ledger.charge(one(5), one(5))
    assert charge is not None
    ledger.settle(charge)
    assert ledger.used == Amount(15, 3)
    ledger.count(Amount(7, 1), Counter(), PLANES)
    assert ledger.used == Amount(12, 2), "what was found, and what came since the hold began"
    assert not ledger.is_exact


def test_parts_are_lent_to_the_object_that_is_made_of_them() -> None:
    ledger = ledger_of(10, 1)
    part = ledger.charge(ZERO, Amount(10, 0), UPLOAD, is_part=True)
    assert part is not None
    ledger.settle(part, is_part=True)
    assert ledger.charge(ZERO, one(10), UPLOAD) is None
    ledger.lend(UPLOAD, 10)
    made = ledger.charge(ZERO, one(10), UPLOAD)
    assert made is not None
    ledger.settle(made)
    ledger.lend(UPLOAD, 10)
    assert ledger.lacks(ZERO, one(3), UPLOAD) == one(3), "they are lent once"
    gone = ledger.charge(Amount(10, 0), ZERO, UPLOAD, is_part=True)
    assert gone is not None
    ledger.settle(gone, is_part=True)
    assert ledger.used == one(10)


def test_parts_of_an_object_that_was_not_made_are_their_own_again() -> None:
    ledger = ledger_of(10, 1, used=Amount(10, 0))
    ledger.lend(UPLOAD, 10)
    made = ledger.charge(ZERO, one(10), UPLOAD)
    assert made is not None
    ledger.release(made)
    gone = ledger.charge(Amount(10, 0), ZERO, UPLOAD, is_part=True)
    assert gone is not None
    ledger.settle(gone, is_part=True)
    assert ledger.used == ZERO


def test_parts_that_were_not_counted_give_nothing_when_they_go() -> None:
    ledger = Ledger(bytes(HOLD_BYTES), 1, PLANES, Amount(10, 1), ZERO)
    ledger.count(one(4), Counter({UPLOAD: 6}), PLANES)
    gone = ledger.charge(Amount(6, 0), ZERO, UPLOAD, is_part=True)
    assert gone is not None
    ledger.settle(gone, is_part=True)
    assert ledger.used == one(4)


def _play(seed: int, *, credits_in_doubt: bool) -> bool:
    """Whether the ledger never says less than what may be agreed, of writes of which not all become known."""
    draw = random.Random(seed)
    ledger = ledger_of(10_000)
    may_be: dict[int, set[int]] = {name: {0} for name in range(3)}
    for _ in range(60):
        name = draw.randrange(3)
        # A round finds one of the values that may be agreed; others may come up all the same.
        found = draw.choice(sorted(may_be[name]))
        new = draw.randrange(50)
        old = Amount(found, 1 if found else 0)
        charge = ledger.charge(old, Amount(new, 1 if new else 0))
        assert charge is not None
        if draw.random() < 0.6:
            ledger.settle(charge)
            may_be[name] = {new}
        else:
            may_be[name].add(new)
            if credits_in_doubt:
                ledger.settle(charge)
            else:
                ledger.miss(charge)
        if ledger.used.size < sum(max(sizes) for sizes in may_be.values()):
            return False
        if ledger.used.objects < sum(any(sizes) for sizes in may_be.values()):
            return False
    return True


def test_whatever_becomes_of_writes_the_ledger_never_says_too_little() -> None:
    assert all(_play(seed, credits_in_doubt=False) for seed in range(300))


def test_a_ledger_that_credits_what_is_in_doubt_is_seen() -> None:
    assert not all(_play(seed, credits_in_doubt=True) for seed in range(300))


@pytest.mark.parametrize("seed", range(5))
def test_a_count_while_writes_go_on_never_says_too_little(seed: int) -> None:
    """Names are read one after the other, each at another moment."""
    draw = random.Random(seed)
    sizes = [draw.randrange(50) for _ in range(20)]
    total = Amount(sum(sizes), 20)
    ledger = Ledger(bytes(HOLD_BYTES), 1, PLANES, None, total)
    found = ZERO
    for name in range(20):
        found += one(sizes[name])
        for _ in range(3):
            other, new = draw.randrange(20), draw.randrange(50)
            charge = ledger.charge(one(sizes[other]), one(new))
            assert charge is not None
            ledger.settle(charge)
            sizes[other] = new
    ledger.count(found, Counter(), PLANES)
    assert Amount(sum(sizes), 20).fits(ledger.used)


def test_a_size_that_cannot_be_is_nothing_that_counts_for_others() -> None:
    lie = Metadata("e", -(10**9)).encode()
    assert amount_of(Kind.OBJECT, Value(LIVE, 1, lie)) == Amount(0, 1)
    large = amount_of_row(Kind.OBJECT, "e", (1 << 64) - 1).size
    assert large > 5 << 40 and large * 4096 < 1 << 63, "the sum of a shard can be stored"


@pytest.mark.parametrize("is_listed", [False, True])
def test_parts_that_shrink_while_an_object_is_made_are_not_lent_as_they_were(is_listed: bool) -> None:
    """Seen with a thousand bytes, and replaced by one byte before or after the listing was over."""
    ledger = ledger_of(1000, used=Amount(1000, 0))

    def shrink() -> None:
        smaller = ledger.charge(Amount(1000, 0), Amount(1, 0), UPLOAD, is_part=True)
        assert smaller is not None
        ledger.settle(smaller, is_part=True)

    ledger.begin_lending(UPLOAD)
    if not is_listed:
        shrink()
    ledger.lend(UPLOAD, 1000)
    if is_listed:
        shrink()
    made = ledger.charge(ZERO, one(1000), UPLOAD)
    assert made is not None and made.lent <= 1
    assert ledger.used == one(1000), "it needs what its parts do not have any more"


def test_an_object_of_parts_of_which_nobody_knows_whether_it_is_there_is_missed() -> None:
    ledger = ledger_of(101, used=Amount(101, 1))
    ledger.lend(UPLOAD, 100)
    made = ledger.charge(one(1), one(100), UPLOAD)
    assert made is not None and made.taken == ZERO
    ledger.miss(made)
    assert not ledger.is_exact
