"""What a lab asks of its network, whatever the topology."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from typing import Self

from ssastore.core.clusterview import ClusterView
from ssastore.lab.fabric import Fabric
from ssastore.lab.processes import Processes


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the processes of a network run and leave their files."""

    processes: Processes
    config: Path
    "Directory for settings."
    sockets: Path
    "Directory with a path short enough for Unix sockets."


class Network(Fabric):
    """Hosts on a link with a router, and what leads addresses of slices to them."""

    rules = ""
    "The service record that everybody keeps; empty: none was given."

    @classmethod
    def open(cls, service: IPv6Network, nodes: list[str], others: list[str], *, mtu: int) -> Self:
        """Make the calling thread's network namespace the router, and connect new hosts.

        Args:
            service: the first service prefix.
            nodes: names of hosts with a node each.
            others: of gateway, clients and the like.
            mtu: of all links.

        Raises:
            EnvironmentProblem: the kernel refused a part of it.
        """
        return cls.build(service, [*nodes, *others], mtu=mtu, forwarding=True)

    @property
    def sites(self) -> tuple[IPv6Network, ...]:
        """Further service prefixes that the cluster is to answer at (``core.sites``)."""
        return ()

    def zone_of(self, node: str) -> str:
        """The fault domain that a node is in; empty: none of them is labelled."""
        return ""

    def settings_of(self, node: str) -> dict[str, object]:
        """What a node's file has beside the settings that every lab's has."""
        return {}

    def hear_gateways(self, names: list[str]) -> bool:
        """From ``lead`` on, gateways on these hosts announce their parts themselves; False: they do not."""
        return False

    def gateway_settings_of(self, host: str) -> dict[str, object]:
        """What the file of a gateway on a host has beside the settings that every lab's has."""
        return {}

    @property
    def daemons(self) -> list[str]:
        """Names of the processes that it has started; they are ended after the nodes."""
        return []

    @abstractmethod
    def lead(self, view: ClusterView, nodes: list[str], ground: Ground) -> list[asyncio.Task[None]]:
        """Send what nodes own to their addresses from now on, in all service prefixes; the tasks for it.

        To be called in the router's namespace, with a view that others keep up.
        """

    def add_node(self, name: str) -> None:
        """A host of those that were added since ``lead`` becomes a node: lead to it too."""
