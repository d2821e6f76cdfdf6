"""The network of a lab: hosts as network namespaces on one link, with a router.

    our own namespace is the router             a namespace for each host

      br0  <infra>::1/64 ----- port "n1" ------ eth0  <infra>::11/64
       |                 ----- port "client" -- eth0  <infra>::12/64
       |
      unreachable <service /64>,  <prefix> via <infra>::11, ...

All hosts share the link, so that the former owner of a slice can forward
straight to the new one, whatever the router still believes.

Nothing of it is seen from outside, and it is gone with the last process and the
last descriptor of its namespaces.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Self

from ssastore.errors import EnvironmentProblem
from ssastore.lab.interfaces import Interfaces
from ssastore.lab.namespaces import in_namespace, new_net_namespace
from ssastore.routes.netlink import LOOPBACK_INDEX, TABLE_LOCAL, TABLE_MAIN, NetlinkRoutes

MTU_DEFAULT = 1500

ETH0_INDEX = 2
BRIDGE_INDEX = 50
"Not where a host has its own cable: a host can be the router of others."
PORT_INDEX_FIRST = 100

ROUTER_NUMBER = 0x1
HOST_NUMBER_FIRST = 0x11
"Interface identifiers on the link; the first host is ``::11``, so that n1 and ::11 go together."

LINK_LOCAL = IPv6Network("fe80::/64")
"Everybody has its number here too: neighbour discovery asks from this address."

READY_TIMEOUT_S = 10
READY_POLL_S = 0.0005

BRIDGE_MAC = "02:00:00:00:00:01"
"Left alone, a bridge takes over the lowest one of its ports: a new host would change the router's."

LAST_METRIC = 1 << 30
"Of the unreachable service prefix: it must give way to a slice route for the whole of it."

_DEFAULT_ROUTE = IPv6Network("::/0")

_SETTINGS = {
    # An address that the kernel makes up comes later than the link, and without one a host can
    # ask nobody on behalf of others.
    "ipv6/conf/default/addr_gen_mode": "1",
    # "No route" is an answer that clients wait for. By default it is sent about once a second.
    "ipv6/icmp/ratelimit": "0",
}

_FORWARDING = {
    "ipv6/conf/all/forwarding": "1",
    # Packets of an established connection are given to its socket before the routes are asked, which then
    # send its answers elsewhere: after a slice has moved away the connection hangs. Without this short
    # cut its packets follow the routes to the new owner, who knows nothing of it and resets it at once.
    "ipv4/tcp_early_demux": "0",
}
"Of a host that sends on what still arrives for a slice that has moved away."


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace on the link."""

    address: IPv6Address
    namespace: int
    "Descriptor that keeps the namespace."
    port: int
    "Interface number of its port of the bridge."
    interfaces: Interfaces
    "Those of the namespace."

    def close(self) -> None:
        self.interfaces.close()
        os.close(self.namespace)


class Fabric:
    """Router and hosts; made by ``build`` in a process that is root of its namespaces."""

    def __init__(
        self, service: IPv6Network, *, mtu: int, forwarding: bool, infra: IPv6Network | None = None
    ) -> None:
        self.service = service
        self.infra = infra or infra_of(service)
        self.router = self.infra[ROUTER_NUMBER]
        self._mtu = mtu
        self._forwarding = forwarding
        self._hosts: dict[str, Host] = {}
        self._held_back: set[IPv6Network] = set()
        self._interfaces = Interfaces()

    @classmethod
    def build(
        cls,
        service: IPv6Network,
        hosts: Iterable[str],
        *,
        mtu: int = MTU_DEFAULT,
        forwarding: bool = False,
        infra: IPv6Network | None = None,
    ) -> Self:
        """Make the calling thread's network namespace the router, and connect new hosts to it.

        Args:
            service: the first service prefix, which names the link too; unreachable but for what
                ``router_routes`` adds.
            hosts: their names, at most 15 bytes each.
            mtu: of the link. 9000 and more saves CPU in benchmarks.
            forwarding: whether hosts forward packets, as the former owner of a slice does.
            infra: prefix of the link; by default the one that goes with the service prefix.

        Raises:
            EnvironmentProblem: the kernel refused a part of it.
        """
        fabric = cls(service, mtu=mtu, forwarding=forwarding, infra=infra)
        try:
            fabric._set_up_router()
            for host in hosts:
                fabric._connect(host)
            fabric._wait_until_ready(*fabric.hosts)
        except BaseException:
            fabric.close()
            raise
        return fabric

    def close(self) -> None:
        """Let go of the hosts. Each goes when the last process in it has ended."""
        self._interfaces.close()
        while self._hosts:
            self._hosts.popitem()[1].close()

    @property
    def hosts(self) -> list[str]:
        """Names, in the order in which they were added."""
        return list(self._hosts)

    def address_of(self, host: str) -> IPv6Address:
        """The host's own address on the link: next hop of its slices."""
        return self._hosts[host].address

    def namespace_fd(self, host: str) -> int:
        """Descriptor of the host's network namespace, valid until ``close``."""
        return self._hosts[host].namespace

    @property
    def interfaces(self) -> Interfaces:
        """Those of the router."""
        return self._interfaces

    def router_routes(self) -> NetlinkRoutes:
        """The router's routes. To be called in the router's namespace."""
        return NetlinkRoutes(TABLE_MAIN)

    def host_routes(self, host: str) -> NetlinkRoutes:
        """A host's routes, from wherever the calling thread is."""
        with in_namespace(self._hosts[host].namespace):
            return NetlinkRoutes(TABLE_LOCAL)

    def hold_back(self, service: IPv6Network) -> None:
        """Let a service prefix be unreachable for ever, but for what ``router_routes`` adds."""
        if service not in self._held_back:
            with _translated(f"router, {service}"):
                self._interfaces.add_route("unreachable", service, RTA_PRIORITY=LAST_METRIC)
            self._held_back.add(service)

    def add_host(self, name: str, address: IPv6Address | None = None) -> None:
        """Connect one more host, with the next free address or the one that it had before.

        Raises:
            EnvironmentProblem: name or address is taken, the name is too long, or the kernel refused.
        """
        self._connect(name, address)
        self._wait_until_ready(name)

    def set_link(self, host: str, *, up: bool) -> None:
        """Plug or pull the host's cable, at the router's end.

        Packets from and to a host that is pulled vanish, until neighbour discovery gives up
        after some seconds and the router answers "unreachable".
        """
        port = self._hosts[host].port
        with _translated(f"link of {host}"):
            self._interfaces.switch(port, up=up)
        if up:
            self._wait_until_ready(host)

    def _connect(self, name: str, address: IPv6Address | None = None) -> None:
        taken = [host.address for host in self._hosts.values()]
        if address is None:
            address = max(taken) + 1 if taken else self.infra[HOST_NUMBER_FIRST]
        if address in taken or address not in self.infra:
            raise EnvironmentProblem(
                f"host {name}: {address} is taken, or not on the lab's link {self.infra}"
            )
        namespace = new_net_namespace()
        with in_namespace(namespace):
            interfaces = Interfaces()
        host = Host(address, namespace, PORT_INDEX_FIRST + len(self._hosts), interfaces)
        try:
            with _translated(f"host {name}"):
                self._set_up_host(name, host)
        except BaseException:
            host.close()
            raise
        self._hosts[name] = host

    def _set_up_router(self) -> None:
        with _translated("router"):
            _write_settings({**_SETTINGS, "ipv6/conf/all/forwarding": "1"})
            self._interfaces.switch(LOOPBACK_INDEX, up=True)
            self._interfaces.add_bridge(BRIDGE_INDEX, "br0", mtu=self._mtu, mac=BRIDGE_MAC)
            self._add_addresses(self._interfaces, BRIDGE_INDEX, self.router)
            self.hold_back(self.service)

    def _set_up_host(self, name: str, host: Host) -> None:
        with in_namespace(host.namespace):
            # Before there is an interface, which takes the defaults when it is made.
            _write_settings({**_SETTINGS, **(_FORWARDING if self._forwarding else {})})
        self._interfaces.add_cable(
            host.port,
            name,
            mtu=self._mtu,
            far_index=ETH0_INDEX,
            far_name="eth0",
            far_namespace=host.namespace,
        )
        for index in (LOOPBACK_INDEX, ETH0_INDEX):
            host.interfaces.switch(index, up=True)
        # Not before both ends are up: a port that joins without carrier makes the bridge lose its
        # own for a moment, and then it seems ready too early.
        self._interfaces.make_port(host.port, bridge=BRIDGE_INDEX)
        self._add_addresses(host.interfaces, ETH0_INDEX, host.address)
        host.interfaces.add_route("unicast", _DEFAULT_ROUTE, RTA_GATEWAY=str(self.router))

    def _add_addresses(self, interfaces: Interfaces, index: int, address: IPv6Address) -> None:
        """Give an interface its address on the link and the link-local one with the same number."""
        interfaces.add_address(index, LINK_LOCAL[int(address) - int(self.infra.network_address)])
        interfaces.add_address(index, address)

    def _wait_until_ready(self, *names: str) -> None:
        """Until packets pass, so that nobody loses a second to a retry."""
        hosts = [self._hosts[name] for name in names]
        deadline = time.monotonic() + READY_TIMEOUT_S
        with _translated("links"):
            while hosts and not self._are_ready(hosts):
                if time.monotonic() > deadline:
                    raise EnvironmentProblem(f"the lab's links are not up after {READY_TIMEOUT_S} s")
                time.sleep(READY_POLL_S)

    def _are_ready(self, hosts: list[Host]) -> bool:
        ports = [host.port for host in hosts]
        return self._interfaces.are_ready([BRIDGE_INDEX, *ports]) and all(
            host.interfaces.are_ready([ETH0_INDEX]) for host in hosts
        )


def infra_of(service: IPv6Network) -> IPv6Network:
    """The prefix of the lab's link: the other half of the /63 around the service prefix."""
    return IPv6Network((int(service.network_address) ^ 1 << 64, 64))


def _write_settings(settings: dict[str, str]) -> None:
    """Set sysctls below net, in the calling thread's network namespace."""
    for name, value in settings.items():
        Path("/proc/sys/net", name).write_text(value)


@contextmanager
def _translated(part: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"building the lab's network, {part}: {error.strerror}") from error
