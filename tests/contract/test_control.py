"""One suite for every adapter of ``env.ControlStore``; restarts of the embedded one stand at the end.

Those of etcd: test_control_etcd.py.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.control.etcd import EtcdControlStore
from ssastore.control.memory import MemoryControlStore
from ssastore.env import Compare, ControlStore, Event, Item, WatchCompacted, Write
from ssastore.errors import Conflict, RequestError, Unavailable
from ssastore.limits import (
    CONTROL_EVENTS_MAX,
    CONTROL_KEY_BYTES_MAX,
    CONTROL_OPS_MAX,
    CONTROL_TRANSACTION_BYTES_MAX,
    KIB,
)
from tests.etcds import Etcd, running_etcd

PERIOD_MS = 60
"Period of the leases here: short, because the embedded adapter is also run with the real clock."
ETCD_PERIOD_MS = 1000
"etcd counts whole seconds."


class FakeClock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def now_ms(self) -> int:
        return self.now

    def advance(self, ms: int) -> None:
        self.now += ms


@dataclass
class World:
    """Two clients of one store, and what becomes of it."""

    store: ControlStore
    other: ControlStore
    clock: FakeClock
    period_ms: int = PERIOD_MS

    async def almost_end(self) -> None:
        """Until just before a lease that was granted or renewed now would end."""
        self.clock.advance(PERIOD_MS - 1)

    async def end(self, *, is_almost: bool = False) -> None:
        """Until a lease has ended."""
        self.clock.advance(1 if is_almost else PERIOD_MS)

    async def forget(self) -> None:
        """Let the store forget its history up to now."""
        for number in range(CONTROL_EVENTS_MAX // CONTROL_OPS_MAX + 2):
            await self.other.transact([], [Write(f"f{n}", b"%d" % number) for n in range(CONTROL_OPS_MAX)])
            await asyncio.sleep(0)


class EtcdWorld(World):
    """The same on a process of etcd and its clock."""

    etcd: Etcd

    async def almost_end(self) -> None:
        await asyncio.sleep(0.4 * self.period_ms / 1000)

    async def end(self, *, is_almost: bool = False) -> None:
        leases = await self.etcd.leases()
        while len(await self.etcd.leases()) == len(leases):
            await asyncio.sleep(0.05)

    async def forget(self) -> None:
        assert isinstance(self.other, CountedFrom)
        revision = await put(self.other, "f0", b"")
        await self.etcd.compact(self.other.base + revision)


class CountedFrom:
    """A client of a store that was used before: revisions are counted from ``base``."""

    def __init__(self, store: EtcdControlStore, base: int) -> None:
        self._store = store
        self.base = base
        self.grant, self.keep_alive, self.revoke = store.grant, store.keep_alive, store.revoke
        self.close = store.close

    async def get(self, key: str) -> Item | None:
        item = await self._store.get(key)
        return item and Item(key, item.value, item.revision - self.base)

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        items, revision = await self._store.list(prefix)
        return [Item(i.key, i.value, i.revision - self.base) for i in items], revision - self.base

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        shifted = [Compare(c.key, c.revision and c.revision + self.base) for c in compares]
        revision = await self._store.transact(shifted, writes)
        return None if revision is None else revision - self.base

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Event, None]:
        async with aclosing(self._store.watch(prefix, after_revision + self.base)) as watch:
            async for event in watch:
                yield Event(event.key, event.value, event.revision - self.base)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd")) as found:
        yield found


@pytest.fixture(params=["memory", "embedded", "etcd"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    if request.param == "memory":
        memory = MemoryControlStore(now_ms=clock.now_ms)
        yield World(memory, memory.another_client(), clock)
        return
    if request.param == "etcd":
        async with _etcd_world(request.getfixturevalue("etcd"), f"/{request.node.name}") as found:
            yield found
        return
    path = tmp_path / "control.sock"
    server = await EmbeddedControlServer.start(tmp_path / "control.mdb", path, now_ms=clock.now_ms)
    one, two = EmbeddedControlStore(path), EmbeddedControlStore(path)
    yield World(one, two, clock)
    await one.close()
    await two.close()
    await server.close()


@asynccontextmanager
async def _etcd_world(etcd: Etcd, name: str) -> AsyncIterator[World]:
    """Each test has a prefix of its own; leases that it leaves are ended, or they would count in the next."""
    address = etcd.address(re.sub(r"[^/a-z_]", "", name))
    one, two = EtcdControlStore(address), EtcdControlStore(address)
    _, base = await one.list("")
    world = EtcdWorld(CountedFrom(one, base), CountedFrom(two, base), FakeClock(), ETCD_PERIOD_MS)
    world.etcd = etcd
    yield world
    for lease in await etcd.leases():
        await two.revoke(lease)
    await one.close()
    await two.close()


@pytest.fixture
def store(world: World) -> ControlStore:
    return world.store


async def put(store: ControlStore, key: str, value: bytes, lease: int | None = None) -> int:
    revision = await store.transact([], [Write(key, value, lease)])
    assert revision is not None
    return revision


def watching(store: ControlStore, prefix: str, after_revision: int) -> aclosing[AsyncGenerator[Event, None]]:
    """A watch that is ended with its block."""
    return aclosing(cast("AsyncGenerator[Event, None]", store.watch(prefix, after_revision)))


async def take(store: ControlStore, prefix: str, after_revision: int, count: int) -> list[Event]:
    """The first ``count`` events of a watch."""
    events: list[Event] = []
    async with watching(store, prefix, after_revision) as watch:
        while len(events) < count:
            events.append(await anext(watch))
    return events


# -- reading and writing ----------------------------------------------------------------------------


async def test_new_store_is_empty(store: ControlStore) -> None:
    assert await store.get("cluster") is None
    assert await store.list("") == ([], 0)


async def test_written_items_are_read_by_every_client(world: World) -> None:
    revision = await world.store.transact([], [Write("b", b"2"), Write("a", b"")])
    assert revision == 1
    assert await world.other.get("a") == Item("a", b"", 1)
    assert await world.other.list("") == ([Item("a", b"", 1), Item("b", b"2", 1)], 1)


async def test_revision_is_that_of_the_last_change(store: ControlStore) -> None:
    await put(store, "a", b"1")
    await put(store, "b", b"1")
    await put(store, "a", b"2")
    assert await store.get("a") == Item("a", b"2", 3)
    assert await store.get("b") == Item("b", b"1", 2)
    assert (await store.list("b"))[1] == 3


async def test_absent_compare_creates_once(store: ControlStore) -> None:
    assert await store.transact([Compare("a", 0)], [Write("a", b"1")]) == 1
    assert await store.transact([Compare("a", 0)], [Write("a", b"2")]) is None
    assert await store.get("a") == Item("a", b"1", 1)


async def test_one_false_compare_stops_all_writes(store: ControlStore) -> None:
    revision = await put(store, "a", b"1")
    compares = [Compare("a", revision), Compare("b", 7)]
    assert await store.transact(compares, [Write("a", b"2"), Write("b", b"2"), Write("c", b"2")]) is None
    assert await store.list("") == ([Item("a", b"1", revision)], revision)


async def test_compare_without_write_tells_and_changes_nothing(store: ControlStore) -> None:
    revision = await put(store, "a", b"1")
    assert await store.transact([Compare("a", revision)], []) == revision
    assert await store.transact([Compare("a", revision + 1)], []) is None


async def test_delete_makes_key_absent_and_its_old_revision_stale(store: ControlStore) -> None:
    revision = await put(store, "a", b"1")
    assert await store.transact([Compare("a", revision)], [Write("a", None)]) == revision + 1
    assert await store.get("a") is None
    assert await store.transact([Compare("a", revision)], [Write("a", b"2")]) is None
    assert await store.transact([Compare("a", 0)], [Write("a", b"3")]) == revision + 2


async def test_delete_of_absent_key_is_no_change(store: ControlStore) -> None:
    await put(store, "b", b"1")
    assert await store.transact([Compare("a", 0)], [Write("a", None)]) == 1
    assert (await store.list(""))[1] == 1


async def test_racing_increments_all_count(world: World) -> None:
    """Twenty tasks on two connections each add one by compare-and-set; none is lost."""

    async def increment(store: ControlStore) -> None:
        while True:
            item = await store.get("n")
            revision, value = (item.revision, int(item.value)) if item else (0, 0)
            if await store.transact([Compare("n", revision)], [Write("n", b"%d" % (value + 1))]):
                return

    await asyncio.gather(*(increment(store) for store in (world.store, world.other) for _ in range(10)))
    assert await world.store.get("n") == Item("n", b"20", 20)


async def test_of_racing_creations_one_wins(world: World) -> None:
    stores = [world.store, world.other] * 8
    results = await asyncio.gather(
        *(store.transact([Compare("a", 0)], [Write("a", b"%d" % at)]) for at, store in enumerate(stores))
    )
    (winner,) = [at for at, revision in enumerate(results) if revision is not None]
    assert await world.store.get("a") == Item("a", b"%d" % winner, 1)


async def test_prefix_is_text_and_not_a_folder(store: ControlStore) -> None:
    keys = [
        "node",
        "node/",
        "node/a",
        "node/ab",
        "node/b",
        "node0",
        "nodf",
        "node/\U0010ffff",
        "node/\x7f",
        "ö",
    ]
    await store.transact([], [Write(key, b"") for key in keys])

    async def listed(prefix: str) -> list[str]:
        return [item.key for item in (await store.list(prefix))[0]]

    assert await listed("node/a") == ["node/a", "node/ab"]
    assert await listed("node/") == ["node/", "node/a", "node/ab", "node/b", "node/\x7f", "node/\U0010ffff"]
    assert await listed("") == sorted(keys)
    assert await listed("ö") == ["ö"]
    assert await listed("z") == []


async def test_keys_are_in_order_of_their_bytes(store: ControlStore) -> None:
    keys = ["\uffff", "\U00010000", "a", "B", "é", "\x00"]
    await store.transact([], [Write(key, b"") for key in keys])
    assert [item.key for item in (await store.list(""))[0]] == sorted(keys, key=str.encode)


async def test_largest_transaction_is_taken_and_a_larger_one_refused(store: ControlStore) -> None:
    value = os.urandom(CONTROL_TRANSACTION_BYTES_MAX - 1)
    await put(store, "k", value)
    assert await store.get("k") == Item("k", value, 1)
    with pytest.raises(RequestError):
        await put(store, "kk", value)
    with pytest.raises(RequestError):
        await put(store, "k", bytes(10 * CONTROL_TRANSACTION_BYTES_MAX))
    assert (await store.list(""))[1] == 1


async def test_list_larger_than_a_frame_is_complete(store: ControlStore) -> None:
    value = bytes(900 * KIB)
    for number in range(12):
        await put(store, f"big/{number:02}", value)
    items, revision = await store.list("big/")
    assert [item.key for item in items] == [f"big/{number:02}" for number in range(12)]
    assert all(item.value == value for item in items)
    assert revision == 12


@pytest.mark.parametrize(
    "key", ["", "k" * (CONTROL_KEY_BYTES_MAX + 1), "é" * CONTROL_KEY_BYTES_MAX, "\ud800"]
)
async def test_impossible_keys_are_refused(store: ControlStore, key: str) -> None:
    with pytest.raises(RequestError):
        await store.get(key)
    with pytest.raises(RequestError):
        await put(store, key, b"")
    with pytest.raises(RequestError):
        await store.transact([Compare(key, 0)], [])


async def test_impossible_transactions_are_refused(store: ControlStore) -> None:
    with pytest.raises(RequestError):
        await store.transact([], [Write("a", b"1"), Write("a", b"2")])
    with pytest.raises(RequestError):
        await store.transact([], [Write(f"{n}", b"") for n in range(CONTROL_OPS_MAX + 1)])
    with pytest.raises(RequestError):
        await store.transact([Compare(f"{n}", 0) for n in range(CONTROL_OPS_MAX + 1)], [])
    assert await store.list("") == ([], 0)


# -- watching ---------------------------------------------------------------------------------------


async def test_watch_gets_old_and_new_changes_in_order(world: World) -> None:
    await put(world.store, "a/1", b"1")
    await put(world.store, "b/1", b"no")
    waiting = asyncio.create_task(take(world.other, "a/", 0, 4))
    await asyncio.sleep(0)
    await world.store.transact([], [Write("a/1", b"2"), Write("a/2", b"2"), Write("b/1", None)])
    await world.store.transact([], [Write("a/1", None)])
    assert await waiting == [
        Event("a/1", b"1", 1),
        Event("a/1", b"2", 3),
        Event("a/2", b"2", 3),
        Event("a/1", None, 4),
    ]


async def test_watch_resumes_after_a_revision(store: ControlStore) -> None:
    for number in range(5):
        await put(store, "a", b"%d" % number)
    assert await take(store, "a", 3, 2) == [Event("a", b"3", 4), Event("a", b"4", 5)]


async def test_watch_from_list_revision_misses_nothing_and_repeats_nothing(world: World) -> None:
    """Changes race with list-then-watch; the list and the events together are the final state."""

    async def write() -> None:
        for number in range(100):
            await put(world.other, f"k{number % 7}", b"%d" % number)

    writing = asyncio.create_task(write())
    while (await world.store.list(""))[1] < 20:
        await asyncio.sleep(0)
    items, revision = await world.store.list("")
    seen: dict[str, bytes | None] = {item.key: item.value for item in items}
    events = await take(world.store, "", revision, 100 - revision)
    await writing
    assert [event.revision for event in events] == list(range(revision + 1, 101))
    seen.update({event.key: event.value for event in events})
    assert seen == {item.key: item.value for item in (await world.store.list(""))[0]}


async def test_watches_do_not_disturb_one_another(world: World) -> None:
    waiting = [asyncio.create_task(take(world.store, f"w{n % 3}/", 0, 2)) for n in range(9)]
    for number in range(6):
        await put(world.other, f"w{number % 3}/k", b"%d" % number)
    for number, events in enumerate(await asyncio.gather(*waiting)):
        assert [event.value for event in events] == [b"%d" % (number % 3), b"%d" % (number % 3 + 3)]


async def test_watch_of_forgotten_history_is_compacted(world: World) -> None:
    store = world.store
    await put(store, "k", b"1")
    await put(store, "k", b"2")
    await world.forget()
    with pytest.raises(WatchCompacted):
        await take(store, "k", 0, 1)
    items, revision = await store.list("")
    assert (await take(store, "f", revision - 1, 1))[0].revision == revision
    assert items[-1] == Item("k", b"2", 2)
    assert await put(store, "k", b"3") == revision + 1
    assert await take(store, "k", revision, 1) == [Event("k", b"3", revision + 1)]


async def test_quiet_watch_does_not_fall_behind_the_history(world: World) -> None:
    """A watch that sees none of the changes stays alive when they push each other out of the history."""
    async with watching(world.store, "quiet", 0) as watch:
        await put(world.other, "quiet", b"before")
        assert (await anext(watch)).value == b"before"
        waiting = asyncio.ensure_future(anext(watch))
        await world.forget()
        revision = await put(world.other, "quiet", b"now")
        assert await waiting == Event("quiet", b"now", revision)


async def test_watch_of_a_revision_to_come_is_compacted(store: ControlStore) -> None:
    """Who has seen a later revision has seen another history, of a store that was lost."""
    await put(store, "a", b"1")
    with pytest.raises(WatchCompacted):
        await take(store, "a", 2, 1)


async def test_slow_watch_gets_every_event(world: World) -> None:
    """More than fits the server's window waits for the consumer, and nothing is dropped."""
    value = bytes(512 * KIB)
    async with watching(world.store, "", 0) as watch:
        for number in range(24):
            await put(world.other, f"{number}", value)
        assert [(await anext(watch)).key for _ in range(24)] == [f"{number}" for number in range(24)]


async def test_ended_watch_leaves_its_client_working(store: ControlStore) -> None:
    async with watching(store, "", 0) as watch:
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await put(store, "a", b"1") == 1
    assert await take(store, "", 0, 1) == [Event("a", b"1", 1)]


# -- leases -----------------------------------------------------------------------------------------


async def test_lease_takes_its_keys_along_when_it_ends(world: World) -> None:
    lease = await world.store.grant(world.period_ms)
    await world.store.transact([], [Write("a", b"1", lease), Write("b", b"1", lease), Write("c", b"1")])
    await world.almost_end()
    assert await world.other.get("a") == Item("a", b"1", 1)
    await world.end(is_almost=True)
    assert await world.other.get("a") is None
    assert await world.other.list("") == ([Item("c", b"1", 1)], 2)
    assert await take(world.other, "", 1, 2) == [Event("a", None, 2), Event("b", None, 2)]


async def test_lease_that_is_kept_alive_goes_on(world: World) -> None:
    lease = await world.store.grant(world.period_ms)
    await put(world.store, "a", b"1", lease)
    for _ in range(3):
        await world.almost_end()
        assert await world.other.keep_alive(lease) is True
    assert await world.store.get("a") is not None
    await world.end()
    assert await world.store.keep_alive(lease) is False
    assert await world.store.get("a") is None


async def test_revoked_lease_takes_its_keys_along_at_once(world: World) -> None:
    lease = await world.store.grant(world.period_ms)
    await put(world.store, "a", b"1", lease)
    await world.other.revoke(lease)
    assert await world.store.get("a") is None
    assert await world.store.keep_alive(lease) is False
    await world.other.revoke(lease)


async def test_ended_lease_takes_no_keys(world: World) -> None:
    lease = await world.store.grant(world.period_ms)
    await world.end()
    with pytest.raises(Conflict):
        await put(world.store, "a", b"1", lease)
    with pytest.raises(Conflict):
        await put(world.store, "a", b"1", lease + 1000)
    assert await world.store.get("a") is None


async def test_last_write_decides_about_the_lease(world: World) -> None:
    short, long = await world.store.grant(world.period_ms), await world.store.grant(10 * world.period_ms)
    for key, lease in [("freed", None), ("moved", long), ("kept", short)]:
        await put(world.store, key, b"1", short)
        await put(world.store, key, b"2", lease)
    await world.end()
    assert [item.key for item in (await world.store.list(""))[0]] == ["freed", "moved"]


async def test_lease_numbers_are_not_used_again(world: World) -> None:
    first = await world.store.grant(world.period_ms)
    await world.store.revoke(first)
    assert await world.other.grant(world.period_ms) != first


async def test_lease_without_period_is_refused(store: ControlStore) -> None:
    with pytest.raises(RequestError):
        await store.grant(0)


@pytest.mark.parametrize("kind", ["memory", "embedded"])
async def test_lease_ends_by_itself_on_the_loops_clock(kind: str, tmp_path: Path) -> None:
    """Nobody calls the store any more: the watch alone shows that the lease ended."""
    path = tmp_path / "control.sock"
    server = await EmbeddedControlServer.start(tmp_path / "control.mdb", path) if kind == "embedded" else None
    store: ControlStore = EmbeddedControlStore(path) if server else MemoryControlStore()
    await put(store, "a", b"1", await store.grant(PERIOD_MS))
    assert await take(store, "a", 1, 1) == [Event("a", None, 2)]
    await store.close()
    if server:
        await server.close()


# -- closing ----------------------------------------------------------------------------------------


async def test_closed_client_is_unavailable_and_the_other_goes_on(world: World) -> None:
    waiting = asyncio.create_task(take(world.store, "", 0, 1))
    await asyncio.sleep(0)
    await world.store.get("a")
    await world.store.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await world.store.get("a")
    with pytest.raises(Unavailable):
        await world.store.grant(PERIOD_MS)
    assert await put(world.other, "a", b"1") == 1


# -- restart ----------------------------------------------------------------------------------------


async def test_embedded_store_survives_a_restart(tmp_path: Path) -> None:
    """Items, revisions, leases and their numbers are the same for a client that saw both servers."""
    file, path, clock = tmp_path / "control.mdb", tmp_path / "control.sock", FakeClock()
    store = EmbeddedControlStore(path)
    server = await EmbeddedControlServer.start(file, path, now_ms=clock.now_ms)
    lease = await store.grant(PERIOD_MS)
    ended = await store.grant(PERIOD_MS)
    await put(store, "leased", b"1", lease)
    await put(store, "plain", b"1")
    await put(store, "gone", b"1", ended)
    await store.revoke(ended)
    before = await store.list("")
    await server.close()

    clock.now = 5  # The clock of another boot: earlier, and no deadline of the old one means anything.
    server = await EmbeddedControlServer.start(file, path, now_ms=clock.now_ms)
    assert await store.list("") == before == ([Item("leased", b"1", 1), Item("plain", b"1", 2)], 4)
    assert await store.transact([Compare("plain", 1)], [Write("plain", b"2")]) is None
    assert await store.transact([Compare("plain", 2)], [Write("plain", b"2")]) == 5
    assert await store.grant(PERIOD_MS) > ended
    clock.advance(PERIOD_MS - 1)
    assert await store.get("leased") is not None
    assert await store.keep_alive(lease) is True
    clock.advance(PERIOD_MS)
    assert await store.get("leased") is None
    await store.close()
    await server.close()


async def test_watch_over_a_restart_goes_on_from_the_last_revision_only(tmp_path: Path) -> None:
    file, path = tmp_path / "control.mdb", tmp_path / "control.sock"
    store = EmbeddedControlStore(path)
    server = await EmbeddedControlServer.start(file, path)
    await put(store, "a", b"1")
    await put(store, "a", b"2")
    waiting = asyncio.create_task(take(store, "a", 2, 1))
    await store.get("a")
    await server.close()
    with pytest.raises(Unavailable):
        await waiting

    server = await EmbeddedControlServer.start(file, path)
    with pytest.raises(WatchCompacted):
        await take(store, "a", 1, 1)
    waiting = asyncio.create_task(take(store, "a", 2, 1))
    await put(store, "a", b"3")
    assert await waiting == [Event("a", b"3", 3)]
    await store.close()
    await server.close()
