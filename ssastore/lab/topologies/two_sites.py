"""One cluster at two sites and a third place: two /64, each of which leads into its site while that is there.

    client, gw, n3 ... -- core, our own namespace: the network between -+- s1 -- n1, n4 ...
                                                                        |   |  inter-site link
                                                                        +- s2 -- n2, n5 ...

The core hears of the two /64 alone, beside the nodes at the third place, which are its own.  Each site's
router announces both: its own as it is, the other's with a longer path, so that the whole /64 of a site that
is lost is taken over.  Inside, routers tell each other what their nodes announce: what clients ask of one
site and a node of the other one has goes over the inter-site link.

Three places, since a majority of three replicas has to outlive each of them: of two, one could not be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Self

from ssastore.core.clusterview import ClusterView
from ssastore.lab.birdconfig import Peer, wide_config
from ssastore.lab.fabric import LINK_LOCAL, Fabric
from ssastore.lab.namespaces import in_namespace
from ssastore.lab.topologies.bgp import Bgp
from ssastore.lab.topologies.network import Ground

ROUTERS = ("s1", "s2")
"Hosts of the core, and names of the zones behind them."
THIRD = "third"
_BETWEEN_INDEX = 60
_SECOND, _SITE_LINK, _BETWEEN = 2, 0x10, 0x20
"What the number of the service /64 is changed by: for that of the second site, and for links."


class Place(Bgp):
    """A router with nodes on its link, and others to talk to."""

    zone = THIRD
    own: IPv6Network | None = None
    "The service prefix that leads here."
    links: Sequence[IPv6Network] = ()
    "That nodes are on, anywhere."
    peers: Sequence[Peer] = ()

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        return super().lead(view, [name for name in nodes if name in self._hosts], ground)

    def _router_text(self) -> str:
        wide = wide_config(
            self.router_speaker, self.peers, services=self._services, links=self.links, own=self.own
        )
        return super()._router_text() + wide


class TwoSites(Place):
    """The core, with the nodes of the third place."""

    _places: tuple[Place, ...] = ()
    "The two sites."

    @classmethod
    def open(cls, service: IPv6Network, nodes: list[str], others: list[str], *, mtu: int) -> Self:
        count = len(ROUTERS) + 1
        third = nodes[count - 1 :: count]
        core = cls.build(service, [*ROUTERS, *third, *others], mtu=mtu, forwarding=True)
        try:
            for index in range(len(ROUTERS)):
                core._places += (core._make_site(index, nodes[index::count]),)
            core._acquaint()
        except BaseException:
            core.close()
            raise
        return core

    @property
    def sites(self) -> tuple[IPv6Network, ...]:
        return (_changed(self.service, _SECOND),)

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

    def _make_site(self, index: int, nodes: list[str]) -> Place:
        namespace = Fabric.namespace_fd(self, ROUTERS[index])
        infra = _changed(self.service, _SITE_LINK + index)
        with in_namespace(namespace):
            place = Place.build(self.service, nodes, mtu=self._mtu, forwarding=True, infra=infra)
        place.router_name = place.zone = ROUTERS[index]
        place.router_namespace, place.area = namespace, index + 1
        place.own = (self.service, *self.sites)[index]
        return place

    def _acquaint(self) -> None:
        """Connect the sites with each other, and tell all routers of their peers."""
        first, second = self._places
        between = self._lay_cable(first, second)
        links = (self.infra, first.infra, second.infra)
        # BIRD has a keyword "router".
        core, here = (
            replace(self.router_speaker, name="core"),
            [Fabric.address_of(self, router) for router in ROUTERS],
        )
        self.peers = [
            Peer(place.router_speaker, self.router, at, imported="whole_in")
            for place, at in zip(self._places, here, strict=True)
        ]
        for place, other, at, ends in (
            (first, second, here[0], between),
            (second, first, here[1], between[::-1]),
        ):
            place.peers = [
                Peer(core, at, self.router, exported="whole_out"),
                Peer(other.router_speaker, *ends),
            ]
        for place in (self, *self._places):
            place.links = links

    def _lay_cable(self, first: Place, second: Place) -> tuple[IPv6Address, IPv6Address]:
        """The inter-site link: an interface in each router, named after the other; the addresses of both."""
        assert second.router_namespace is not None
        first.interfaces.add_cable(
            _BETWEEN_INDEX,
            second.router_name,
            mtu=self._mtu,
            far_index=_BETWEEN_INDEX,
            far_name=first.router_name,
            far_namespace=second.router_namespace,
        )
        second.interfaces.switch(_BETWEEN_INDEX, up=True)
        link = _changed(self.service, _BETWEEN)
        for number, place in enumerate((first, second), 1):
            place.interfaces.add_address(_BETWEEN_INDEX, LINK_LOCAL[number])
            place.interfaces.add_address(_BETWEEN_INDEX, link[number])
        return link[1], link[2]


def _changed(service: IPv6Network, number: int) -> IPv6Network:
    return IPv6Network((int(service.network_address) ^ number << 64, 64))
