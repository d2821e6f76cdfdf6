"""The record of a quota and the shares in it."""

from __future__ import annotations

import random

import pytest

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.quota import AMOUNT_MAX, Quota, Share, decode_quota, no_quota, quota_key
from ssastore.errors import CorruptObject, RequestError
from ssastore.limits import INLINE_BYTES_MAX

BALLOT = b"b" * 16


def quota_of(size: int | None, objects: int | None, *shares: Amount | None) -> Quota:
    return Quota(1, "photos", size, objects, tuple(Share(BALLOT, share) for share in shares))


def test_record_comes_back_as_it_was() -> None:
    for quota in (
        no_quota("photos", 16),
        quota_of(10, None, Amount(1, 2), None),
        quota_of(None, 7, ZERO, ZERO),
        quota_of(AMOUNT_MAX - 1, AMOUNT_MAX - 1, Amount(AMOUNT_MAX, AMOUNT_MAX)),
    ):
        assert decode_quota(quota.encode()) == quota
    assert quota_key(0x1122334455667788) == b"quota/1122334455667788"


@pytest.mark.parametrize("packed", [b"", b"\x90", b"\x95\x01\xa1x\x01\x01\x91\x90", b"junk"])
def test_what_is_no_record_is_damaged(packed: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode_quota(packed)


def test_the_largest_record_fits() -> None:
    quota = Quota(1, "b" * 63, AMOUNT_MAX - 1, 7, (Share(BALLOT, Amount(AMOUNT_MAX, AMOUNT_MAX)),) * 1024)
    assert len(quota.encode()) < INLINE_BYTES_MAX


def test_who_cannot_have_one_is_told() -> None:
    for shards in (0, 1025):
        with pytest.raises(RequestError, match="1024 shards"):
            no_quota("photos", shards)
    for size in (-1, AMOUNT_MAX):
        with pytest.raises(RequestError, match="a limit is"):
            no_quota("photos", 16).set("photos", size, None)
    with pytest.raises(RequestError, match="bytes, or objects"):
        no_quota("photos", 16).set("photos", None, None)


def test_a_share_grows_while_the_limit_has_room() -> None:
    quota = quota_of(100, 10, Amount(40, 4), Amount(50, 4))
    granted = quota.grant(0, Amount(50, 5), ZERO)
    assert granted is not None and granted.shares[0].amount == Amount(50, 5)
    assert quota.grant(0, Amount(51, 4), ZERO) is None
    assert quota.grant(0, Amount(40, 7), ZERO) is None
    assert quota.grant(0, Amount(40, 4), Amount(5, 5)) == quota, "who lacks nothing gets nothing to spare"


def test_spare_is_what_is_left_at_most_and_of_what_is_lacking_only() -> None:
    quota = quota_of(100, 10, Amount(40, 4), Amount(50, 4))
    granted = quota.grant(0, Amount(45, 4), Amount(30, 30))
    assert granted is not None and granted.shares[0].amount == Amount(50, 4)


def test_before_all_shards_were_counted_the_quota_is_not_in_force() -> None:
    quota = quota_of(100, 10, Amount(90, 4), None)
    assert not quota.is_in_force
    granted = quota.grant(0, Amount(200, 20), Amount(5, 5))
    assert granted is not None and granted.shares[0].amount == Amount(200, 20), "and nothing to spare"
    assert granted.reserve(1, Amount(3, 3)).grant(0, Amount(201, 20), ZERO) is None


def test_a_bucket_that_holds_more_than_it_may_takes_what_adds_nothing() -> None:
    quota = quota_of(100, 10, Amount(200, 4), Amount(50, 4))
    assert quota.grant(0, Amount(200, 5), ZERO) is not None, (
        "no more bytes, and objects are below their limit"
    )
    assert quota.grant(0, Amount(201, 4), ZERO) is None


def test_a_limit_that_is_none_has_room_for_all() -> None:
    granted = quota_of(None, 10, ZERO, ZERO).grant(0, Amount(1 << 50, 1), ZERO)
    assert granted is not None and granted.shares[0].amount == Amount(1 << 50, 1)


def test_all_that_is_spare_is_one_percent_at_most() -> None:
    for shards in (1, 16, 1024):
        quota = no_quota("photos", shards).set("photos", 10**12, 10**6)
        spare = quota.spare
        assert 2 * spare.size * shards * 100 <= 10**12 and 2 * spare.objects * shards * 100 <= 10**6
    assert no_quota("photos", 16).set("photos", 3000, 10).spare == ZERO, "a small limit is exact"


def test_what_is_set_gets_the_next_serial_and_what_is_lifted_forgets_its_shares() -> None:
    quota = no_quota("photos", 2).set("photos", 10, None).reserve(0, one).reserve(1, one)
    assert quota.serial == 1 and quota.set("photos", 20, None).serial == 2
    assert quota.set("photos", 20, None).reserved == Amount(10, 2)
    lifted = quota.lifted()
    assert (lifted.serial, lifted.is_on, lifted.is_in_force) == (2, False, False)
    assert lifted.lifted() == lifted


one = Amount(5, 1)


@pytest.mark.parametrize("seed", range(20))
def test_shares_together_are_never_above_the_limit(seed: int) -> None:
    draw = random.Random(seed)
    quota = quota_of(1000, 50, *[ZERO] * 4)
    for _ in range(200):
        shard = draw.randrange(4)
        own = quota.shares[shard].amount
        assert own is not None
        if draw.random() < 0.7:
            wanted = own + Amount(draw.randrange(100), draw.randrange(5))
            quota = quota.grant(shard, wanted, Amount(draw.randrange(30), 1)) or quota
        else:
            quota = quota.reserve(shard, own.least(Amount(draw.randrange(300), draw.randrange(20))))
        assert quota.reserved.fits(quota.limit)
