"""Three tiers, and answers that do not go back the way that the questions came.

    client, gw --- edge, our own namespace --- f1, f2 --- nodes
        '-------------------- exit ---------------------------'

The edge knows whole planes, each /68 by way of one of two filters; a filter knows what each node has.  Nodes
send what they say by another router, the exit, which is on the clients' link too: direct server return.  Edge
and filters carry the questions alone, which are short where answers are long.  Among themselves nodes go by
the exit, which hears of their slices as the filters do.

When a filter is lost the other one has all planes: each announces those of the other with a longer path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Self

from ssastore.core.clusterview import ClusterView
from ssastore.lab.birdconfig import Peer, Speaker, edge_config, router_config, tier_config
from ssastore.lab.fabric import BRIDGE_INDEX, LAST_METRIC, Fabric
from ssastore.lab.interfaces import Interfaces
from ssastore.lab.namespaces import in_namespace
from ssastore.lab.topologies.bgp import Bgp
from ssastore.lab.topologies.network import Ground
from ssastore.lab.topologies.places import Place, Places, changed, give_address

FILTERS = ("f1", "f2")
EXIT = "exit"
_LINK = 0x10
"What the number of the service /64 is changed by for the nodes' link."
_LEG_INDEX = 60
"Of a filter's interface on the nodes' link."
_PORT_INDEX = 90
_FILTER_NUMBER = 2
"Of the first filter on the nodes' link; the exit has 1."


class NodeLink(Place):
    """The nodes, with the exit for a router."""

    filters: Sequence[Speaker] = ()

    @property
    def upstreams(self) -> list[Speaker]:
        return [self.router_speaker, *self.filters]

    def _router_text(self) -> str:
        return Bgp._router_text(self)


class Tiers(Places):
    """The edge."""

    _behind: NodeLink
    _legs: tuple[Interfaces, ...] = ()

    @classmethod
    def open(cls, service: IPv6Network, nodes: list[str], others: list[str], *, mtu: int) -> Self:
        edge = cls.build(service, [*FILTERS, EXIT, *others], mtu=mtu, forwarding=True)
        try:
            namespace = Fabric.namespace_fd(edge, EXIT)
            with in_namespace(namespace):
                behind = NodeLink.build(
                    service, nodes, mtu=mtu, forwarding=True, infra=changed(service, _LINK)
                )
            behind.router_name, behind.router_namespace, behind.area = EXIT, namespace, 1
            edge._behind, edge._places = behind, (behind,)
            edge._connect_filters()
        except BaseException:
            edge.close()
            raise
        return edge

    @property
    def daemons(self) -> list[str]:
        return [*super().daemons, *[f"bird-{name}" for name in FILTERS]]

    def add_host(self, name: str, address: IPv6Address | None = None) -> None:
        Fabric.add_host(self._behind, name, address)

    def add_node(self, name: str) -> None:
        super().add_node(name)
        self._rewrite_filters()

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        jobs = super().lead(view, nodes, ground)
        for index, name in enumerate(FILTERS):
            self._start_router(name, self._filter_text(index), Fabric.namespace_fd(self, name))
        return jobs

    def hold_back(self, service: IPv6Network) -> None:
        is_new = bool(self._services) and service not in self._services
        super().hold_back(service)
        if is_new:
            for leg in self._legs:
                leg.add_route("unreachable", service, RTA_PRIORITY=LAST_METRIC)
            self._rewrite_filters()

    def close(self) -> None:
        for leg in self._legs:
            leg.close()
        super().close()

    def _router_text(self) -> str:
        filters = [
            Peer(
                speaker,
                self.router,
                Fabric.address_of(self, speaker.name),
                imported="planes_in",
                exported="nothing_out",
            )
            for speaker in self._behind.filters
        ]
        return Bgp._router_text(self) + edge_config(self.router_speaker, filters, self._services)

    def _filter_text(self, index: int) -> str:
        speaker = self._behind.filters[index]
        edge = Peer(
            Speaker("edge", self.router, self.area),
            Fabric.address_of(self, speaker.name),
            self.router,
            imported="nothing_in",
            exported="planes_out",
        )
        nodes = [self._behind.speaker(name) for name in self._behind.led]
        return router_config(speaker, nodes, self._services) + tier_config(
            speaker, edge, self._services, index
        )

    def _rewrite_filters(self) -> None:
        for index, name in enumerate(FILTERS):
            self._rewrite(name, self._filter_text(index))

    def _connect_filters(self) -> None:
        """Give each filter a second leg, on the nodes' link."""
        link, behind = self._behind.infra, self._behind
        for index, name in enumerate(FILTERS):
            namespace = Fabric.namespace_fd(self, name)
            with in_namespace(namespace):
                leg = Interfaces()
            self._legs += (leg,)
            behind.interfaces.add_cable(
                _PORT_INDEX + index,
                name,
                mtu=self._mtu,
                far_index=_LEG_INDEX,
                far_name="eth1",
                far_namespace=namespace,
            )
            leg.switch(_LEG_INDEX, up=True)
            behind.interfaces.make_port(_PORT_INDEX + index, bridge=BRIDGE_INDEX)
            address = link[_FILTER_NUMBER + index]
            give_address(leg, _LEG_INDEX, address, link)
            leg.add_route("unreachable", self.service, RTA_PRIORITY=LAST_METRIC)
            behind.filters = (*behind.filters, Speaker(name, address, behind.area))
