"""Another number of workers for a node: what is written before it starts again, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import ENV_PREFIX, FIRST_PREFIX, Environment
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.clusterreading import follow_nodes, read_cluster
from ssastore.core.groups import ACTIVE, GroupRecord, PlaneOwner, group_key
from ssastore.core.membership import AliveRecord, alive_key
from ssastore.core.orders import move_name
from ssastore.core.recut import halves_of, split_part
from ssastore.core.reworking import (
    name_environment,
    order_workers,
    release,
    unnamed,
    worker_state,
)
from ssastore.core.standing import UNTOUCHED, State, judge
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS
from ssastore.rebalance import form_cluster

SERVICE = IPv6Network("2001:db8:5a:1::/64")
ENVS = {f"n{at}/{worker}": 100 * at + worker + 7 for at in range(3) for worker in range(2)}


async def formed(replicas: int = 3, workers: int = 1) -> MemoryControlStore:
    """A cluster of three nodes of which every worker has run."""
    control = MemoryControlStore()
    nodes = [NodeRecord(f"n{at}", f"2001:db8::{at + 1:x}", workers=workers) for at in range(3)]
    await form_cluster(control, SERVICE, replicas, nodes, now_ms=5, random_bytes=bytes)
    for owner, env in ENVS.items():
        if int(owner[-1]) < workers:
            writes = [Write(f"{FIRST_PREFIX}{owner}", b"%08x" % env)]
            writes.append(Write(f"{ENV_PREFIX}{env:08x}", owner.encode()))
            await control.transact([], writes)
    for node in nodes:
        await control.transact([], [Write(alive_key(node.name), AliveRecord(7, 1, 5).encode())])
    return control


async def test_environments_are_named_before_the_number_changes() -> None:
    control = await formed()
    await order_workers(control, "n1", 2)
    cluster = await read_cluster(control)
    assert [node.workers for node in cluster.nodes] == [1, 2, 1]
    assert unnamed(cluster.groups, "n1") == 0 and unnamed(cluster.groups, "n0") == GROUPS
    for record in cluster.groups:
        (found,) = [plane for plane in record.planes if plane.owner == "n1"]
        assert (found.env, found.epoch, found.state, record.cfg) == (ENVS["n1/0"], 1, ACTIVE, 1)
    state = await worker_state(control, "n1")
    assert (state.wanted, state.left) == (2, GROUPS // 2), "what lane 1 has is still worker 0's"


def test_a_new_worker_is_not_taken_for_the_first_one() -> None:
    """With an empty disk it would vote, and forget all that the slice had promised."""
    record = GroupRecord(1, (PlaneOwner("n1"), PlaneOwner("n0"), PlaneOwner("n2")))
    new = Environment(env_id=55, boot=1, first_env=55)
    assert judge(record, 0, new, UNTOUCHED) is State.ACTIVE, "what would be if nothing were written"
    named = name_environment(record, "n1", 7)
    assert judge(named, 0, new, UNTOUCHED) is State.QUARANTINED
    assert judge(named, 0, Environment(env_id=7, boot=9, first_env=7), UNTOUCHED) is State.ACTIVE
    assert name_environment(named, "n1", 9) is named and name_environment(record, "n9", 9) is record


def test_parts_of_a_split_group_are_named_as_well() -> None:
    record = GroupRecord(1, (PlaneOwner("n1"), PlaneOwner("n0"), PlaneOwner("n2")))
    named = name_environment(split_part(record, 1, halves_of(1, 17)), "n0", 7)
    assert [[plane.env for plane in part.planes] for part in named.parts] == [[0, 7, 0], [0, 7, 0]]
    assert GroupRecord.decode(named.encode()).parts == named.parts


def test_a_worker_that_never_ran_has_nothing_to_be_named() -> None:
    with pytest.raises(ConfigError, match="ever ran"):
        name_environment(GroupRecord(1, (PlaneOwner("n1"),)), "n1", 0)


async def test_one_node_at_a_time_and_the_same_one_again() -> None:
    control = await formed()
    await order_workers(control, "n1", 2)
    with pytest.raises(ConfigError, match="n1 is being given"):
        await order_workers(control, "n2", 2)
    await order_workers(control, "n1", 2)
    await release(control, "n2")
    with pytest.raises(ConfigError, match="n1 is being given"):
        await order_workers(control, "n2", 2)
    await release(control, "n1")
    await order_workers(control, "n2", 2)


async def test_a_call_that_is_refused_leaves_the_turn_of_an_earlier_one() -> None:
    """Another node that had its turn then would take a second replica from the same groups."""
    control = await formed()
    await order_workers(control, "n1", 2)
    group = (await read_cluster(control)).groups[5]
    begun = group.begin_recovery(group.owners.index("n1"), ENVS["n1/1"])
    await control.transact([], [Write(group_key(5), begun.encode())])
    with pytest.raises(ConfigError, match="wait until all of its slices vote"):
        await order_workers(control, "n1", 4)
    with pytest.raises(ConfigError, match="ssastore workers set 2 --node n1"):
        await order_workers(control, "n2", 2)


async def test_a_call_that_is_refused_leaves_no_turn_of_its_own() -> None:
    control = await formed()
    await control.transact([], [Write(move_name("n1", 0), b"{}")])
    with pytest.raises(ConfigError, match="ordered to take"):
        await order_workers(control, "n1", 2)
    await order_workers(control, "n2", 2)


async def test_a_node_that_has_left_holds_up_no_other() -> None:
    control = await formed()
    await order_workers(control, "n1", 2)
    cluster = await read_cluster(control)
    moved = [
        group.replaced(plane, replace(found, owner="n3", env=77), group.cfg)
        for group in cluster.groups
        for plane, found in enumerate(group.planes)
        if found.owner == "n1"
    ]
    n3 = NodeRecord("n3", "2001:db8::4")
    await control.transact([], [Write(node_key("n3"), n3.encode()), Write(node_key("n1"), None)])
    await control.transact([], [Write(alive_key("n3"), AliveRecord(77, 1, 5).encode())])
    for group in moved:
        await control.transact([], [Write(group_key(group.group), group.encode())])
    await order_workers(control, "n2", 2)


async def test_while_a_mate_is_gone_it_is_refused() -> None:
    """With its replica and those that another worker gets two of three are missing: nobody rebuilds them."""
    control = await formed()
    await control.transact([], [Write(alive_key("n2"), None)])
    with pytest.raises(ConfigError, match="n2 has no lease"):
        await order_workers(control, "n1", 2)
    assert [node.workers for node in (await read_cluster(control)).nodes] == [1, 1, 1]
    await order_workers(control, "n2", 2)


async def test_what_is_begun_goes_on_although_a_mate_is_gone() -> None:
    control = await formed()
    await order_workers(control, "n1", 2)
    await control.transact([], [Write(alive_key("n2"), None)])
    await order_workers(control, "n1", 2)


async def test_with_one_replica_it_is_refused() -> None:
    control = await formed(replicas=1)
    before = await control.list("")
    with pytest.raises(ConfigError, match="ssastore replicas set 3"):
        await order_workers(control, "n1", 2)
    assert [item.value for item in (await control.list(""))[0]] == [item.value for item in before[0]]


@pytest.mark.parametrize("workers", [0, 17])
async def test_a_number_that_no_node_can_have_is_refused(workers: int) -> None:
    with pytest.raises(ConfigError, match="1 to 16"):
        await order_workers(await formed(), "n1", workers)


async def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no node n9"):
        await order_workers(await formed(), "n9", 2)


async def test_what_is_under_way_is_waited_for() -> None:
    control = await formed()
    group = (await read_cluster(control)).groups[5]
    await control.transact([], [Write(group_key(5), group.begin_recovery(1, 9).encode())])
    with pytest.raises(ConfigError, match="wait until all of its slices vote"):
        await order_workers(control, "n1", 2)
    await control.transact([], [Write(group_key(5), group.encode()), Write(move_name("n1", 0), b"{}")])
    with pytest.raises(ConfigError, match="ordered to take"):
        await order_workers(control, "n1", 2)
    await control.transact([], [Write(move_name("n1", 0), None)])
    await order_workers(control, "n1", 2)


async def test_it_is_done_when_every_slice_votes_at_the_worker_of_its_lane() -> None:
    control = await formed(workers=2)
    state = await worker_state(control, "n1")
    assert (state.wanted, state.left) == (2, 0)
    group = (await read_cluster(control)).groups[5]
    plane = group.owners.index("n1")
    other = group.replaced(plane, replace(group.planes[plane], env=ENVS["n1/0"]), group.cfg)
    await control.transact([], [Write(group_key(5), other.encode())])
    assert (await worker_state(control, "n1")).left == 1


async def test_numbers_of_workers_are_followed() -> None:
    control = await formed()
    told = follow_nodes(control)
    assert await anext(told) == {"n0": 1, "n1": 1, "n2": 1}
    await order_workers(control, "n1", 4)
    assert await anext(told) == {"n1": 4}
    await told.aclose()  # type: ignore[attr-defined]
