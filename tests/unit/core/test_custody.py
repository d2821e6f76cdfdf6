"""Which slices vote, as group records change: adoption, fences, and what a node may never be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssastore.core.groups import GROUP_PREFIX, group_key
from ssastore.core.held import read_listing, slices_by_group
from ssastore.core.records import STANDINGS_END, STANDINGS_FIRST
from ssastore.core.standing import Standing, State, pack_stands, unpack_parts
from ssastore.env import Compare, WatchCompacted, Write
from ssastore.errors import OutOfStep, Overloaded, StoreFull, Unavailable
from ssastore.keyspace import GROUP_BITS, slice_of
from ssastore.messages import Fence, Mark
from tests.environments import GROUPS_USED, Node, World

GROUP, OTHER, *_ = GROUPS_USED


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


async def begin(world: World, group: int = GROUP, plane: int = 0, env_id: int = 99) -> int:
    """Somebody begins the recovery of a plane; the new cfg."""
    key, record = group_key(group), (await world.record(group)).begin_recovery(plane, env_id)
    item = await world.control.get(key)
    assert item is not None
    assert await world.control.transact([Compare(key, item.revision)], [Write(key, record.encode())])
    return record.cfg


async def until(claim: Any) -> None:
    async with asyncio.timeout(2):
        while not claim():
            await asyncio.sleep(0)


def fence_of(node: Node, *stands: tuple[int, int]) -> Fence:
    return Fence(slice_of(node.plane, stands[0][0]).first | 1, pack_stands(stands))


def fenced_by(reply: tuple[list[Any], Any]) -> list[int]:
    return unpack_parts(reply[0][2])


async def test_a_new_cfg_is_adopted_from_the_record_alone(world: World) -> None:
    """A vote asked for under a later cfg is refused and changes nothing; the record changes it."""
    node = world.nodes["b"]
    with pytest.raises(OutOfStep, match="BEHIND 1"):
        await world.prepare(node, GROUP, 5, cfg=2)
    await world.prepare(node, GROUP, 5, cfg=1)
    await begin(world)
    await until(lambda: node.acceptor.served.cfgs[node.plane << GROUP_BITS | GROUP] == 2)
    assert node.forgotten == 1
    with pytest.raises(OutOfStep, match="STALE 2"):
        await world.prepare(node, GROUP, 6, cfg=1)
    await world.prepare(node, GROUP, 6, cfg=2)
    await world.prepare(node, OTHER, 6, cfg=1)


@pytest.mark.parametrize("error", [Overloaded("busy"), StoreFull("full"), OSError("odd")], ids=repr)
async def test_groups_are_followed_after_any_word_of_the_control_store(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the watch fails, then the listing after it."""
    monkeypatch.setattr("ssastore.core.custody.RECOVERY_RETRY_MS", 1)
    node = world.nodes["b"]
    real, words = node.control.watch, [error, WatchCompacted()]

    async def watch(prefix: str, after_revision: int) -> Any:
        if words:
            raise words.pop(0)
        async for event in real(prefix, after_revision):
            yield event

    async def refused(prefix: str) -> Any:
        monkeypatch.undo()
        raise error

    assert node.following is not None
    node.following.cancel()
    monkeypatch.setattr(node.control, "list", refused)
    node.control.watch = watch  # type: ignore[method-assign]
    node.following = asyncio.ensure_future(node.custody.follow(node.control))
    await until(lambda: not words)
    await begin(world)
    await until(lambda: node.acceptor.served.cfgs[node.plane << GROUP_BITS | GROUP] == 2)


async def test_a_record_that_is_not_understood_hides_no_other_one_of_its_transaction(world: World) -> None:
    """A watch that began again would go on behind all of it."""
    node = world.nodes["b"]
    changed = (await world.record(OTHER)).begin_recovery((node.plane + 1) % 3, 99)
    writes = [Write(group_key(GROUP), b"?"), Write(group_key(OTHER), changed.encode())]
    await world.control.transact([], writes)
    await until(lambda: node.acceptor.served.cfgs[node.plane << GROUP_BITS | OTHER] == 2)


async def test_fence_waits_for_the_record_and_is_durable(world: World) -> None:
    node = world.nodes["b"]
    asked = asyncio.ensure_future(world.ask(node, fence_of(node, (GROUP, 2), (OTHER, 1))))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done()
    await begin(world)
    assert fenced_by(await asked) == [GROUP, OTHER]
    # A process that starts again with the store alone would not vote below it.
    again = Node(world, "b", 2, node.store)
    assert again.custody.standing(node.plane << GROUP_BITS | GROUP) == Standing(1, 2)


async def test_fence_counts_only_where_the_slice_votes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.core.custody.FENCE_BUDGET_MS", 20)
    lost = await world.replace("b", 55)
    await begin(world)
    assert fenced_by(await world.ask(lost, fence_of(lost, (GROUP, 2)))) == []
    ahead = world.nodes["c"]
    assert fenced_by(await world.ask(ahead, fence_of(ahead, (GROUP, 3)))) == []


async def test_fence_that_could_not_be_written_is_not_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.nodes["b"]
    real = node.store.submit

    def full(change: Any, *, size: int = 0) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreFull("full"))
        return future

    monkeypatch.setattr(node.store, "submit", full)
    await begin(world)
    with pytest.raises(StoreFull):
        await world.ask(node, fence_of(node, (GROUP, 2)))
    monkeypatch.setattr(node.store, "submit", real)
    assert fenced_by(await world.ask(node, fence_of(node, (GROUP, 2)))) == [GROUP]
    assert Node(world, "b", 2, node.store).custody.standing(node.plane << GROUP_BITS | GROUP).cfg == 2


async def test_environment_that_no_record_names_does_not_vote(world: World) -> None:
    lost = await world.replace("b", 55)
    assert {lost.state(group) for group in GROUPS_USED} == {State.QUARANTINED}
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(lost, GROUP, 5)
    assert lost.custody.taken == {1 << GROUP_BITS | group for group in GROUPS_USED}


async def test_slices_that_are_taken_later_are_not_taken_back(world: World) -> None:
    """Two environments of one node would chase one another for ever."""
    node = world.nodes["a"]
    await begin(world, env_id=99)
    await until(lambda: node.state(GROUP) is State.QUARANTINED)
    assert node.custody.is_displaced and not node.custody.taken
    assert node.state(OTHER) is State.ACTIVE
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(node, GROUP, 5)
    node.custody.take_all()
    assert node.custody.taken == {GROUP}


async def test_older_records_change_nothing(world: World) -> None:
    node, record = world.nodes["b"], await world.record(GROUP)
    item = await world.control.get(group_key(GROUP))
    assert item is not None
    await begin(world)
    await until(lambda: node.acceptor.served.cfgs[1 << GROUP_BITS | GROUP] == 2)
    node.custody.apply(record, item.revision)
    assert node.acceptor.served.cfgs[1 << GROUP_BITS | GROUP] == 2


async def test_control_store_that_forgot_a_cfg_silences_the_slice(world: World) -> None:
    """A restored control store must not lead anybody back under a fence."""
    node, record = world.nodes["b"], await world.record(GROUP)
    await begin(world)
    await until(lambda: node.acceptor.served.cfgs[1 << GROUP_BITS | GROUP] == 2)
    node.custody.apply(record, 1000)
    assert node.state(GROUP) is State.UNKNOWN
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(node, GROUP, 5)


async def test_what_is_known_is_served_while_the_control_store_is_away(world: World) -> None:
    node = world.nodes["b"]
    await node.control.close()
    await asyncio.sleep(0)
    await world.prepare(node, GROUP, 5)


async def test_disowned_slices_vote_no_more_and_a_restart_does_not_help(world: World) -> None:
    node = world.nodes["b"]
    await node.custody.disown()
    assert {node.state(group) for group in GROUPS_USED} == {State.QUARANTINED}
    again = await world.replace("b", 2, node.store)
    assert {again.state(group) for group in GROUPS_USED} == {State.QUARANTINED}


async def test_withdrawn_environment_is_silent_whatever_is_recorded(world: World) -> None:
    node = world.nodes["b"]
    node.custody.withdraw()
    await begin(world)
    await until(lambda: world.nodes["c"].acceptor.served.cfgs[2 << GROUP_BITS | GROUP] == 2)
    assert not node.acceptor.served.cfgs and not node.custody.taken


async def test_marks_of_others_are_kept_and_told(world: World) -> None:
    node = world.nodes["b"]
    iid = slice_of(1, GROUP).first | 1
    assert (await world.ask(node, Mark(iid, 7, 0, 0)))[0][2:] == [0, 0]
    assert (await world.ask(node, Mark(iid, 7, 2, 50)))[0][2:] == [2, 50]
    assert (await world.ask(node, Mark(iid, 7, 1, 40)))[0][2:] == [2, 50]
    assert (await world.ask(node, Mark(iid, 7, 0, 0)))[0][2:] == [2, 50]


async def test_a_listing_is_sorted_into_what_was_recovered_and_what_never_was(world: World) -> None:
    """Groups of which the worker has no plane are left out."""
    await begin(world)
    items, revision = await world.control.list(GROUP_PREFIX)
    mine = slices_by_group(frozenset({0x1000 | GROUP, 0x2000 | GROUP, 0x1000 | OTHER}))
    assert mine == {GROUP: (0x1000 | GROUP, 0x2000 | GROUP), OTHER: (0x1000 | OTHER,)}
    listing = read_listing(items, mine)
    assert listing.cfgs == {0x1000 | OTHER: 1} and list(listing.untouched) == [OTHER]
    assert listing.others == [(await world.record(GROUP), revision)]


async def test_an_untouched_cluster_writes_no_standings(world: World) -> None:
    for node in world.nodes.values():
        with node.store.read() as txn:
            assert not list(txn.scan(STANDINGS_FIRST, STANDINGS_END))
