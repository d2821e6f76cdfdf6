"""The whole cluster as the control store has it, read and checked. Coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ssastore.core.cluster import (
    CLUSTER_KEY,
    FORMING_KEY,
    NODE_PREFIX,
    Cluster,
    ClusterRecord,
    NodeRecord,
    node_key,
)
from ssastore.core.groups import GROUP_PREFIX, GroupRecord, group_key
from ssastore.env import ControlStore, Event, Item
from ssastore.errors import ConfigError, TryLater

_READS_MAX = 3
"Nodes and groups are read one after the other; a change in between may need a second look."


async def read_cluster(control: ControlStore) -> Cluster:
    """The cluster with all its nodes and groups, checked.

    Raises:
        ConfigError: there is no cluster, or its layout breaks an invariant of ``core.cluster``.
        TryLater: it is being formed at this moment.
        Unavailable: the control store does not answer.
    """
    for attempt in range(_READS_MAX):
        cluster, is_one_moment = await _read_once(control)
        try:
            cluster.check()
        except ConfigError:
            if is_one_moment or attempt == _READS_MAX - 1:
                raise
        else:
            break
    return cluster


async def read_record(control: ControlStore) -> ClusterRecord:
    item = await control.get(CLUSTER_KEY)
    if item is None:
        raise ConfigError("the control store holds no cluster: form one first, or correct its address")
    return ClusterRecord.decode(item.value)


async def read_nodes(control: ControlStore) -> list[NodeRecord]:
    items, _ = await control.list(NODE_PREFIX)
    return [decode_node(item) for item in items]


async def _read_once(control: ControlStore) -> tuple[Cluster, bool]:
    """The cluster, unchecked, and whether nodes and groups are of one moment."""
    record = await read_record(control)
    if await control.get(FORMING_KEY):
        raise TryLater("the cluster is being formed; if the command that forms it died, run it again")
    # Groups first: a node is listed before it owns anything.
    groups, groups_revision = await control.list(GROUP_PREFIX)
    nodes, nodes_revision = await control.list(NODE_PREFIX)
    cluster = Cluster(record, tuple(map(decode_node, nodes)), tuple(map(decode_group, groups)))
    return cluster, groups_revision == nodes_revision


def decode_node(item: Item) -> NodeRecord:
    node = NodeRecord.decode(item.value)
    _require_key(item, node_key(node.name))
    return node


def decode_group(item: Item) -> GroupRecord:
    record = GroupRecord.decode(item.value)
    _require_key(item, group_key(record.group))
    return record


def _require_key(item: Item, key: str) -> None:
    if item.key != key:
        raise ConfigError(f"the control store holds the record of {key} under {item.key}")


async def group_events(control: ControlStore, revision: int) -> AsyncIterator[Event]:
    """Changes of group records after a revision; the watch is closed however the loop over it ends."""
    watch: Any = control.watch(GROUP_PREFIX, revision)
    async with aclosing(watch):
        async for event in watch:
            yield event


async def follow_record(control: ControlStore) -> AsyncIterator[ClusterRecord]:
    """The cluster's own record: as it is, then after each change. Raises as a watch, and ConfigError."""
    items, revision = await control.list(CLUSTER_KEY)
    for item in items:
        yield ClusterRecord.decode(item.value)
    watch: Any = control.watch(CLUSTER_KEY, revision)
    async with aclosing(watch):
        async for event in watch:
            if event.value is not None:
                yield ClusterRecord.decode(event.value)


async def follow_nodes(control: ControlStore) -> AsyncIterator[dict[str, int]]:
    """Worker processes by node name: of all, then of each whose record changes. Raises as a watch."""
    items, revision = await control.list(NODE_PREFIX)
    yield {node.name: node.workers for node in map(decode_node, items)}
    watch: Any = control.watch(NODE_PREFIX, revision)
    async with aclosing(watch):
        async for event in watch:
            if event.value is not None:
                node = NodeRecord.decode(event.value)
                yield {node.name: node.workers}
