"""What a node has is not taken from it while nobody else could rebuild it."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.groups import group_key
from ssastore.core.membership import AliveRecord, alive_key
from ssastore.core.orders import RecoverOrder, order_name
from ssastore.core.reworking import order_workers
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.rebalance import form_cluster, order_recovery, read_cluster

REBUILD = RecoverOrder(rebuild=True)


async def formed(replicas: int) -> MemoryControlStore:
    """A cluster with as many nodes as replicas, all of them there."""
    control = MemoryControlStore()
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in range(1, replicas + 1)]
    service = IPv6Network("2001:db8:5a:1::/64")
    await form_cluster(control, service, replicas, nodes, now_ms=1, random_bytes=bytes)
    for node in nodes:
        await control.transact([], [Write(alive_key(node.name), AliveRecord(7, 1, 5).encode())])
    return control


async def gone(control: MemoryControlStore, name: str) -> None:
    await control.transact([], [Write(alive_key(name), None)])


async def test_nodes_are_rebuilt_one_after_the_other() -> None:
    """Ordered together none of them would have a vote, and nobody could ask another one."""
    control = await formed(3)
    await order_recovery(control, "n1", REBUILD)
    with pytest.raises(
        ConfigError, match="needs 2 other replicas for that, and 1 are there; n1 is being rebuilt"
    ):
        await order_recovery(control, "n2", REBUILD)
    with pytest.raises(ConfigError, match="n1 is being rebuilt"):
        await order_workers(control, "n2", 2)
    await order_recovery(control, "n1", REBUILD)
    await order_recovery(control, "n2", RecoverOrder())
    for name in ("n1", "n2"):
        await control.transact([], [Write(order_name(name, 0), None)])
    await order_recovery(control, "n2", REBUILD)


async def test_nothing_is_rebuilt_that_needs_a_node_which_is_gone() -> None:
    control = await formed(3)
    await gone(control, "n3")
    with pytest.raises(ConfigError, match="n3 has no lease"):
        await order_recovery(control, "n1", REBUILD)
    assert await control.get(order_name("n1", 0)) is None
    await order_recovery(control, "n3", REBUILD)
    await order_recovery(control, "n1", RecoverOrder(rebuild=True, accept_data_loss=True))


async def test_what_is_being_recovered_elsewhere_is_none_that_is_there() -> None:
    control = await formed(3)
    record = (await read_cluster(control)).groups[5]
    mate = next(plane for plane, owner in enumerate(record.owners) if owner != "n1")
    await control.transact([], [Write(group_key(5), record.begin_recovery(mate, 9).encode())])
    with pytest.raises(ConfigError, match=r"group 005 needs 2 other replicas for that, and 1 are there$"):
        await order_recovery(control, "n1", REBUILD)


async def test_with_one_replica_there_is_nobody_to_rebuild_from() -> None:
    with pytest.raises(ConfigError, match="needs 1 other replicas for that, and 0 are there"):
        await order_recovery(await formed(1), "n1", REBUILD)


async def test_with_five_replicas_one_may_be_missing() -> None:
    control = await formed(5)
    await gone(control, "n4")
    await order_recovery(control, "n1", REBUILD)
    with pytest.raises(ConfigError, match="needs 3 other replicas for that, and 2 are there"):
        await order_recovery(control, "n2", REBUILD)
