"""The router to nodes and gateways is a filter (docs/how-to/filter.md), with clients in front of it.

    client --- outside --- [XDP] our own namespace [queues] --- nodes, gateways

The filter judges at the port of ``outside``, and queues what its bridge sends to the service.  Needs root:
the kernel takes neither XDP nor tc programs from a user namespace, so the lab has none of its own.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import IPv6Address, IPv6Network
from typing import Self

from ssastore.core.clusterview import ClusterView
from ssastore.lab.fabric import Fabric
from ssastore.lab.launching import CLIENT_HOST
from ssastore.lab.namespaces import in_namespace
from ssastore.lab.topologies.bridge import Bridge
from ssastore.lab.topologies.network import Ground
from ssastore.lab.topologies.places import changed

OUTSIDE = "outside"
PROCESS = "filter"
_LINK = 0x30
"What the number of the service /64 is changed by for the outer link."
_MTU = 1500
"XDP in a driver wants a frame in one page."


class FilterRow(Bridge):
    """The filter's own namespace."""

    _outside: Fabric | None = None
    "The link of the clients, whose router is the host of that name."

    @classmethod
    def open(cls, service: IPv6Network, nodes: list[str], others: list[str], *, mtu: int) -> Self:
        """As of ``Network.open``, with frames of an Ethernet's size at most."""
        mtu = min(mtu, _MTU)
        behind = [name for name in others if name != CLIENT_HOST]
        inside = cls.build(service, [OUTSIDE, *nodes, *behind], mtu=mtu, forwarding=True)
        try:
            with in_namespace(inside.namespace_fd(OUTSIDE)):
                outside = Fabric.build(
                    service, [CLIENT_HOST], mtu=mtu, forwarding=True, infra=changed(service, _LINK)
                )
            inside._outside = outside
            gateway = str(inside.address_of(OUTSIDE))
            inside.interfaces.add_route("unicast", outside.infra, RTA_GATEWAY=gateway)
            inside._lead_from_outside(service)
        except BaseException:
            inside.close()
            raise
        return inside

    @property
    def hosts(self) -> list[str]:
        return [*super().hosts, *(self._outside.hosts if self._outside else ())]

    def address_of(self, host: str) -> IPv6Address:
        outside = self._outside_of(host)
        return outside.address_of(host) if outside else super().address_of(host)

    def namespace_fd(self, host: str) -> int:
        outside = self._outside_of(host)
        return outside.namespace_fd(host) if outside else super().namespace_fd(host)

    @property
    def daemons(self) -> list[str]:
        return [PROCESS]

    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        jobs = super().lead(view, nodes, ground)
        record = self.rules or f"v=SSA1; replicas={view.record.replicas}"
        # Port and bridge: the ends of the way through this router.
        command = [sys.executable, "-m", "ssastore", "filter", "run", OUTSIDE, "--inside", "br0"]
        command += ["--record", record]
        for service in view.record.networks:
            command += ["--service", str(service)]
        ground.processes.start(PROCESS, command, None)
        return jobs

    def hold_back(self, service: IPv6Network) -> None:
        is_new = service not in self._held_back
        super().hold_back(service)
        if is_new and self._outside:
            self._outside.hold_back(service)
            self._lead_from_outside(service)

    def close(self) -> None:
        if self._outside:
            self._outside.close()
        super().close()

    def _outside_of(self, host: str) -> Fabric | None:
        return self._outside if self._outside and host in self._outside.hosts else None

    def _lead_from_outside(self, service: IPv6Network) -> None:
        interfaces = self._hosts[OUTSIDE].interfaces
        interfaces.add_route("unicast", service, RTA_GATEWAY=str(self.router))
