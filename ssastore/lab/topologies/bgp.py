"""One router that hears of slices by BGP alone: BIRD 2 runs on it, and on each node and gateway or not.

    bgp            local routes + announced routes --learn--> bird ==BGP==> bird --> routes of the router
    bgp-built-in   local routes ============== the node itself speaks BGP ==> bird --> routes of the router

The daemons are processes of the lab: log/bird-n1.log, config/bird-n1.conf, and a control socket, so that
``birdc -s DIR/n1.bird`` talks to it.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network

from ssastore.core.clusterview import ClusterView
from ssastore.lab.birdconfig import Speaker, find_bird, node_config, router_config
from ssastore.lab.topologies.network import Ground, Network

ROUTER = "router"


class Bgp(Network):
    """Nodes announce, the router believes what its filters let through."""

    router_name = ROUTER
    router_namespace: int | None = None
    "Of the router, where it is not our own."
    area = 0
    "Number of the link, where there are several."

    _ground: Ground
    _services: tuple[IPv6Network, ...] = ()
    _nodes: tuple[str, ...] = ()
    _gateways: tuple[str, ...] = ()

    def settings_of(self, node: str) -> dict[str, object]:
        return {"announce": "kernel"}

    def hear_gateways(self, names: list[str]) -> bool:
        self._gateways = tuple(names)
        return True

    def gateway_settings_of(self, host: str) -> dict[str, object]:
        return self.settings_of(host)

    @property
    def daemons(self) -> list[str]:
        return [f"bird-{name}" for name in (*self._nodes, *self._gateways, self.router_name)]

    @property
    def router_speaker(self) -> Speaker:
        return Speaker(self.router_name, self.router, self.area)

    @property
    def led(self) -> tuple[str, ...]:
        """Nodes that the router hears."""
        return self._nodes

    @property
    def upstreams(self) -> list[Speaker]:
        """Whom nodes announce to."""
        return [self.router_speaker]

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        self._ground = ground
        self._services = view.record.networks
        self._nodes = tuple(nodes)
        self._start_router(self.router_name, self._router_text(), self.router_namespace)
        for name in (*nodes, *self._gateways):
            self._start_node(name)
        return []

    def add_node(self, name: str) -> None:
        if name in self._nodes:  # It was one before, and its daemon is running still.
            return
        self._nodes = (*self._nodes, name)
        self._rewrite_router()
        self._start_node(name)

    def hold_back(self, service: IPv6Network) -> None:
        super().hold_back(service)
        if self._services and service not in self._services:
            self._services = (*self._services, service)
            self._rewrite_router()

    def _start_router(self, name: str, text: str, namespace: int | None) -> None:
        self._write(name, text)
        self._start(name, namespace)

    def _rewrite_router(self) -> None:
        self._rewrite(self.router_name, self._router_text())

    def _rewrite(self, name: str, text: str) -> None:
        self._write(name, text)
        self._ground.processes.reload(f"bird-{name}")

    def _router_text(self) -> str:
        return router_config(
            self.router_speaker,
            [self.speaker(name) for name in (*self._nodes, *self._gateways)],
            self._services,
        )

    def speaker(self, name: str) -> Speaker:
        # BIRD has a keyword "gw".
        return Speaker("gw1" if name == "gw" else name, self.address_of(name), self.area)

    def _start_node(self, name: str) -> None:
        self._write(name, node_config(self.speaker(name), *self.upstreams))
        self._start(name, self.namespace_fd(name))

    def _write(self, name: str, text: str) -> None:
        (self._ground.config / f"bird-{name}.conf").write_text(text)

    def _start(self, name: str, namespace: int | None) -> None:
        config, control = self._ground.config / f"bird-{name}.conf", self._ground.sockets / f"{name}.bird"
        argv = [find_bird(), "-f", "-c", str(config), "-s", str(control)]
        self._ground.processes.start(f"bird-{name}", argv, namespace)


class BgpBuiltIn(Bgp):
    """Nodes have no routing daemon: each announces by itself."""

    def settings_of(self, node: str) -> dict[str, object]:
        router = self.router_speaker
        neighbours = f"{router.address} as {router.number}"
        return {"announce": "bgp", "bgp_as": self.speaker(node).number, "bgp_neighbours": neighbours}

    @property
    def daemons(self) -> list[str]:
        return [f"bird-{self.router_name}"]

    def _start_node(self, name: str) -> None:
        """Nothing: the node does it, or the gateway."""
