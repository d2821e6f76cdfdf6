"""Groups that are split and merged while three environments vote for them: on their disks, after restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ssastore.core.groups import GroupRecord, group_key
from ssastore.core.heirs import Legacy, note_legacy
from ssastore.core.joiner import Joiner
from ssastore.core.moving import begin_move
from ssastore.core.numbers import covers, number_of_part, part_piece, slice_number
from ssastore.core.records import shut_key, slice_range
from ssastore.core.recut import halves_of
from ssastore.core.recutting import abort_merge, order_merge, order_split
from ssastore.core.standing import UNTOUCHED, Standing, State, read_standings
from ssastore.env import Write
from ssastore.errors import BucketNotFound, ConfigError, Overloaded, StoreFull
from ssastore.keyspace import ANY_TAIL, POSITION_BITS, iid_of
from ssastore.messages import Shut
from ssastore.store.memory import MemoryStore
from tests.environments import GROUPS_USED, NODES, Node, World

GROUP = GROUPS_USED[0]
LOW, HIGH = halves_of(GROUP, 17)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


async def until(claim: object) -> None:
    assert callable(claim)
    async with asyncio.timeout(2):
        while not claim():
            await asyncio.sleep(0)


def votes_for(world: World, *parts: int) -> bool:
    return all(
        node.custody.is_voting(slice_number(node.plane, part))
        for node in world.nodes.values()
        for part in parts
    )


async def split(world: World, part: int = GROUP) -> None:
    await order_split(world.control, part, halves_of(part, part_piece(part).depth + 1))
    await until(lambda: votes_for(world, *halves_of(part, part_piece(part).depth + 1)))


async def join(world: World, *names: str) -> GroupRecord:
    """Let the workers of some nodes look at merges once."""
    for name in names or NODES:
        node = world.nodes[name]
        await until(lambda node=node: node.custody.merging())
        await Joiner(node.custody, node.control).round()
    return await world.record(GROUP)


async def test_a_split_group_votes_on_with_all_that_it_promised(world: World) -> None:
    await world.accept(world.nodes["b"], GROUP, 5, b"before")
    await split(world)
    node = world.nodes["b"]
    found = await world.prepare(node, GROUP, 6)
    assert found[0] == 1, "under the cfg that it had"
    with pytest.raises(Overloaded, match="OUTRUN"):
        await world.prepare(node, GROUP, 4)
    assert node.acceptor.owned >= {slice_number(1, LOW), slice_number(1, HIGH)}
    assert slice_number(1, GROUP) not in node.acceptor.owned


async def test_parts_are_found_again_after_a_restart(world: World) -> None:
    await world.accept(world.nodes["b"], GROUP, 5, b"before")
    await split(world)
    again = await world.replace("b", 2, world.nodes["b"].store)
    assert again.custody.is_voting(slice_number(1, LOW)) and again.custody.is_voting(slice_number(1, HIGH))
    with pytest.raises(Overloaded, match="OUTRUN"):
        await world.prepare(again, GROUP, 4)


async def test_who_was_down_while_a_group_was_split_votes_for_its_parts(world: World) -> None:
    """And for parts of parts; its disk says of none of them that it has it."""
    node = world.nodes["b"]
    await world.accept(node, GROUP, 5, b"before")
    node.stop()
    await order_split(world.control, GROUP, [LOW, HIGH])
    await order_split(world.control, LOW, halves_of(LOW, 19))
    again = await world.replace("b", 2, node.store)
    await until(lambda: not again.custody.states)
    with again.store.read() as txn:
        standings = read_standings(txn)
    for part in (*halves_of(LOW, 19), HIGH):
        assert again.custody.is_voting(slice_number(1, part))
        assert standings[slice_number(1, part)] == UNTOUCHED
    assert standings[slice_number(1, GROUP)] == Standing(0, 1)


async def test_parts_do_not_vote_before_that_is_durable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.nodes["b"]
    real = node.store.submit
    waiting: list[tuple[object, asyncio.Future[None]]] = []

    def held_up(change: object, *, size: int = 0) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append((change, future))
        return future

    monkeypatch.setattr(node.store, "submit", held_up)
    await order_split(world.control, GROUP, [LOW, HIGH])
    await until(lambda: node.custody.states)
    assert set(node.custody.states.values()) == {State.RECUT}
    await until(lambda: waiting)
    monkeypatch.setattr(node.store, "submit", real)
    monkeypatch.setattr("ssastore.core.custody.RECOVERY_RETRY_MS", 1)
    for _, future in waiting:
        future.set_exception(StoreFull("full"))
    await until(lambda: not node.custody.states)


async def test_a_control_store_that_is_older_than_a_split_gives_nobody_a_vote(world: World) -> None:
    node, before = world.nodes["b"], await world.record(GROUP)
    await split(world)
    node.custody.apply(before, 1000)
    assert not node.custody.is_voting(slice_number(1, GROUP))
    # Nor after a restart.
    await world.control.transact([], [Write(group_key(GROUP), before.encode())])
    again = await world.replace("b", 2, node.store)
    assert again.state(GROUP) is State.QUARANTINED


async def test_a_merge_takes_all_planes_and_the_next_cfg(world: World) -> None:
    await world.accept(world.nodes["b"], GROUP, 5, b"before")
    await split(world)
    assert not await order_merge(world.control, GROUP)
    assert (await join(world, "a", "b")).merging is not None
    assert votes_for(world, LOW, HIGH), "all go on meanwhile, under the new cfg"
    assert world.nodes["c"].acceptor.served.cfgs[slice_number(2, LOW)] == 2
    record = await join(world, "c")
    assert record.split is None and record.cfg == 2
    await until(lambda: votes_for(world, GROUP))
    assert await order_merge(world.control, GROUP)
    with pytest.raises(Overloaded, match="OUTRUN"):
        await world.prepare(world.nodes["b"], GROUP, 4, cfg=2)
    for node in world.nodes.values():
        with node.store.read() as txn:
            assert read_standings(txn) == {slice_number(node.plane, GROUP): Standing(3, 2)}


async def test_who_was_down_when_a_merge_ended_votes_for_the_whole(world: World) -> None:
    await world.accept(world.nodes["b"], GROUP, 5, b"before")
    await split(world)
    await order_merge(world.control, GROUP)
    await join(world, "b")
    world.nodes["b"].stop()
    await join(world, "a", "c")
    again = await world.replace("b", 2, world.nodes["b"].store)
    await until(lambda: again.custody.is_voting(slice_number(1, GROUP)))
    with pytest.raises(Overloaded, match="OUTRUN"):
        await world.prepare(again, GROUP, 4, cfg=2)


async def test_an_environment_that_lost_its_state_is_not_ready(world: World) -> None:
    await split(world)
    await order_merge(world.control, GROUP)
    lost = await world.replace("b", 55)
    await Joiner(lost.custody, lost.control).round()
    record = await join(world, "a", "c")
    assert record.merging is not None and record.merging.ready[1] == 0


async def test_a_merge_that_does_not_end_is_called_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await split(world)
    await order_merge(world.control, GROUP)
    node = world.nodes["a"]
    await until(node.custody.merging)
    joiner = Joiner(node.custody, node.control)
    await joiner.round()
    with pytest.raises(ConfigError, match="one thing at a time"):
        await order_split(world.control, LOW, halves_of(LOW, 18))
    monkeypatch.setattr("ssastore.core.joiner.MERGE_MS_MAX", 0)
    await joiner.round()
    await joiner.round()
    record = await world.record(GROUP)
    assert record.merging is None and len(record.parts) == 2
    await until(lambda: votes_for(world, LOW, HIGH))
    assert not await abort_merge(world.control, GROUP), "there is none any more"
    await order_merge(world.control, GROUP)
    assert await abort_merge(world.control, GROUP)
    # What was noted for the two that came to nothing is good for no third one.
    await order_merge(world.control, GROUP)
    assert (await join(world)).split is None
    await until(lambda: votes_for(world, GROUP))


async def shut(node: Node, part: int, attempt: int, *, shut: bool = True) -> int:
    iid = iid_of(part_piece(part).first | ANY_TAIL, node.plane)
    header, _ = await node.world.ask(node, Shut(iid, 7, 0, 0, attempt, shut))
    last: int = header[3]
    return last


def mark_in(node: Node, part: int) -> bytes | None:
    first, _ = slice_range(slice_number(node.plane, part))
    with node.store.read() as txn:
        found = txn.get(shut_key(int.from_bytes(first.ljust(4, b"\0"), "big"), 7))
        return None if found is None else bytes(found)


async def test_marks_of_hashed_buckets_are_inherited(world: World) -> None:
    node = world.nodes["b"]
    assert await shut(node, GROUP, 1) == (GROUP << 16) | 0xFFFF
    await split(world)
    assert mark_in(node, HIGH) == mark_in(node, LOW) is not None
    assert await shut(node, HIGH, 2) == (GROUP << 16) | 0xFFFF
    assert await shut(node, LOW, 1) == (GROUP << 16) | 0x7FFF
    assert mark_in(node, HIGH) != mark_in(node, LOW)
    await order_merge(world.control, GROUP)
    await join(world)
    await until(lambda: votes_for(world, GROUP))
    assert mark_in(node, GROUP) == mark_in(node, HIGH), "the later step of both"


async def test_a_mark_that_only_one_part_has_is_the_whole_slices(world: World) -> None:
    node = world.nodes["b"]
    await split(world)
    await shut(node, HIGH, 1)
    await order_merge(world.control, GROUP)
    await join(world)
    await until(lambda: votes_for(world, GROUP))
    with pytest.raises(BucketNotFound):
        await world.accept(node, GROUP, 5, b"late", cfg=2)


async def test_what_is_inherited_is_noted_at_once() -> None:
    whole, half = slice_number(1, GROUP), slice_number(1, HIGH)
    assert covers(whole, half) and not covers(half, whole)
    legacy = Legacy({half: Standing(4, 2), whole: Standing(0, 2)}, [half], [(whole, half)], [])
    store = MemoryStore()
    mark = shut_key(0x1000_0000 | GROUP << 16, 9)
    await store.submit(lambda txn: txn.put(mark, bytes(7) + b"\3\1"))
    await store.submit(lambda txn: note_legacy(txn, legacy))
    with store.read() as txn:
        assert read_standings(txn) == legacy.standings
        assert txn.get(shut_key(0x1000_8000 | GROUP << 16, 9)) == bytes(7) + b"\3\1"
    assert number_of_part(part_piece(HIGH)) == HIGH and POSITION_BITS == 60


async def test_of_a_group_the_slice_that_is_moving_is_recovered_first(world: World) -> None:
    """Parts are taken one after the other; a move that nobody can finish must not stand before them all."""
    await order_split(world.control, GROUP, [LOW, HIGH])
    item = await world.control.get(group_key(GROUP))
    assert item is not None
    high = GroupRecord.decode(item.value).at(HIGH)
    assert high is not None
    moving = begin_move(high, 1, "d", 9, dict.fromkeys("abcd", ""))
    await world.control.transact([], [Write(group_key(GROUP), moving.encode())])
    lost = await world.replace("b", 55)
    assert slice_number(1, LOW) in lost.recovery.work()
    for _ in range(3):
        await lost.recovery.round()
    assert not lost.recovery.work() and lost.custody.is_voting(slice_number(1, HIGH))


async def test_a_merge_holds_up_no_recovery(world: World) -> None:
    """It waits for all planes to vote, and whoever wants it begins it again when it is called off."""
    await split(world)
    lost = await world.replace("b", 55)
    for left in (1, 0):
        await order_merge(world.control, GROUP)
        await until(lost.custody.merging)
        await lost.recovery.round()
        assert len(lost.recovery.work()) == left
    assert (await world.record(GROUP)).merging is None
    await until(lambda: votes_for(world, LOW, HIGH))
    await order_merge(world.control, GROUP)
    assert (await join(world)).split is None
