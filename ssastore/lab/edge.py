"""The edge of a lab: its router's routes, and where the service is. Kept as the control store says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.cluster import ClusterRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.routekeeper import RouteKeeper, announced_to_router
from ssastore.env import ControlStore, spawn
from ssastore.lab.fabric import Fabric


async def keep_edge(
    control: ControlStore, fabric: Fabric | None, tell: Callable[[ClusterRecord], None]
) -> list[asyncio.Task[None]]:
    """Send every node's cover to its node address, in all service prefixes, from now on; the tasks for it.

    Args:
        fabric: of the lab, when it has a network.
        tell: called with the cluster's own record whenever that changes.
    """
    view = ClusterView(control)
    await view.load()
    jobs = [spawn("follow the cluster", view.run())]
    if fabric is not None:
        routes = fabric.router_routes()
        keeper = RouteKeeper(view, routes, announced_to_router())
        keeper.begin()
        jobs.append(spawn("keep the router's routes", keeper.run()))
        jobs[-1].add_done_callback(lambda _: routes.close())
    jobs.append(spawn("keep the prefix", _keep_prefix(view, fabric, tell)))
    return jobs


async def _keep_prefix(
    view: ClusterView, fabric: Fabric | None, tell: Callable[[ClusterRecord], None]
) -> None:
    while True:
        view.record_changed.clear()
        if fabric is not None:
            for service in view.record.networks:
                fabric.hold_back(service)
        tell(view.record)
        await view.record_changed.wait()
