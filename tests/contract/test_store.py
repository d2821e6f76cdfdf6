"""One suite for every adapter of ``env.Store``; what only LMDB can do wrong is in test_store_lmdb.py."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssastore.env import Store, WriteTxn
from ssastore.errors import (
    CorruptObject,
    InvalidKey,
    ObjectTooLarge,
    PreconditionFailed,
    RequestError,
    StoreFull,
)
from ssastore.limits import COMMIT_OPS_MAX, KIB, MIB, STORED_KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX
from ssastore.store.lmdb import LmdbStore
from ssastore.store.memory import MemoryStore
from ssastore.store.seal import seal

BEYOND = b"\xff" * (STORED_KEY_BYTES_MAX + 1)
"Greater than every key."


LOG_BYTES = {"lmdb": None, "lmdb-checkpoints": 64 * KIB, "lmdb-no-log": 0}
"Adapters on LMDB: as in production, with a checkpoint after a few records, and straight on LMDB."


@dataclass
class World:
    """Stores of one adapter in one directory."""

    adapter: str
    folder: Path
    stores: list[Store] = field(default_factory=list)

    def open(self, map_bytes: int = 64 * MIB) -> Store:
        store: Store
        if self.adapter == "memory":
            store = MemoryStore(map_bytes=map_bytes)
        else:
            folder, log_bytes = self.folder / str(len(self.stores)), LOG_BYTES[self.adapter]
            store = LmdbStore.open(folder, map_bytes=map_bytes, log_bytes=log_bytes)
        self.stores.append(store)
        return store

    async def damaged(self, store: Store, key: bytes, damage: Callable[[bytes], bytes]) -> Store:
        """The store after ``damage`` to the stored bytes of a short key."""
        if isinstance(store, MemoryStore):
            store.poke(key, damage(store.peek(key)))
            return store
        await store.close()
        folder = self.folder / str(self.stores.index(store))
        with lmdb.open(str(folder)) as env, env.begin(write=True) as txn:
            sealed = txn.get(key)
            assert sealed is not None
            txn.put(key, damage(sealed))
        self.stores[self.stores.index(store)] = opened = LmdbStore.open(folder, map_bytes=64 * MIB)
        return opened

    async def close(self) -> None:
        for store in self.stores:
            await store.close()


@pytest.fixture(params=["memory", *LOG_BYTES])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    world = World(request.param, tmp_path)
    yield world
    await world.close()


@pytest.fixture
def store(world: World) -> Store:
    return world.open()


def put(store: Store, key: bytes, *parts: bytes | memoryview) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put(key, *parts), size=sum(map(len, parts)))


def delete(store: Store, key: bytes) -> asyncio.Future[bool]:
    return store.submit(lambda txn: txn.delete(key))


def get(store: Store, key: bytes) -> bytes | None:
    with store.read() as txn:
        value = txn.get(key)
        return None if value is None else bytes(value)


def scan(store: Store, first: bytes = b"", end: bytes = BEYOND) -> list[tuple[bytes, bytes]]:
    with store.read() as txn:
        return [(key, bytes(value)) for key, value in txn.scan(first, end)]


# -- records ----------------------------------------------------------------------------------------


async def test_put_is_read_back_replaced_and_deleted(store: Store) -> None:
    assert get(store, b"a") is None
    await put(store, b"a", b"one")
    assert get(store, b"a") == b"one"
    await put(store, b"a", b"other")
    assert get(store, b"a") == b"other"
    assert await delete(store, b"a") is True
    assert get(store, b"a") is None
    assert await delete(store, b"a") is False


async def test_parts_are_joined(store: Store) -> None:
    await put(store, b"parts", b"ab", memoryview(b"xcdx")[1:3], b"", b"e")
    await put(store, b"view", memoryview(b"whole"))
    await put(store, b"empty", b"")
    await put(store, b"none")
    assert scan(store) == [(b"empty", b""), (b"none", b""), (b"parts", b"abcde"), (b"view", b"whole")]


async def test_scan_is_half_open_and_in_byte_order(store: Store) -> None:
    keys = [b"\xff", b"b", b"a\0", b"a", b"\0", b"ab", b"a\xff", b"\0\0"]
    await asyncio.gather(*(put(store, key, key[::-1]) for key in keys))
    assert scan(store) == [(key, key[::-1]) for key in sorted(keys)]
    assert [key for key, _ in scan(store, b"a", b"b")] == [b"a", b"a\0", b"ab", b"a\xff"]
    assert [key for key, _ in scan(store, b"a\0", b"ab")] == [b"a\0"]
    assert scan(store, b"b", b"a") == scan(store, b"a", b"a") == scan(store, b"c", b"d") == []


async def test_longest_key_and_value_are_taken(store: Store) -> None:
    key, value = b"k" * STORED_KEY_BYTES_MAX, b"v" * STORED_VALUE_BYTES_MAX
    await put(store, key, value)
    assert get(store, key) == value
    assert scan(store, b"k" * 700, b"l") == [(key, value)]


@pytest.mark.parametrize(
    ("key", "size", "error"),
    [
        (b"", 1, InvalidKey),
        (b"k" * (STORED_KEY_BYTES_MAX + 1), 1, InvalidKey),
        (b"k", STORED_VALUE_BYTES_MAX + 1, ObjectTooLarge),
    ],
)
async def test_impossible_record_is_the_callers_mistake(
    store: Store, key: bytes, size: int, error: type[RequestError]
) -> None:
    good = put(store, b"good", b"x")
    with pytest.raises(error):
        await put(store, key, bytes(size))
    if error is InvalidKey:
        with pytest.raises(error):
            await delete(store, key)
        with pytest.raises(error):
            get(store, key)
    await good
    assert [found for found, _ in scan(store)] == [b"good"]


async def test_long_keys_keep_their_order_among_short_ones(store: Store) -> None:
    """Zero bytes behind a head, heads that are keys, and lengths around each level of the long-key format."""
    keys = {
        fill * (length - len(tail)) + tail
        for length in (1, 499, 500, 501, 502, 984, 985, 986, 1200)
        for fill in (b"\0", b"m", b"\xff")
        for tail in (b"", b"\0", b"n")
    }
    order = sorted(keys)
    await asyncio.gather(*(put(store, key, key[-3:]) for key in sorted(keys, key=hash)))
    assert scan(store) == [(key, key[-3:]) for key in order]
    for low, high in itertools.product(order[::4], order[::3]):
        assert [key for key, _ in scan(store, low, high)] == [key for key in order if low <= key < high]
    assert store.usage().records == len(order)
    for gone in order[::2]:
        assert await delete(store, gone)
    assert [key for key, _ in scan(store)] == order[1::2]
    assert get(store, order[0]) is None and get(store, order[1]) == order[1][-3:]


# -- transactions -----------------------------------------------------------------------------------


async def test_change_sees_what_it_has_done(store: Store) -> None:
    def change(txn: WriteTxn) -> list[Any]:
        txn.put(b"a", b"1")
        seen: list[Any] = [bytes(txn.get(b"a") or b"")]
        txn.put(b"b" * 600, b"2")
        seen += [key for key, _ in txn.scan(b"", BEYOND)]
        seen += [txn.delete(b"a"), txn.get(b"a"), txn.delete(b"b" * 600), list(txn.scan(b"", BEYOND))]
        return seen

    assert await store.submit(change) == [b"1", b"a", b"b" * 600, True, None, True, []]


async def test_values_of_a_change_outlive_its_next_put(store: Store) -> None:
    """A record is moved by the next put of the same transaction; what was read before must not move."""

    def change(txn: WriteTxn) -> bytes:
        txn.put(b"m", b"first value")
        value = txn.get(b"m")
        for key in (b"a", b"m", b"z"):
            txn.put(key, b"another one")
        assert value is not None
        return bytes(value)

    assert await store.submit(change) == b"first value"


async def test_scan_goes_on_where_it_was_while_records_change(store: Store) -> None:
    def change(txn: WriteTxn) -> list[bytes]:
        seen = []
        for key in (b"a", b"c", b"e" * 600, b"e" * 601, b"g"):
            txn.put(key, b"")
        for key, _ in txn.scan(b"", BEYOND):
            seen.append(key)
            txn.delete(key)
            if key == b"c":
                txn.put(b"b", b"")  # behind
                txn.put(b"d", b"")  # ahead
                txn.delete(b"g")
        return seen

    assert await store.submit(change) == [b"a", b"c", b"d", b"e" * 600, b"e" * 601]
    assert scan(store) == [(b"b", b"")]


async def test_changes_run_in_the_order_of_submission(store: Store) -> None:
    def count(txn: WriteTxn) -> int:
        number = int.from_bytes(txn.get(b"n") or b"", "big") + 1
        txn.put(b"n", number.to_bytes(8, "big"))
        return number

    total = 2 * COMMIT_OPS_MAX + 10
    assert await asyncio.gather(*(store.submit(count) for _ in range(total))) == [*range(1, total + 1)]


async def test_read_sees_one_committed_state(store: Store) -> None:
    await put(store, b"a", b"old")
    with store.read() as before:
        await asyncio.gather(put(store, b"a", b"new"), put(store, b"b", b"new"))
        with store.read() as after:
            assert bytes(before.get(b"a") or b"") == b"old"
            assert before.get(b"b") is None
            assert [key for key, _ in before.scan(b"", BEYOND)] == [b"a"]
            assert bytes(after.get(b"a") or b"") == bytes(after.get(b"b") or b"") == b"new"
            await delete(store, b"a")
            assert bytes(after.get(b"a") or b"") == b"new"
        assert bytes(before.get(b"a") or b"") == b"old"
    assert scan(store) == [(b"b", b"new")]


async def test_nothing_is_visible_before_it_is_committed(store: Store) -> None:
    pending = store.submit(lambda txn: txn.put(b"a", b"1"))
    assert get(store, b"a") is None
    await pending
    assert get(store, b"a") == b"1"


async def test_read_transactions_nest(store: Store) -> None:
    await put(store, b"a", b"1")
    with contextlib.ExitStack() as stack:
        open_at_once = [stack.enter_context(store.read()) for _ in range(20)]
        assert all(bytes(txn.get(b"a") or b"") == b"1" for txn in open_at_once)
    assert get(store, b"a") == b"1"


async def test_exception_of_a_change_is_its_own(store: Store) -> None:
    def refuse(txn: WriteTxn) -> None:
        raise LookupError("condition is false")

    def stop(txn: WriteTxn) -> Any:
        return next(iter(()))

    outcomes = await asyncio.gather(
        put(store, b"a", b"1"),
        store.submit(refuse),
        store.submit(stop),
        put(store, b"b", b"2"),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), LookupError, RuntimeError, type(None)]
    assert scan(store) == [(b"a", b"1"), (b"b", b"2")]


async def test_change_that_fails_half_way_leaves_nothing(store: Store) -> None:
    """It breaks the contract; its neighbours must not pay for it."""

    def half(txn: WriteTxn) -> None:
        txn.put(b"a", b"torn")
        txn.delete(b"b")
        txn.put(b"c" * 700, b"torn")
        raise LookupError

    await put(store, b"b", b"0")
    outcomes = await asyncio.gather(
        put(store, b"a", b"1"), store.submit(half), put(store, b"d", b"2"), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), LookupError, type(None)]
    assert scan(store) == [(b"a", b"1"), (b"b", b"0"), (b"d", b"2")]


async def test_failed_change_keeps_nothing_of_its_batch_alive(store: Store) -> None:
    """Conditions are false every day; their errors must not hold megabytes until the collector comes."""

    class Payload:
        pass

    def refuse(txn: WriteTxn) -> None:
        raise PreconditionFailed

    def use(txn: WriteTxn, payload: Payload) -> None:
        txn.put(b"a", b"1")

    payload = Payload()
    gone = weakref.ref(payload)
    gc.disable()
    try:
        pending = [store.submit(partial(use, payload=payload)), store.submit(refuse)]
        (error,) = [x for x in await asyncio.gather(*pending, return_exceptions=True) if x is not None]
        del pending, payload
        await asyncio.sleep(0)
        assert isinstance(error, PreconditionFailed) and gone() is None
    finally:
        gc.enable()


async def test_whoever_hears_without_a_future_hears_in_order_when_it_is_durable(store: Store) -> None:
    heard: list[tuple[str, Any, BaseException | None]] = []

    def refuse(txn: WriteTxn) -> None:
        raise PreconditionFailed("no")

    def then(name: str, result: Any, error: BaseException | None) -> None:
        assert name == "late" or get(store, b"a") == b"1"
        heard.append((name, result, error))

    store.do(lambda txn: txn.put(b"a", b"1"), partial(then, "put"), size=1)
    store.do(refuse, partial(then, "refused"))
    store.do(lambda txn: txn.delete(b"none"), partial(then, "delete"))
    assert not heard, "not before the call has returned"
    await put(store, b"b", b"2")
    (_, *nothing), (_, no_result, error), last = heard
    assert nothing == [None, None] and no_result is None and isinstance(error, PreconditionFailed)
    assert last == ("delete", False, None)
    await store.close()
    store.do(lambda txn: None, partial(then, "late"))
    await asyncio.sleep(0.01)
    assert heard[-1][0] == "late" and "closed" in str(heard[-1][2])


async def test_whoever_fails_over_an_outcome_does_not_disturb_the_others(store: Store) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def fail(result: Any, error: BaseException | None) -> None:
        raise LookupError

    store.do(lambda txn: txn.put(b"a", b"1"), fail)
    await put(store, b"b", b"2")
    await put(store, b"c", b"3")
    assert scan(store) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert [type(context["exception"]) for context in told] == [LookupError]


async def test_cancelled_caller_does_not_disturb_the_others(store: Store) -> None:
    cancelled = store.submit(lambda txn: txn.put(b"a", b"1"))
    cancelled.cancel()
    await put(store, b"b", b"2")
    assert scan(store) == [(b"a", b"1"), (b"b", b"2")]


async def test_close_commits_what_was_submitted(world: World, store: Store) -> None:
    pending = [put(store, b"%d" % number, b"x") for number in range(2 * COMMIT_OPS_MAX)]
    await store.close()
    assert all(future.done() and not future.exception() for future in pending)
    await store.close()
    with pytest.raises(Exception, match="closed"):
        await store.submit(lambda txn: None)


# -- limits and damage ------------------------------------------------------------------------------


async def test_full_store_takes_deletes_and_then_puts_again(world: World) -> None:
    store = world.open(map_bytes=2 * MIB)
    kept: list[bytes] = []
    with pytest.raises(StoreFull):
        for number in itertools.count():
            await put(store, b"%06d" % number, bytes(20 * KIB))
            kept.append(b"%06d" % number)
    assert 40 < len(kept) < 110
    assert [key for key, _ in scan(store)] == kept
    usage = store.usage()
    assert usage.records == len(kept) and 0.8 * usage.limit_bytes < usage.used_bytes <= usage.limit_bytes

    def half(txn: WriteTxn) -> None:
        txn.delete(kept[1])
        txn.put(b"more", bytes(MIB))

    # A batch in which only the deletes can succeed, and one change has written before it fails.
    outcomes = await asyncio.gather(
        put(store, b"more", bytes(20 * KIB)),
        delete(store, kept[0]),
        store.submit(half),
        delete(store, kept[2]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [StoreFull, bool, StoreFull, bool]
    assert [key for key, _ in scan(store)] == [kept[1], *kept[3:]]

    for key in kept[3:]:
        assert await delete(store, key)
    for number in range(30):
        await put(store, b"again %d" % number, bytes(20 * KIB))
    assert store.usage().records == 31


async def test_reserve_is_for_those_who_ask(world: World) -> None:
    store = world.open(map_bytes=2 * MIB)
    with contextlib.suppress(StoreFull):
        for number in itertools.count():
            await put(store, b"%06d" % number, bytes(1000))
    with pytest.raises(StoreFull):
        await put(store, b"tombstone", bytes(1000))
    await store.submit(lambda txn: txn.put(b"tombstone", bytes(1000), use_reserve=True))
    assert get(store, b"tombstone") == bytes(1000)
    with pytest.raises(StoreFull):
        await store.submit(lambda txn: txn.put(b"tombstone", bytes(MIB), use_reserve=True))
    assert await delete(store, b"tombstone")


async def test_usage_counts_records(store: Store) -> None:
    empty = store.usage()
    assert empty.records == 0
    await put(store, b"a", bytes(100 * KIB))
    await put(store, b"b" * 1200, bytes(100 * KIB))
    full = store.usage()
    assert full.records == 2
    assert 200 * KIB <= full.used_bytes - empty.used_bytes < 300 * KIB
    await asyncio.gather(delete(store, b"a"), delete(store, b"b" * 1200))
    after = store.usage()
    assert after.records == 0 and after.used_bytes - empty.used_bytes < 20 * KIB, "pages, not yet given back"


@pytest.mark.parametrize("at", [0, 7, 8, 12, -1])
async def test_flipped_bit_is_found(world: World, store: Store, at: int) -> None:
    def flip(sealed: bytes) -> bytes:
        damaged = bytearray(sealed)
        damaged[at] ^= 0x10
        return bytes(damaged)

    for key in (b"a", b"b", b"c"):
        await put(store, key, b"some value")
    store = await world.damaged(store, b"b", flip)
    with pytest.raises(CorruptObject, match="62") as caught:
        get(store, b"b")
    assert caught.value.key == b"b"
    with pytest.raises(CorruptObject, match="62"):
        scan(store)
    with pytest.raises(CorruptObject, match="62"):
        await store.submit(lambda txn: txn.get(b"b"))
    assert get(store, b"a") == get(store, b"c") == b"some value"


async def test_record_of_another_key_is_found(world: World, store: Store) -> None:
    await put(store, b"b", b"value of b")
    store = await world.damaged(store, b"b", lambda _: seal(b"a", (b"value of a",)))
    with pytest.raises(CorruptObject):
        get(store, b"b")


async def test_cut_record_is_found(world: World, store: Store) -> None:
    await put(store, b"a", b"")
    store = await world.damaged(store, b"a", lambda sealed: sealed[:5])
    with pytest.raises(CorruptObject):
        get(store, b"a")


# -- both adapters against each other ---------------------------------------------------------------

lengths = st.one_of(
    st.integers(1, 4), st.integers(498, 502), st.integers(983, 986), st.sampled_from([700, 1199, 1200])
)
keys = st.builds(
    lambda length, fill, tail: (fill * length + tail)[-length:],
    lengths,
    st.sampled_from([b"\0", b"a", b"\xff"]),
    st.binary(max_size=2) | st.sampled_from([b"\0", b"a\0", b"\0a", b"b"]),
)
operations = st.one_of(
    st.tuples(st.just("put"), keys, st.binary(max_size=20)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("scan"), keys | st.just(b""), keys | st.just(BEYOND)),
)


def apply(txn: WriteTxn, steps: list[tuple[Any, ...]], fails: bool) -> list[Any]:
    results: list[Any] = []
    for name, *arguments in steps:
        result = getattr(txn, name)(*arguments)
        if name == "scan":
            result = [(key, bytes(value)) for key, value in result]
        results.append(bytes(result) if isinstance(result, memoryview) else result)
    if fails:
        raise LookupError(repr(results))
    return results


async def run(store: Store, changes: list[tuple[list[tuple[Any, ...]], bool]]) -> list[Any]:
    """Outcomes of the changes, then the records, from several places on."""
    futures = [store.submit(partial(apply, steps=steps, fails=fails)) for steps, fails in changes]
    outcomes = [repr(outcome) for outcome in await asyncio.gather(*futures, return_exceptions=True)]
    records = scan(store)
    bounds = [key for key, _ in records[:: len(records) // 4 + 1]]
    parts = [scan(store, low, high) for low in bounds for high in bounds]
    return [outcomes, records, parts, store.usage().records]


@pytest.mark.parametrize("log_bytes", [None, 16 * KIB, 0])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([([("put", b"a" * 500, b"1"), ("put", b"a" * 500 + b"\0", b"2"), ("delete", b"a" * 500)], False)])
@given(st.lists(st.tuples(st.lists(operations, max_size=12), st.booleans()), max_size=6))
def test_adapters_agree(
    tmp_path: Path, log_bytes: int | None, changes: list[tuple[list[tuple[Any, ...]], bool]]
) -> None:
    """Each example finds the records of the last one deleted, in the log or in LMDB."""

    async def both() -> None:
        lmdb_store = LmdbStore.open(tmp_path / "agree", map_bytes=64 * MIB, log_bytes=log_bytes)
        try:
            await lmdb_store.submit(lambda txn: [txn.delete(key) for key, _ in txn.scan(b"", BEYOND)])
            assert await run(lmdb_store, changes) == await run(MemoryStore(), changes)
        finally:
            await lmdb_store.close()

    asyncio.run(both())
