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

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Self

from ssastore.lab.birdconfig import Peer
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import in_namespace
from ssastore.lab.topologies.places import Place, Places, changed, give_address

ROUTERS = ("s1", "s2")
"Hosts of the core, and names of the zones behind them."
THIRD = "third"
_BETWEEN_INDEX = 60
_SECOND, _SITE_LINK, _BETWEEN = 2, 0x10, 0x20
"What the number of the service /64 is changed by: for that of the second site, and for links."


class TwoSites(Places):
    """The core, with the nodes of the third place, and the two sites behind it."""

    zone = THIRD

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
        return (changed(self.service, _SECOND),)

    def _make_site(self, index: int, nodes: list[str]) -> Place:
        namespace = Fabric.namespace_fd(self, ROUTERS[index])
        infra = changed(self.service, _SITE_LINK + index)
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
        link = changed(self.service, _BETWEEN)
        for number, place in enumerate((first, second), 1):
            give_address(place.interfaces, _BETWEEN_INDEX, link[number], link)
        return link[1], link[2]
