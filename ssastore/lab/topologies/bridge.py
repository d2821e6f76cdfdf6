"""One router, whose routes this process sets as the control store says: no routing protocol."""

from __future__ import annotations

import asyncio

from ssastore.core.clusterview import ClusterView
from ssastore.core.routekeeper import RouteKeeper, announced_to_router
from ssastore.env import spawn
from ssastore.lab.topologies.network import Ground, Network


class Bridge(Network):
    """Every node's cover goes to its node address."""

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        routes = self.router_routes()
        keeper = RouteKeeper(view, routes, announced_to_router())
        keeper.begin()
        job = spawn("keep the router's routes", keeper.run())
        job.add_done_callback(lambda _: routes.close())
        return [job]
