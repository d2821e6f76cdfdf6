"""A lost environment gets its slices back from its mates: four steps, in order, whatever dies between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from blake3 import blake3

from ssastore.core.copying import LOCAL
from ssastore.core.floors import raise_floor
from ssastore.core.groups import ACTIVE, RECOVERING, group_key
from ssastore.core.orders import RecoverOrder, order_name
from ssastore.core.pages import stored_key_of
from ssastore.core.records import blob_key, record_key
from ssastore.core.recovery import _all_that_is_left
from ssastore.core.register import LIVE, Slot, Value, make_ballot
from ssastore.core.settings import MOVE_SETTINGS_KEY, MoveSettings
from ssastore.core.standing import Standing, State
from ssastore.env import Compare, Write
from ssastore.errors import OutOfStep, Unavailable
from ssastore.keyspace import GROUP_BITS, group_of, iid_of, position_of_blob
from ssastore.limits import MOVE_BYTES_PER_S_MIN, ORDER_EVERY_MS
from ssastore.messages import STANDS_MAX, Kind, PutBlob
from tests.environments import GROUPS_USED, NODES, Node, World
from tests.registermodel import run_virtually

GROUP, OTHER, *_ = GROUPS_USED
A = 0
"Plane of the node that is lost."


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World().form()
    yield made
    made.close()


def content_in(group: int, size: int = 100) -> bytes:
    """A blob that lies in a group."""
    number = 0
    while True:
        content = number.to_bytes(4, "big") * (size // 4)
        if group_of(position_of_blob(blake3(content).digest())) == group:
            return content
        number += 1


def active(record: Any) -> bool:
    return all(plane.state == ACTIVE for plane in record.planes)


async def test_everything_comes_back(world: World) -> None:
    """Records, blobs with references, floors: the union and the highest of what both mates hold."""
    b, c = world.nodes["b"], world.nodes["c"]
    for node in world.nodes.values():
        await world.accept(node, GROUP, 5, b"everywhere")
    await world.accept(b, OTHER, 6, b"at one mate")
    await world.prepare(c, OTHER, 9)
    content = content_in(GROUP)
    digest: bytes = blake3(content).digest()
    put = PutBlob(iid_of(position_of_blob(digest), c.plane), digest, b"whose")
    await world.ask(c, put, content)
    floor = make_ballot(3, 9, 1)
    await c.store.submit(lambda txn: raise_floor(txn, c.plane << GROUP_BITS | OTHER, floor))

    lost = await world.replace("a", 50)
    await lost.recovery.round()

    assert {lost.state(group) for group in GROUPS_USED} == {State.ACTIVE}
    found = lost.records()
    assert found == b.records() | c.records() | {key: found[key] for key in b.records()}
    assert (await world.prepare(lost, GROUP, 8, cfg=2))[1] == make_ballot(5, 9, 1)
    with pytest.raises(Exception, match="OUTRUN"):
        await world.prepare(lost, OTHER, 9, cfg=2)
    assert (await world.prepare(lost, OTHER, 10, cfg=2))[1] == make_ballot(6, 9, 1)
    assert lost.recovery.describe() | {"bytes": 0} == {"left": 0, "done": 4, "bytes": 0, "waiting": ""}
    for group in GROUPS_USED:
        record = await world.record(group)
        assert active(record) and record.cfg == 2
        assert (record.planes[A].env, record.planes[A].epoch) == (50, 3)


async def test_steps_come_in_order(world: World) -> None:
    """Begun before the fence, fenced before the copy, copied before it is finished."""
    lost = await world.replace("a", 50)
    seen: list[tuple[str, str, int]] = []

    async def hook(message: Any) -> None:
        record = await world.record(GROUP)
        plane = record.planes[A]
        seen.append((type(message).__name__, plane.state, plane.env))
        if type(message).__name__ == "Pull":
            for name in ("b", "c"):
                node = world.nodes[name]
                assert node.custody.standing(node.plane << GROUP_BITS | GROUP) == Standing(1, 2)

    world.hook = hook
    await lost.recovery.round()
    assert seen == [("Fence", RECOVERING, 50)] * 2 + [("Pull", RECOVERING, 50)] * 2
    assert active(await world.record(GROUP))


async def test_old_environment_gets_no_majority_after_the_fence(world: World) -> None:
    """It still answers, and neither mate votes with it; nor it with them."""
    zombie = world.nodes["a"]
    lost = await world.run(Node(world, "a", 50))
    await lost.recovery.round()
    for name in ("b", "c"):
        with pytest.raises(OutOfStep, match="STALE"):
            await world.accept(world.nodes[name], GROUP, 7, b"zombie", cfg=1)
    async with asyncio.timeout(2):
        while zombie.state(GROUP) is State.ACTIVE:
            await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(zombie, GROUP, 7, cfg=1)
    assert not zombie.recovery.work()


async def test_a_value_chosen_with_the_lost_plane_is_there_again(world: World) -> None:
    """Chosen by the lost plane and one mate: that mate's word is enough."""
    a, b = world.nodes["a"], world.nodes["b"]
    await world.accept(a, GROUP, 5, b"chosen")
    await world.accept(b, GROUP, 5, b"chosen")
    lost = await world.replace("a", 50)
    await lost.recovery.round()
    fields = await world.prepare(lost, GROUP, 8, cfg=2)
    assert fields[1] == make_ballot(5, 9, 1)


@pytest.mark.parametrize("down", ["b", "c"])
async def test_with_one_mate_it_waits(world: World, down: str) -> None:
    lost = await world.replace("a", 50)
    world.nodes[down].is_down = True
    await lost.recovery.round()
    assert {lost.state(group) for group in GROUPS_USED} == {State.RECOVERING}
    assert "wait for 2 mates" in lost.recovery.describe()["waiting"] and "Pull" not in world.calls
    with pytest.raises(Unavailable, match="SILENT"):
        await world.prepare(lost, GROUP, 5, cfg=2)
    world.nodes[down].is_down = False
    await lost.recovery.round()
    assert {lost.state(group) for group in GROUPS_USED} == {State.ACTIVE}


async def test_two_lost_mates_wait_for_ever(world: World) -> None:
    """Neither may begin from the other: with two of three lost only an operator goes on."""
    first, second = await world.replace("a", 50), await world.replace("b", 51)
    for _ in range(2):
        await first.recovery.round()
        await second.recovery.round()
    assert State.ACTIVE not in {node.state(group) for node in (first, second) for group in GROUPS_USED}


STOPS = ["Fence", "Pull"]


@pytest.mark.parametrize("step", STOPS)
@pytest.mark.parametrize("at", [1, 2])
async def test_death_at_any_message_is_followed_by_a_whole_recovery(world: World, step: str, at: int) -> None:
    await world.accept(world.nodes["b"], GROUP, 5, b"kept")
    lost = await world.replace("a", 50)
    count = 0

    async def hook(message: Any) -> None:
        nonlocal count
        count += type(message).__name__ == step
        if count == at and type(message).__name__ == step:
            raise asyncio.CancelledError

    world.hook = hook
    with pytest.raises(asyncio.CancelledError):
        await lost.recovery.round()
    world.hook = None
    again = await world.replace("a", 50, lost.store)
    assert State.ACTIVE not in {again.state(group) for group in GROUPS_USED}
    await again.recovery.round()
    assert {again.state(group) for group in GROUPS_USED} == {State.ACTIVE}
    assert (await world.record(GROUP)).cfg == 2, "what was begun goes on under its cfg"
    assert (await world.prepare(again, GROUP, 8, cfg=2))[1] == make_ballot(5, 9, 1)


async def test_copied_slice_is_not_copied_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies between the copy and the last compare-and-set."""
    lost = await world.replace("a", 50)

    async def no_finish(plane: int, held: Any) -> None:
        return None

    monkeypatch.setattr(lost.recovery, "_finish", no_finish)
    await lost.recovery.round()
    assert {lost.state(group) for group in GROUPS_USED} == {State.FILLED}
    again = await world.replace("a", 50, lost.store)
    assert {again.state(group) for group in GROUPS_USED} == {State.FILLED}
    world.calls.clear()
    await again.recovery.round()
    assert {again.state(group) for group in GROUPS_USED} == {State.ACTIVE} and not world.calls


async def test_second_loss_in_the_middle_begins_anew(world: World) -> None:
    """The environment that was being rebuilt is lost itself: its cfg is not used by the next one."""
    lost = await world.replace("a", 50)
    world.nodes["b"].is_down = True
    await lost.recovery.round()
    world.nodes["b"].is_down = False
    next_one = await world.replace("a", 51)
    assert {next_one.state(group) for group in GROUPS_USED} == {State.QUARANTINED}
    await next_one.recovery.round()
    record = await world.record(GROUP)
    assert (record.cfg, record.planes[A].env, record.planes[A].epoch) == (3, 51, 4) and active(record)


async def test_record_that_somebody_else_changed_is_left_alone(world: World) -> None:
    """Between copy and finish another environment takes the slice: it is not given back by force."""
    lost = await world.replace("a", 50)

    async def hook(message: Any) -> None:
        if type(message).__name__ == "Pull" and (await world.record(GROUP)).planes[A].env == 50:
            item = await world.control.get(group_key(GROUP))
            assert item is not None
            taken = (await world.record(GROUP)).begin_recovery(A, 77)
            await world.control.transact(
                [Compare(item.key, item.revision)], [Write(item.key, taken.encode())]
            )

    world.hook = hook
    await lost.recovery.round()
    assert (await world.record(GROUP)).planes[A].env == 77 and lost.state(GROUP) is State.QUARANTINED
    world.hook = None
    await lost.recovery.round()
    assert lost.state(OTHER) is State.ACTIVE, "the rest of the batch goes on"
    assert lost.state(GROUP) is not State.ACTIVE or (await world.record(GROUP)).planes[A].env == 50


async def test_damaged_record_of_a_mate_holds_up_its_own_slice_only(world: World) -> None:
    b = world.nodes["b"]
    await world.accept(b, GROUP, 5, b"rotten")
    (key,) = b.records()
    b.store.poke(stored_key_of(key, b.plane), b"rotten rotten")
    lost = await world.replace("a", 50)
    await lost.recovery.round()
    assert lost.state(GROUP) is State.RECOVERING and lost.state(OTHER) is State.ACTIVE
    assert "damaged" in lost.recovery.describe()["waiting"]
    await b.store.submit(lambda txn: txn.delete(stored_key_of(key, b.plane)))
    await lost.recovery.round()
    assert lost.state(GROUP) is State.ACTIVE


async def test_blob_that_no_mate_has_holds_up_its_own_slice_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other content at one mate, missing at the other; each slice in a batch of its own, or all in one."""
    content = content_in(GROUP)
    digest: bytes = blake3(content).digest()
    for name in ("b", "c"):
        node = world.nodes[name]
        await world.ask(node, PutBlob(iid_of(position_of_blob(digest), node.plane), digest, b""), content)
    b, c = world.nodes["b"], world.nodes["c"]
    locator = position_of_blob(digest) >> 32
    await b.store.submit(lambda txn: txn.put(blob_key(b.plane << 28 | locator, digest), b"something else"))
    await c.store.submit(lambda txn: txn.delete(blob_key(c.plane << 28 | locator, digest)))
    for env_id, batch in ((50, 1), (51, STANDS_MAX)):
        monkeypatch.setattr("ssastore.core.recovery.STANDS_MAX", batch)
        lost = await world.replace("a", env_id)
        await lost.recovery.round()
        assert [lost.state(group) is State.ACTIVE for group in GROUPS_USED] == [False, True, True, True]
        assert "no good copy of a blob, plane 1: " in lost.recovery.describe()["waiting"]
    await world.ask(c, PutBlob(iid_of(position_of_blob(digest), c.plane), digest, b""), content)
    await lost.recovery.round()
    assert lost.state(GROUP) is State.ACTIVE


def test_a_recovery_goes_no_faster_than_slices_may_move() -> None:
    """On virtual time: 480 KB from two mates, at the rate that is set while the node runs."""

    async def scenario() -> None:
        world = await World().form()
        for group in GROUPS_USED:
            for name in ("b", "c"):
                await world.accept(world.nodes[name], group, 5, bytes(60_000))
        lost = await world.replace("a", 50)
        obeying = asyncio.ensure_future(lost.recovery.obey(order_name("a", 0)))
        settings = MoveSettings(MOVE_BYTES_PER_S_MIN)
        await world.control.transact([], [Write(MOVE_SETTINGS_KEY, settings.encode())])
        await asyncio.sleep(ORDER_EVERY_MS / 1000 + 0.1)
        began_s = asyncio.get_running_loop().time()
        await lost.recovery.round()
        took_s = asyncio.get_running_loop().time() - began_s
        obeying.cancel()
        assert lost.state(GROUP) is State.ACTIVE and 0.3 < took_s < 0.6
        world.close()

    run_virtually(scenario)


async def test_blobs_that_are_here_are_not_fetched(world: World) -> None:
    """An old copy of the directory still holds most of them, and content cannot be out of date."""
    content = content_in(GROUP)
    digest: bytes = blake3(content).digest()
    for node in world.nodes.values():
        await world.ask(node, PutBlob(iid_of(position_of_blob(digest), node.plane), digest, b""), content)
    old = world.nodes["a"].store
    lost = await world.replace("a", 50, old)
    await lost.recovery.round()
    assert "GetBlob" not in world.calls and lost.state(GROUP) is State.ACTIVE


async def test_rotten_blob_is_fetched_and_a_false_one_refused(world: World) -> None:
    content = content_in(GROUP)
    digest: bytes = blake3(content).digest()
    for node in world.nodes.values():
        await world.ask(node, PutBlob(iid_of(position_of_blob(digest), node.plane), digest, b""), content)
    locator = position_of_blob(digest) >> 32
    old, b = world.nodes["a"].store, world.nodes["b"]
    old.poke(blob_key(locator, digest), b"rotten rotten")
    await b.store.submit(lambda txn: txn.put(blob_key(b.plane << 28 | locator, digest), b"something else"))
    lost = await world.replace("a", 50, old)
    await lost.recovery.round()
    with lost.store.read() as txn:
        assert txn.get(blob_key(locator, digest)) == content
    assert world.calls.count("GetBlob") == 2


async def test_old_records_of_a_restored_copy_are_gone(world: World) -> None:
    """A deleted and collected name must not come back from the copy."""
    position = GROUP << 16
    old = world.nodes["a"].store
    ballot = make_ballot(1, 1, 1)
    value = b"".join(Slot(ballot, ballot, b"".join(Value(LIVE).encode())).encode())
    await old.submit(lambda txn: txn.put(record_key(position, Kind.OBJECT, 1, b"gone"), value))
    lost = await world.replace("a", 50, old)
    await lost.recovery.round()
    assert lost.records() == {} and lost.state(GROUP) is State.ACTIVE


# -- orders -----------------------------------------------------------------------------------------


async def obey(node: Node, order: RecoverOrder) -> None:
    """Let a node carry out an order to its end."""
    name = order_name(NODES[node.plane], 0)
    await node.control.transact([], [Write(name, order.encode())])
    while (item := await node.control.get(name)) is not None:
        await node.recovery._obey(item)
        await node.recovery.round()


async def test_data_loss_is_accepted_on_order_only(world: World) -> None:
    await world.accept(world.nodes["c"], GROUP, 5, b"the only copy left")
    world.nodes["b"].stop()
    lost = await world.replace("a", 50)
    await lost.recovery.round()
    assert lost.state(GROUP) is State.RECOVERING
    await obey(lost, RecoverOrder(accept_data_loss=True))
    assert {lost.state(group) for group in GROUPS_USED} == {State.ACTIVE}
    assert (await world.prepare(lost, GROUP, 8, cfg=2))[1] == make_ballot(5, 9, 1)
    assert not lost.recovery.accepted, "for this time only"


async def test_without_any_mate_the_order_keeps_what_the_disk_holds(world: World) -> None:
    await world.accept(world.nodes["a"], GROUP, 5, b"old copy")
    for name in ("b", "c"):
        world.nodes[name].stop()
    lost = await world.replace("a", 50, world.nodes["a"].store)
    await obey(lost, RecoverOrder(accept_data_loss=True))
    assert lost.state(GROUP) is State.ACTIVE
    assert (await world.prepare(lost, GROUP, 8, cfg=2))[1] == make_ballot(5, 9, 1)


async def test_ordered_rebuild_replaces_what_nobody_else_holds(world: World) -> None:
    """The environment is the same, and so is its id; its state is its mates'."""
    a = world.nodes["a"]
    await world.accept(a, GROUP, 5, b"nobody else has it")
    await world.accept(world.nodes["b"], OTHER, 5, b"missed")
    await obey(a, RecoverOrder(rebuild=True))
    assert {a.state(group) for group in GROUPS_USED} == {State.ACTIVE}
    assert a.records().keys() == world.nodes["b"].records().keys()
    record = await world.record(GROUP)
    assert (record.planes[A].env, record.planes[A].epoch, record.cfg) == (1, 3, 2)


async def test_run_recovers_by_itself_and_waits_for_the_next_loss(world: World) -> None:
    lost = await world.replace("a", 50)
    running = asyncio.ensure_future(lost.recovery.run())
    async with asyncio.timeout(5):
        while lost.state(GROUP) is not State.ACTIVE:
            await asyncio.sleep(0)
    running.cancel()
    assert active(await world.record(GROUP))


def test_where_a_loss_is_accepted_every_mate_that_is_left_is_a_source() -> None:
    """Parts of other mates wait for a round of their own."""
    fenced = {1: {5, 6}, 2: {6, 7}, 3: set(), 4: {6}}
    cfgs = dict.fromkeys((5, 6, 7, 8), 2)
    assert _all_that_is_left(fenced, cfgs) == ([LOCAL, 1, 2, 4], [6])
    assert _all_that_is_left(fenced, {5: 2, 8: 2}) == ([LOCAL, 1], [5])
    assert _all_that_is_left(fenced, {8: 2}) == ([LOCAL], [8])
