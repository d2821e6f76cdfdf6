"""A network of several links, each with a router and nodes: what a lab sees of it as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network

from ssastore.core.clusterview import ClusterView
from ssastore.lab.birdconfig import Peer, wide_config
from ssastore.lab.fabric import LINK_LOCAL, Fabric
from ssastore.lab.interfaces import Interfaces
from ssastore.lab.topologies.bgp import Bgp
from ssastore.lab.topologies.network import Ground


class Place(Bgp):
    """A router with nodes on its link, and others to talk to."""

    zone = ""
    own: IPv6Network | None = None
    "The service prefix that leads here."
    links: Sequence[IPv6Network] = ()
    "That nodes are on, anywhere."
    peers: Sequence[Peer] = ()

    def hear_gateways(self, names: list[str]) -> bool:
        return False

    def gateway_settings_of(self, host: str) -> dict[str, object]:
        return {}

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        return super().lead(view, [name for name in nodes if name in self._hosts], ground)

    def _router_text(self) -> str:
        wide = wide_config(
            self.router_speaker, self.peers, services=self._services, links=self.links, own=self.own
        )
        return super()._router_text() + wide


class Places(Place):
    """A link of our own namespace, and further ones behind routers on it."""

    _places: tuple[Place, ...] = ()

    @property
    def hosts(self) -> list[str]:
        return [*super().hosts, *[host for place in self._places for host in place.hosts]]

    @property
    def daemons(self) -> list[str]:
        return [*super().daemons, *[daemon for place in self._places for daemon in place.daemons]]

    def address_of(self, host: str) -> IPv6Address:
        place = self._place_of(host)
        return super().address_of(host) if place is self else place.address_of(host)

    def namespace_fd(self, host: str) -> int:
        place = self._place_of(host)
        return super().namespace_fd(host) if place is self else place.namespace_fd(host)

    def zone_of(self, node: str) -> str:
        return self._place_of(node).zone

    def add_host(self, name: str, address: IPv6Address | None = None) -> None:
        """At the place that the address is of, or where there are fewest."""
        if address is not None:
            place = next((place for place in self._places if address in place.infra), self)
        else:
            place = min(self._places, key=lambda place: len(place.hosts))
        Fabric.add_host(place, name, address)

    def add_node(self, name: str) -> None:
        place = self._place_of(name)
        if place is self:
            super().add_node(name)
        else:
            place.add_node(name)

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        jobs = super().lead(view, nodes, ground)
        for place in self._places:
            jobs += place.lead(view, nodes, ground)
        return jobs

    def hold_back(self, service: IPv6Network) -> None:
        super().hold_back(service)
        for place in self._places:
            place.hold_back(service)

    def close(self) -> None:
        for place in self._places:
            place.close()
        super().close()

    def _place_of(self, host: str) -> Place:
        return next((place for place in self._places if host in place.hosts), self)


def changed(service: IPv6Network, number: int) -> IPv6Network:
    """Another /64, for a link or a site: the number of the service prefix changed in these bits."""
    return IPv6Network((int(service.network_address) ^ number << 64, 64))


def give_address(interfaces: Interfaces, index: int, address: IPv6Address, link: IPv6Network) -> None:
    """An address on a link, and the link-local one with the same number."""
    interfaces.add_address(index, LINK_LOCAL[int(address) - int(link.network_address)])
    interfaces.add_address(index, address)
