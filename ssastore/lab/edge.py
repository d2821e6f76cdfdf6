"""The edge of a lab: what leads to its nodes, and where the service is. Kept as the control store says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.cluster import ClusterRecord
from ssastore.core.clusterview import ClusterView
from ssastore.env import ControlStore, spawn
from ssastore.lab.topologies.network import Ground, Network


async def keep_edge(
    control: ControlStore,
    network: Network | None,
    nodes: list[str],
    ground: Ground,
    tell: Callable[[ClusterRecord], None],
) -> list[asyncio.Task[None]]:
    """Send every node's cover to its node address, in all service prefixes, from now on; the tasks for it.

    Args:
        network: of the lab, when it has one.
        nodes: that there are now.
        ground: for what the network starts.
        tell: called with the cluster's own record whenever that changes.
    """
    view = ClusterView(control)
    await view.load()
    jobs = [spawn("follow the cluster", view.run())]
    if network is not None:
        jobs += network.lead(view, nodes, ground)
    jobs.append(spawn("keep the prefix", _keep_prefix(view, network, tell)))
    return jobs


async def _keep_prefix(
    view: ClusterView, network: Network | None, tell: Callable[[ClusterRecord], None]
) -> None:
    while True:
        view.record_changed.clear()
        if network is not None:
            for service in view.record.networks:
                network.hold_back(service)
        tell(view.record)
        await view.record_changed.wait()
