"""The load generator on a client made of a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from bench.load import failure, obey
from ssastore.errors import CorruptObject, OutcomeUnknown, Unavailable
from ssastore.load import (
    BUCKET_OPS,
    FILL_BYTES_MAX,
    FILL_COUNT_MAX,
    INFLIGHT_BYTES_MAX,
    MIB,
    PAGE_KEYS,
    PUT_BYTES_MAX,
    Load,
    Op,
    Round,
    percentile,
    round_of,
    summarise,
)

SIZE = 64


class DictClient:
    """Keeps values; counts how many callers are inside at once."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.inside = 0
        self.inside_max = 0

    async def put(self, key: str, data: bytes) -> None:
        await self._wait()
        assert key not in self.values, "a PUT must write a new name"
        self.values[key] = data

    async def get(self, key: str) -> bytes:
        await self._wait()
        return self.values[key]

    async def _wait(self) -> None:
        self.inside += 1
        self.inside_max = max(self.inside_max, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1

    async def close(self) -> None:
        self.values.clear()


def counted(op: str, count: int, *, inflight: int = 4, fill: int = 10) -> Round:
    """A round that ends by its count, long before its time."""
    return Round(op, SIZE, inflight, 60.0, fill, count)  # type: ignore[arg-type]


async def test_round_ends_at_its_count_with_as_many_callers_as_asked() -> None:
    client = DictClient()
    load = Load(client)
    await load.fill(counted("get", 10))
    assert len(client.values) == 10
    client.inside_max = 0
    measured = await load.run(counted("get", 100))
    assert measured.ops == 100
    assert client.inside_max == 4


async def test_round_ends_at_its_time() -> None:
    load = Load(DictClient())
    measured = await load.run(Round("put", SIZE, 4, 0.05, 10, 10**9))
    assert 0.05 <= measured.seconds < 5
    assert measured.ops > 4


async def test_puts_never_write_a_name_again_and_have_the_asked_size() -> None:
    client = DictClient()
    load = Load(client)
    for _ in range(2):
        await load.run(counted("put", 50))
    assert len(client.values) >= 100
    assert {len(value) for value in client.values.values()} == {SIZE}
    assert len(set(client.values.values())) == len(client.values)


@pytest.mark.parametrize("wrong", [lambda value: value[:-1], lambda value: bytes(8) + value[8:]])
async def test_wrong_answer_fails_the_round(wrong: object) -> None:
    client = DictClient()
    load = Load(client)
    await load.fill(counted("get", 10))
    key = next(key for key, value in client.values.items() if value[0] == 3)
    client.values[key] = wrong(client.values[key])  # type: ignore[operator]
    with pytest.raises(CorruptObject) as caught:
        await load.run(counted("get", 100))
    assert failure(caught.value) == "CorruptObject: the answer for key 3 is another value"


async def test_commands_of_the_run_are_obeyed() -> None:
    client = DictClient()
    load = Load(client)
    assert await obey(load, {"fill": asdict(counted("get", 20))}) == {}
    answer = await obey(load, {"round": asdict(counted("get", 20))})
    assert answer["ops"] >= 20
    assert set(answer) == {"ops", "seconds", "p50_ms", "p99_ms", "p999_ms", "client_us", "failed", "reason"}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0), (0.0, 1.0)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7.0


def test_summary_does_not_depend_on_the_order_of_latencies() -> None:
    one = summarise([0.003, 0.001, 0.002], 2.0, 0.000_3)
    assert (one.ops, one.p50_ms, one.p99_ms) == (3, 2.0, 3.0)
    assert one.client_us == pytest.approx(100)


def test_round_without_operations_is_a_failure() -> None:
    with pytest.raises(Unavailable):
        summarise([], 1.0, 0.0)
    with pytest.raises(Unavailable, match="no such disk"):
        summarise([], 1.0, 0.0, 3, "OSError: no such disk")


@pytest.mark.parametrize("size", [0, 8, 4096, MIB])
@pytest.mark.parametrize("inflight", [1, 64, 1024])
def test_rounds_are_bounded_and_keys_in_flight_distinct(size: int, inflight: int) -> None:
    get = round_of("get", size=size, inflight=inflight, seconds=1)
    assert get.fill_count >= get.inflight
    assert get.fill_count <= max(inflight, FILL_COUNT_MAX)
    assert get.fill_count * size <= max(FILL_BYTES_MAX, inflight * size)
    put = round_of("put", size=size, inflight=inflight, seconds=1)
    assert put.count_max * size <= max(PUT_BYTES_MAX, inflight * size)


def test_large_values_have_fewer_callers() -> None:
    assert round_of("get", size=MIB, inflight=64, seconds=1).inflight == 64
    large = round_of("get", size=64 * MIB, inflight=64, seconds=1)
    assert large.inflight == INFLIGHT_BYTES_MAX // (64 * MIB)
    assert large.fill_count == large.inflight


async def test_each_size_has_keys_of_its_own() -> None:
    client = DictClient()
    load = Load(client)
    for size in (SIZE, 2 * SIZE):
        wanted = Round("get", size, 2, 60.0, 5, 20)
        await load.fill(wanted)
        assert (await load.run(wanted)).ops >= 20
    assert sorted(map(len, client.values.values())) == [SIZE] * 5 + [2 * SIZE] * 5


class Flaky(DictClient):
    """Every fifth read fails."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def get(self, key: str) -> bytes:
        self.reads += 1
        if self.reads % 5 == 0:
            raise Unavailable("not now")
        return await super().get(key)


async def test_failures_are_counted_and_callers_go_on() -> None:
    load = Load(Flaky())
    await load.fill(counted("get", 10))
    found = await load.run(counted("get", 100))
    assert (found.ops, found.failed) == (80, 20)
    assert found.reason == "Unavailable: not now"
    assert load.done == found.ops


async def test_a_put_that_failed_is_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each refusal would leave a key to remove."""
    monkeypatch.setattr("ssastore.load.AFTER_FAILURE_S", 0)

    class Refusing(DictClient):
        async def put(self, key: str, data: bytes) -> None:
            self.inside_max += 1
            if self.inside_max % 2:
                raise Unavailable("full")
            await super().put(key, data)

    client = Refusing()
    load = Load(client)
    found = await load.run(counted("put", 100))
    assert found.ops + found.failed == 100
    assert len(list(load.keys())) <= len(client.values) + 4


async def test_all_keys_that_were_written_are_known() -> None:
    client = DictClient()
    load = Load(client)
    for op, size in (("get", SIZE), ("put", SIZE), ("put", 2 * SIZE)):
        wanted = Round(op, size, 2, 60.0, 5, 20)  # type: ignore[arg-type]
        if op == "get":
            await load.fill(wanted)
        await load.run(wanted)
    assert set(load.keys()) >= set(client.values)
    assert len(set(load.keys())) == len(list(load.keys()))


class Counter:
    """Says of each key how often it was read and written."""

    def __init__(self) -> None:
        self.reads: dict[str, int] = {}
        self.writes = 0
        self.values: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        self.writes += 1
        self.values[key] = data

    async def get(self, key: str) -> bytes:
        self.reads[key] = self.reads.get(key, 0) + 1
        return self.values[key]

    async def close(self) -> None:
        """Nothing is open."""


async def test_hot_keys_are_read_as_zipf_has_it() -> None:
    client = Counter()
    load = Load(client)
    wanted = Round("hot", SIZE, 1, 60.0, 2000, 20_000)
    await load.fill(wanted)
    await load.run(wanted)
    reads = sorted(client.reads.values(), reverse=True)
    assert 0.15 < reads[0] / sum(reads) < 0.19
    assert 0.42 < sum(reads[:10]) / sum(reads) < 0.48


async def test_three_of_ten_operations_of_a_mixed_load_write() -> None:
    client = Counter()
    load = Load(client)
    wanted = Round("mixed", SIZE, 1, 60.0, 50, 1000)
    await load.fill(wanted)
    await load.run(wanted)
    assert (sum(client.reads.values()), client.writes - 50) == (700, 300)


async def test_filling_again_writes_only_what_is_missing() -> None:
    client = Counter()
    load = Load(client)
    for count in (5, 20, 10):
        await load.fill(Round("get", SIZE, 2, 60.0, count, 20))
    assert client.writes == len(client.values) == 20


async def test_filling_asks_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.load.AFTER_FAILURE_S", 0)

    class Late(Counter):
        async def put(self, key: str, data: bytes) -> None:
            await super().put(key, data)
            if self.writes % 3:
                raise OutcomeUnknown("no answer")

    client = Late()
    await Load(client).fill(Round("get", SIZE, 1, 60.0, 20, 20))
    assert (len(client.values), client.writes) == (20, 60)

    class Gone(Counter):
        async def put(self, key: str, data: bytes) -> None:
            raise Unavailable("gone")

    with pytest.raises(Unavailable, match="gone"):
        await Load(Gone()).fill(Round("get", SIZE, 1, 60.0, 20, 20))


async def test_next_round_goes_on_where_the_last_one_ended() -> None:
    client = Counter()
    load = Load(client)
    wanted = Round("get", SIZE, 1, 60.0, 100, 30)
    await load.fill(wanted)
    for _ in range(3):
        await load.run(wanted)
    assert len(client.reads) == 90


async def test_one_key_may_be_read_by_all() -> None:
    client = Counter()
    load = Load(client)
    wanted = Round("one", SIZE, 4, 60.0, 50, 100)
    await load.fill(wanted)
    await load.run(wanted)
    assert sorted(client.reads.values()) == [100]


@pytest.mark.parametrize("size", [0, 1, 7])
async def test_values_may_be_smaller_than_their_number(size: int) -> None:
    client = Counter()
    load = Load(client)
    ops: list[Op] = ["get", "put", "overwrite"]
    for op in ops:
        wanted = Round(op, size, 4, 60.0, 50, 100)
        await load.fill(wanted)
        await load.run(wanted)
    assert {len(value) for value in client.values.values()} == {size}
    if size:
        client.values[min(client.values)] = b"\xff" * size
        with pytest.raises(CorruptObject):
            await load.run(Round("get", size, 4, 60.0, 50, 100))


async def test_keys_are_written_out_of_their_order_and_lie_evenly_in_it() -> None:
    client = Counter()
    load = Load(client)
    await load.fill(Round("get", SIZE, 1, 60.0, 2000, 1))
    written = list(client.values)
    assert sum(a < b for a, b in pairwise(written)) < 1300
    for first in "0123456789abcdef":
        assert 120 <= sum(key.startswith(f"get/{SIZE}/{first}") for key in written) <= 130


class Listed(Counter):
    """With a listing; ``spoil`` is done to every page."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.spoil: Callable[[list[str]], list[str]] = lambda keys: keys

    async def page(self, prefix: str, after: str, count: int) -> list[str]:
        keys = sorted(key for key in self.values if key.startswith(prefix) and key > after)[:count]
        self.pages.append(len(keys))
        return self.spoil(keys)


async def test_pages_of_a_listing_are_full_and_checked() -> None:
    client = Listed()
    load = Load(client)
    wanted = round_of("list", size=SIZE, inflight=2, seconds=60)
    wanted = replace(wanted, count_max=20)
    await load.fill(wanted)
    await load.run(wanted)
    assert client.pages == [PAGE_KEYS] * 20
    spoils: list[Callable[[list[str]], list[str]]] = [
        lambda keys: keys[:-1],
        lambda keys: [keys[1], keys[0], *keys[2:]],
        lambda keys: [f"get/{SIZE}/", *keys[1:]],
    ]
    for client.spoil in spoils:
        with pytest.raises(CorruptObject, match="the page after"):
            await load.run(wanted)


async def test_bucket_without_a_listing_is_not_listed() -> None:
    with pytest.raises(Unavailable, match="no listing"):
        await Load(Counter()).run(counted("list", 10))
    assert "list" not in BUCKET_OPS
