"""The quota of a bucket, and how much of it each shard has: one record of the system bucket. Pure.

    quota/ID     msgpack [serial, bucket, bytes, objects, [[ballot, bytes, objects] or [ballot], ...]]

with the bucket's id in hexadecimal, -1 for no limit, and one row for each shard: the ballot
of the hold that may change it (``core.holds``), and the share.  A row without a share was not counted yet.
The shares together are never above the limit, so nor is what the shards hold, as each is within its share;
unless more was there when the quota was set: then nothing is added to any share.  Until all
shards were counted once the quota is not in force, and shares are given as they are asked for.

A share is a little more than what the shard holds, so that most writes need not ask.  All that is spare
together is 1 % of the limit at most (``Quota.spare``): by so much a write may be refused too early.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgpack

from ssastore.core.amounts import ZERO, Amount
from ssastore.errors import CorruptObject, RequestError
from ssastore.messages import BALLOT_BYTES

QUOTA_PREFIX = b"quota/"
QUOTA_SHARDS_MAX = 1024
"Of a bucket with a quota: so many shares fit one record."
AMOUNT_MAX = 1 << 60

_NO_BALLOT = bytes(BALLOT_BYTES)
_SPARE = 200
"Of the limit, one part of so many is spare in all shards together; twice that before it is given back."


def quota_key(bucket: int) -> bytes:
    """Key of the record of a bucket's quota."""
    return QUOTA_PREFIX + f"{bucket:016x}".encode()


@dataclass(frozen=True, slots=True)
class Share:
    """What of a quota is one shard's."""

    ballot: bytes = _NO_BALLOT
    amount: Amount | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """See above. A limit of None is none; both None: the bucket has no quota any more."""

    serial: int
    bucket: str
    size: int | None
    objects: int | None
    shares: tuple[Share, ...]

    @property
    def is_on(self) -> bool:
        return self.size is not None or self.objects is not None

    @property
    def limit(self) -> Amount:
        """What all shards may hold together."""
        return Amount(
            AMOUNT_MAX if self.size is None else self.size,
            AMOUNT_MAX if self.objects is None else self.objects,
        )

    @property
    def spare(self) -> Amount:
        """What a shard gets beyond what it needs; it gives back what is more than twice that."""
        parts = _SPARE * len(self.shares)
        return Amount(self.limit.size // parts, self.limit.objects // parts)

    @property
    def reserved(self) -> Amount:
        """All shares together."""
        return sum((share.amount for share in self.shares if share.amount is not None), ZERO)

    @property
    def is_in_force(self) -> bool:
        return all(share.amount is not None for share in self.shares)

    def set(self, bucket: str, size: int | None, objects: int | None) -> Quota:
        """With other limits. Raises RequestError: they are out of range, or there is none."""
        if size is None and objects is None:
            raise RequestError("a quota limits bytes, or objects, or both")
        for limit in (size, objects):
            if limit is not None and not 0 <= limit < AMOUNT_MAX:
                raise RequestError(f"a limit is 0 to {AMOUNT_MAX - 1}, got {limit}")
        return replace(self, serial=self.serial + 1, bucket=bucket, size=size, objects=objects)

    def lifted(self) -> Quota:
        """With no limits. What shards hold must be counted again if there are limits one day."""
        if not self.is_on:
            return self
        return Quota(self.serial + 1, self.bucket, None, None, (Share(),) * len(self.shares))

    def claim(self, shard: int, ballot: bytes) -> Quota:
        """From now on a shard's share is changed by whoever has this ballot, which must be above the last."""
        return self._with(shard, replace(self.shares[shard], ballot=ballot))

    def reserve(self, shard: int, amount: Amount) -> Quota:
        """A shard has this share, whatever the limit."""
        return self._with(shard, replace(self.shares[shard], amount=amount))

    def grant(self, shard: int, wanted: Amount, spare: Amount) -> Quota | None:
        """A shard's share is ``wanted`` at least, and something to spare; None: the limit forbids it."""
        own = self.shares[shard].amount
        if own is None:
            return self
        step = wanted.beyond(own)
        if self.is_in_force:
            room = self.limit - self.reserved
            if (step.size and step.size > room.size) or (step.objects and step.objects > room.objects):
                return None
            more = (room - step).least(spare).most(ZERO)
            step += Amount(more.size if step.size else 0, more.objects if step.objects else 0)
        return self.reserve(shard, own + step)

    def _with(self, shard: int, share: Share) -> Quota:
        return replace(self, shares=(*self.shares[:shard], share, *self.shares[shard + 1 :]))

    def encode(self) -> bytes:
        """As it is stored."""
        rows = [
            [share.ballot]
            if share.amount is None
            else [share.ballot, share.amount.size, share.amount.objects]
            for share in self.shares
        ]
        limits = [-1 if limit is None else limit for limit in (self.size, self.objects)]
        packed: bytes = msgpack.packb([self.serial, self.bucket, *limits, rows])
        return packed


def decode_quota(packed: bytes) -> Quota:
    """Inverse of ``encode``. Raises CorruptObject."""
    try:
        serial, bucket, size, objects, rows = msgpack.unpackb(packed, max_ext_len=0, max_map_len=0)
        shares = tuple(Share(row[0], Amount(row[1], row[2]) if len(row) > 1 else None) for row in rows)
        return Quota(serial, bucket, None if size < 0 else size, None if objects < 0 else objects, shares)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise CorruptObject("the record of a quota is not one") from error


def no_quota(bucket: str, shards: int) -> Quota:
    """Of a bucket that never had one. Raises RequestError: it cannot have one."""
    if not 0 < shards <= QUOTA_SHARDS_MAX:
        raise RequestError(
            f"a quota needs an indexed bucket of at most {QUOTA_SHARDS_MAX} shards, not {shards}"
        )
    return Quota(0, bucket, None, None, (Share(),) * shards)
