"""Whether the other replicas of a node are there, before it is let be without some of its own. Coroutines.

A node that rebuilds slices has no vote for them meanwhile, and takes them from a majority of all planes.
With three replicas both of the others are needed: where one of them is missing as well, nothing is agreed,
and nobody can rebuild what is wanted.  So whoever takes slices from a node that has them asks here before.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssastore.core.cluster import Cluster
from ssastore.core.groups import GROUP_NAMES, RECOVERING, GroupRecord
from ssastore.core.membership import read_presence
from ssastore.core.orders import RECOVER_PREFIX
from ssastore.env import ControlStore
from ssastore.errors import ConfigError


async def require_mates(control: ControlStore, cluster: Cluster, node: str) -> None:
    """Return when every slice of a node can be rebuilt from the others now.

    Raises:
        ConfigError: too few planes of a group are there without it.
        Unavailable: the control store does not answer.
    """
    alive = (await read_presence(control)).alive
    missing = {
        known.name: f"{known.name} has no lease: start it, or have its slices rebuilt elsewhere "
        f"(ssastore plan --lost {known.name})"
        for known in cluster.nodes
        if known.name not in alive
    }
    for item in (await control.list(RECOVER_PREFIX))[0]:
        name = item.key.split("/")[1]
        missing.setdefault(name, f"{name} is being rebuilt: one after the other")
    for record in cluster.groups:
        for view in record.views():
            _require(view, node, missing)


def _require(view: GroupRecord, node: str, missing: Mapping[str, str]) -> None:
    others = [plane for plane in view.planes if plane.owner != node]
    if len(others) == len(view.planes):
        return
    there = [plane for plane in others if plane.state != RECOVERING and plane.owner not in missing]
    needed = len(view.planes) // 2 + 1
    if len(there) >= needed:
        return
    where = (
        f"group {GROUP_NAMES[view.group]} needs {needed} other replicas for that, and {len(there)} are there"
    )
    why = next((missing[plane.owner] for plane in others if plane.owner in missing), "")
    raise ConfigError(f"{where}; {why}" if why else where)
