"""One router that hears of the nodes' slices by BGP alone: BIRD 2 runs on it and on each node.

node: local routes + announced routes --learn--> bird ==BGP==> bird --> kernel routes of the router

bird-router, bird-n1, ...      processes of the lab, with log/bird-n1.log and config/bird-n1.conf
n1.bird                        the control socket: birdc -s DIR/n1.bird
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import ClassVar

from ssastore.core.clusterview import ClusterView
from ssastore.lab.birdconfig import Speaker, find_bird, node_config, router_config
from ssastore.lab.topologies.network import Ground, Network

ROUTER = "router"


class Bgp(Network):
    """Nodes announce, the router believes what its filters let through."""

    settings: ClassVar[Mapping[str, str]] = {"announce": "kernel"}

    _ground: Ground
    _services: tuple[IPv6Network, ...] = ()
    _nodes: tuple[str, ...] = ()

    @property
    def daemons(self) -> list[str]:
        return [f"bird-{name}" for name in (*self._nodes, ROUTER)]

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        self._ground = ground
        self._services = view.record.networks
        self._nodes = tuple(nodes)
        self._write(ROUTER, self._router_text())
        self._start(ROUTER, None)
        for name in nodes:
            self._start_node(name)
        return []

    def add_node(self, name: str) -> None:
        if name in self._nodes:  # It was one before, and its daemon is running still.
            return
        self._nodes = (*self._nodes, name)
        self._write(ROUTER, self._router_text())
        self._ground.processes.reload(f"bird-{ROUTER}")
        self._start_node(name)

    def hold_back(self, service: IPv6Network) -> None:
        super().hold_back(service)
        if self._services and service not in self._services:
            self._services = (*self._services, service)
            self._write(ROUTER, self._router_text())
            self._ground.processes.reload(f"bird-{ROUTER}")

    def _router_text(self) -> str:
        router = Speaker(ROUTER, self.router)
        return router_config(router, [self._speaker(name) for name in self._nodes], self._services)

    def _speaker(self, name: str) -> Speaker:
        return Speaker(name, self.address_of(name))

    def _start_node(self, name: str) -> None:
        self._write(name, node_config(self._speaker(name), Speaker(ROUTER, self.router)))
        self._start(name, self.namespace_fd(name))

    def _write(self, name: str, text: str) -> None:
        (self._ground.config / f"bird-{name}.conf").write_text(text)

    def _start(self, name: str, namespace: int | None) -> None:
        config, control = self._ground.config / f"bird-{name}.conf", self._ground.sockets / f"{name}.bird"
        argv = [find_bird(), "-f", "-c", str(config), "-s", str(control)]
        self._ground.processes.start(f"bird-{name}", argv, namespace)
