"""Another number of workers for a node of a cluster that runs (ADR 0020). Coroutines.

    1  claim    ``reworking`` names the node: one at a time in a cluster                    (compare-and-set)
    2  name     the environments that answer for its slices by now, in the groups' records  (compare-and-set)
    3  change   the node's record has the new number                                        (compare-and-set)
    4  the node starts again with it; slices whose lane is another worker's now are none of that worker's
       environment, and are recovered from their mates like those of a lost disk
    5  release  all its slices vote at the worker of their lane

Step 2 comes before 3, since a record that names no environment means the first one that the owner's worker
ever had: a new worker would take itself for that, and vote with an empty disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ssastore.core.boot import ENV_PREFIX, FIRST_PREFIX
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.clusterreading import decode_group, decode_node, read_cluster
from ssastore.core.fields import decode_fields, encode_fields, is_match, require
from ssastore.core.groups import ACTIVE, GROUP_NAMES, GROUP_PREFIX, NAME, GroupRecord, group_key
from ssastore.core.mates import require_mates
from ssastore.core.orders import MOVE_PREFIX, REPLACE_PREFIX, WIDEN_PREFIX
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.errors import ConfigError
from ssastore.keyspace import LANES
from ssastore.limits import CONTROL_OPS_MAX

REWORKING_KEY = "reworking"

_PLANES_MIN = 3
"Of a group: the others rebuild the slice of a worker that gets it."


@dataclass(frozen=True, slots=True)
class Workers:
    """How far a node is on the way to its number of workers."""

    wanted: int
    left: int
    "Slices that do not vote at the worker of their lane yet."


async def order_workers(control: ControlStore, node: str, workers: int) -> None:
    """Let a node have another number of workers from its next start on, which it makes by itself.

    Raises:
        ConfigError: no such node, or it cannot be done now: nothing of it was then, or what was is harmless.
        Unavailable: the control store does not answer.
    """
    if not 1 <= workers <= LANES:
        raise ConfigError(f"a node has 1 to {LANES} workers, got {workers}")
    is_first = await _claim(control, node)
    try:
        await _check(control, node, workers)
    except ConfigError:
        # What an earlier call has begun goes on, and no other node may have its turn meanwhile.
        if is_first:
            await release(control, node)
        raise
    while await _name_some(control, node):
        pass
    await _change(control, node, workers)


async def worker_state(control: ControlStore, node: str) -> Workers:
    """How far it is. Raises ConfigError: no such node; Unavailable."""
    record = decode_node(await _node(control, node))
    environments, _ = await control.list(ENV_PREFIX)
    owner_of = {int(item.key.removeprefix(ENV_PREFIX), 16): item.value.decode() for item in environments}
    groups, _ = await control.list(GROUP_PREFIX)
    left = 0
    for group in map(decode_group, groups):
        at = f"{node}/{group.group % LANES % record.workers}"
        for part in group.parts:
            mine = [plane for plane in part.planes if plane.owner == node]
            left += sum(
                plane.state != ACTIVE or (plane.env != 0 and owner_of.get(plane.env) != at) for plane in mine
            )
    return Workers(record.workers, left)


async def release(control: ControlStore, node: str) -> None:
    """Let the next node have its turn."""
    item = await control.get(REWORKING_KEY)
    if item is not None and _decode(item.value) == node:
        await control.transact([Compare(item.key, item.revision)], [Write(item.key, None)])


async def _node(control: ControlStore, node: str) -> Item:
    item = await control.get(node_key(node))
    if item is None:
        raise ConfigError(f"the cluster has no node {node}")
    return item


async def _claim(control: ControlStore, node: str) -> bool:
    """One node at a time: each is without some of its slices for a while, and the others are needed.

    Whether it has its turn from now on; False: it had it.  A node that has left the cluster since has none.
    """
    await _node(control, node)
    wanted = Write(REWORKING_KEY, encode_fields({"node": node}))
    while True:
        item = await control.get(REWORKING_KEY)
        holder = None if item is None else _decode(item.value)
        if holder == node:
            return False
        unchanged = [Compare(REWORKING_KEY, 0 if item is None else item.revision)]
        if holder is not None:
            known = await control.get(node_key(holder))
            if known is not None:
                again = f"ssastore workers set {decode_node(known).workers} --node {holder}"
                raise ConfigError(
                    f"{holder} is being given another number of workers: one at a time. "
                    f"If the command for it was interrupted, give it again: {again}"
                )
            unchanged.append(Compare(node_key(holder), 0))
        if await control.transact(unchanged, [wanted]) is not None:
            return True


def _decode(value: bytes) -> str:
    node = decode_fields(value, "who is reworked", {"node"})["node"]
    require(is_match(NAME, node), "who is reworked is a node", node)
    return str(node)


async def _check(control: ControlStore, node: str, workers: int) -> None:
    cluster = await read_cluster(control)
    # Given again, it only goes on: what is not there yet is what is waited for.
    is_under_way = decode_node(await _node(control, node)).workers == workers
    for record in cluster.groups:
        where = f"group {GROUP_NAMES[record.group]}"
        if all(node not in view.owners for view in record.views()):
            continue
        if any(len(part.planes) < _PLANES_MIN for part in record.parts):
            raise ConfigError(
                f"{where} has fewer than {_PLANES_MIN} replicas: a slice that goes to another worker is "
                "rebuilt from the others (ssastore replicas set 3)"
            )
        is_whole = all(plane.state == ACTIVE for part in record.parts for plane in part.planes)
        if not is_whole and not is_under_way:
            raise ConfigError(f"{where} is being recovered or moved: wait until all of its slices vote")
    if not is_under_way:
        await require_mates(control, cluster, node)
    for prefix in (MOVE_PREFIX, REPLACE_PREFIX, WIDEN_PREFIX):
        items, _ = await control.list(f"{prefix}{node}/")
        if items:
            raise ConfigError(f"{node} is ordered to take slices over: wait for it, or abort it")


async def _name_some(control: ControlStore, node: str) -> bool:
    """Write environments into some records that name none; whether there may be more."""
    record = decode_node(await _node(control, node))
    first = {}
    for worker in range(record.workers):
        item = await control.get(f"{FIRST_PREFIX}{node}/{worker}")
        if item is not None:
            first[worker] = int(item.value, 16)
    items, _ = await control.list(GROUP_PREFIX)
    compares, writes = [], []
    for item in items:
        group = decode_group(item)
        worker = group.group % LANES % record.workers
        named = name_environment(group, node, first.get(worker, 0))
        if named is not group:
            compares.append(Compare(group_key(group.group), item.revision))
            writes.append(Write(group_key(group.group), named.encode()))
        if len(writes) == CONTROL_OPS_MAX:
            break
    if writes:
        await control.transact(compares, writes)
    return bool(writes)


def name_environment(group: GroupRecord, node: str, env: int) -> GroupRecord:
    """The record that says which environment answers for a node's slices; the same if it says so already.

    ``env``: the first one of the worker that has the lane; 0: it never had any. Nothing else changes by
    that: the record means the same as before.

    Raises ConfigError: that worker never ran.
    """
    changed = group
    for part in group.parts:
        view = changed.at(part.part)
        assert view is not None
        for plane, found in enumerate(view.planes):
            if found.owner == node and found.env == 0:
                if not env:
                    raise ConfigError(f"no worker of {node} ever ran for group {GROUP_NAMES[group.group]}")
                view = view.replaced(plane, replace(found, env=env), view.cfg)
                changed = view
    return changed


async def _change(control: ControlStore, node: str, workers: int) -> None:
    while True:
        item = await _node(control, node)
        known = decode_node(item)
        if known.workers == workers:
            return
        wanted: NodeRecord = replace(known, workers=workers)
        if await control.transact([Compare(item.key, item.revision)], [Write(item.key, wanted.encode())]):
            return


def unnamed(groups: Iterable[GroupRecord], node: str) -> int:
    """How many of a node's slices are of "the first environment of their worker"."""
    return sum(
        plane.owner == node and plane.env == 0
        for group in groups
        for part in group.parts
        for plane in part.planes
    )
