"""The planes of one shard, for the worker that counts it: hold it, read all of it. Coroutines.

The plane that is this worker's own is a function call away, the others are asked at their addresses.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgpack

from ssastore.core.amounts import ZERO, Amount, amount_of_row
from ssastore.core.caller import STATUS_ERRORS
from ssastore.core.coordinator import Coordinator
from ssastore.core.leftovers import upload_of
from ssastore.core.listing import Row
from ssastore.core.planes import Outrun, Stale
from ssastore.core.replies import Refusal, Reply
from ssastore.core.shardname import ShardName
from ssastore.core.shuts import is_shut
from ssastore.core.versionnames import version_key, whole_name
from ssastore.env import spawn
from ssastore.errors import BadFrame, CorruptObject, HeldElsewhere, OutOfStep, SsaStoreError, Unavailable
from ssastore.limits import SCAN_PAGE_ITEMS_MAX
from ssastore.messages import HOLD_BYTES, Hold, Kind, Scan

_LINGER_S = 0.1
"How long the other planes are waited for once a majority has answered."
_LIVE_FIELDS = 5
"Of a row with its ballot, at least; others show that there is no object."
_LEFT_MAX = 1024


class LaterHold(Exception):
    """A plane is under a later hold."""

    def __init__(self, hold: bytes) -> None:
        super().__init__("the shard is under a later hold")
        self.hold = hold


@dataclass(slots=True)
class Reckoned:
    """All that planes hold of a shard."""

    planes: frozenset[int]
    "Those that could be read from the first record to the last."
    amount: Amount = ZERO
    missed: Amount = ZERO
    "What of it may not be there: of records that differ the largest counts."
    owed: Counter[bytes] = field(default_factory=Counter)
    "By upload, the bytes of parts that are not reckoned: their upload is not open."
    left: list[bytes] = field(default_factory=list)
    "Some of these parts."
    differing: list[tuple[int, bytes]] = field(default_factory=list)
    pairs: dict[bytes, Amount] = field(default_factory=dict)
    "Versions of which there are two records, at any plane, and that are reckoned once."

    def add(self, kind: int, key: bytes, rows: list[Row], uploads: set[bytes]) -> Amount:
        """Add what the planes that have a record have of it; the most that it may have."""
        amounts = [amount_of_row(kind, row[2], row[3]) for row in rows if len(row) >= _LIVE_FIELDS]
        if not amounts:
            return ZERO
        most = self._most_of(kind, key, rows, amounts)
        if kind == Kind.PART and (upload := upload_of(key)) not in uploads:
            self.owed[upload] += most.size
            if len(self.left) < _LEFT_MAX:
                self.left.append(key)
        else:
            self.amount += most
        return most

    def add_object(self, key: bytes, rows: list[Row], kept: dict[bytes, Amount]) -> None:
        """Add an object, of whose versions those that are ``kept`` were added already: they count once."""
        amounts = [
            amount_of_row(Kind.OBJECT, row[2], row[3]).beyond(kept.get(_pair_of(row), ZERO))
            for row in rows
            if len(row) >= _LIVE_FIELDS
        ]
        if amounts:
            self.amount += self._most_of(Kind.OBJECT, key, rows, amounts)
        self.pairs |= kept

    def _most_of(self, kind: int, key: bytes, rows: list[Row], amounts: list[Amount]) -> Amount:
        most, planes = amounts[0], len(self.planes)
        for amount in amounts[1:]:
            most = most.most(amount)
        if len(rows) < planes or any(row[-1] != rows[0][-1] for row in rows):
            least = ZERO if len(amounts) < planes else amounts[0]
            for amount in amounts:
                least = least.least(amount)
            self.differing.append((kind, key))
            self.missed += most - least
        return most


def _pair_of(row: Row) -> bytes:
    """The version that an object's row is, as the key of its VERSION; empty for none (``core.twins``)."""
    if len(row) <= _LIVE_FIELDS or row[4] is None:
        return b""
    return version_key(row[0], whole_name(row[4], row[1]))


class ShardPlanes:
    """Asks planes of shards of which one is this worker's."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def count(self, shard: ShardName) -> int:
        """How many planes a shard has."""
        return self._coordinator.acceptor.served.count_at(shard.iid(0))

    def others_of(self, shards: Iterable[ShardName]) -> list[ShardName]:
        """Those of some shards that are not this worker's any more, or of buckets that are gone."""
        acceptor = self._coordinator.acceptor
        with self._coordinator.store.read() as txn:

            def is_ours(shard: ShardName, plane: int) -> bool:
                served, iid = acceptor.served, shard.iid(plane)
                if served.slice_at(iid) not in served.active:
                    return False
                try:
                    return not is_shut(txn, served.mark_locator(iid, shard.shards), shard.bucket)
                except CorruptObject:
                    return True

            return [
                shard
                for shard in shards
                if not any(is_ours(shard, plane) for plane in range(self.count(shard)))
            ]

    async def hold(
        self, shard: ShardName, hold: bytes, step: int, planes: Iterable[int]
    ) -> tuple[int, frozenset[int]]:
        """Take a step of a hold at these planes: the cfg under which a majority did, and which did.

        Raises:
            LaterHold: a plane is under a later one.
            Unavailable: no majority answers.
        """
        count = self.count(shard)
        need = count // 2 + 1
        tasks = {
            spawn("hold a shard", self._hold(Hold(shard.iid(plane), *shard, hold, step, count))): plane
            for plane in planes
        }
        waiting = set(tasks)
        by_cfg: dict[int, set[int]] = {}
        later, failure = b"", "no plane was asked"
        while waiting:
            is_enough = any(len(agreeing) >= need for agreeing in by_cfg.values())
            timeout = _LINGER_S if is_enough else None
            done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                answer = task.result()
                if isinstance(answer, int):
                    by_cfg.setdefault(answer, set()).add(tasks[task])
                elif isinstance(answer, bytes):
                    later = max(later, answer)
                else:
                    failure = str(answer)
        if later:
            raise LaterHold(later)
        cfg, agreeing = max(by_cfg.items(), key=lambda entry: len(entry[1]), default=(0, set()))
        if len(agreeing) < need:
            raise Unavailable(f"{len(agreeing)} of {count} planes let their shard be held: {failure}")
        return cfg, frozenset(agreeing)

    async def _hold(self, message: Hold) -> int | bytes | SsaStoreError:
        try:
            fields, _ = await self._ask(message)
            if len(fields) == 1 and type(fields[0]) is int:
                return fields[0]
            return BadFrame("a reply to Hold has other fields")
        except HeldElsewhere as error:
            try:
                later = bytes.fromhex(str(error))
            except ValueError:
                return error
            return later if len(later) == HOLD_BYTES else error
        except SsaStoreError as error:
            return error

    async def read(self, shard: ShardName, planes: frozenset[int], cfg: int) -> Reckoned:
        """All that these planes hold, but for those of which something cannot be read.

        Raises SsaStoreError when fewer are left than a majority.
        """
        found = Reckoned(planes)
        uploads: set[bytes] = set()
        # An upload is opened before its parts come, and shut after its object is there.
        async for key, rows in self._records(shard, found, cfg, Kind.UPLOAD):
            if any(len(row) >= _LIVE_FIELDS for row in rows):
                uploads.add(key)
        await self._read_objects(shard, found, cfg)
        async for key, rows in self._records(shard, found, cfg, Kind.PART):
            found.add(Kind.PART, key, rows, uploads)
        return found

    async def _read_objects(self, shard: ShardName, found: Reckoned, cfg: int) -> None:
        """Objects and versions side by side: keys are in order, and so are those of their versions."""
        versions = self._records(shard, found, cfg, Kind.VERSION)
        ahead = await anext(versions, None)
        async for key, rows in self._records(shard, found, cfg, Kind.OBJECT):
            own = key + b"\0"
            pairs, kept = {_pair_of(row) for row in rows}, dict[bytes, Amount]()
            while ahead is not None and (ahead[0] < own or ahead[0].startswith(own)):
                amount = found.add(Kind.VERSION, *ahead, set())
                if ahead[0] in pairs and amount != ZERO:
                    kept[ahead[0]] = amount
                ahead = await anext(versions, None)
            found.add_object(key, rows, kept)
        while ahead is not None:
            found.add(Kind.VERSION, *ahead, set())
            ahead = await anext(versions, None)

    async def _records(
        self, shard: ShardName, found: Reckoned, cfg: int, kind: int
    ) -> AsyncIterator[tuple[bytes, list[Row]]]:
        """Each key of a kind with the rows of the planes that have it (``core.listing``, with witnesses)."""
        count, after, is_more = self.count(shard), b"", True
        while is_more:
            planes = sorted(found.planes)
            wanted = [
                Scan(shard.iid(plane), kind, *shard, b"", after, b"", SCAN_PAGE_ITEMS_MAX, True, count)
                for plane in planes
            ]
            outcomes = await asyncio.gather(*[self._page(message) for message in wanted])
            answers = [answer for answer in outcomes if not isinstance(answer, SsaStoreError)]
            if len(answers) <= count // 2:
                raise next(error for error in outcomes if isinstance(error, SsaStoreError))
            found.planes = frozenset(
                plane
                for plane, answer in zip(planes, outcomes, strict=True)
                if not isinstance(answer, SsaStoreError)
            )
            if any(fields[2] != cfg for fields, _ in answers):
                raise OutOfStep("a shard has another configuration than when it was held")
            ends = [fields[1] for fields, _ in answers if fields[0]]
            horizon = min(ends, default=None)
            merged: dict[bytes, list[Row]] = {}
            for _, body in answers:
                for row in msgpack.unpackb(body, max_ext_len=0, max_map_len=0):
                    if horizon is None or row[0] <= horizon:
                        merged.setdefault(row[0], []).append(row)
            for item in sorted(merged.items(), key=itemgetter(0)):
                yield item
            is_more = horizon is not None
            after = horizon or b""

    async def _page(self, message: Scan) -> Reply | SsaStoreError:
        try:
            return await self._ask(message)
        except SsaStoreError as error:
            return error

    async def _ask(self, message: Hold | Scan) -> Reply:
        """One request to one plane. Raises SsaStoreError."""
        coordinator = self._coordinator
        acceptor = coordinator.acceptor
        try:
            number = acceptor.served.slice_at(message.iid)
            if number in acceptor.served.sealed:
                raise Unavailable("the plane is being handed over")
            if number not in acceptor.served.active:
                return await coordinator.ask_mate(message, b"")
            if isinstance(message, Scan):
                with coordinator.store.read() as txn:
                    fields, body = acceptor.read(message, txn)
                    return fields, bytes(body)
            now_ms = coordinator.clock.now_ms()
            change: Any = lambda txn: acceptor.write(message, txn, b"", now_ms)  # noqa: E731
            reply: Reply = await coordinator.store.submit(change, size=512)
            return reply
        except (Outrun, Stale) as error:
            raise OutOfStep(str(error)) from None
        except Refusal as refusal:
            raise STATUS_ERRORS[refusal.status](refusal.text) from None
