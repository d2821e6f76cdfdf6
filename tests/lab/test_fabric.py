"""The network of a lab on the real kernel: AnyIP, next hops, moves, pulled cables."""

from __future__ import annotations

import errno
import fcntl
import random
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from ssastore.core.routeplan import diff
from ssastore.env import Route
from ssastore.errors import EnvironmentProblem
from ssastore.keyspace import address_of, slice_from_network
from ssastore.lab.fabric import BRIDGE_MAC, Fabric, infra_of
from ssastore.lab.namespaces import in_namespace, spawn_in
from ssastore.routes.netlink import NetlinkRoutes

pytestmark = pytest.mark.lab

Inside = Callable[..., Any]

SERVICE = IPv6Network("fd5a:0:0:1::/64")
LOWER, UPPER = (str(half) for half in IPv6Network("fd5a:0:0:1::/65").subnets())
"Covers of n1 and n2: a quarter of the service each, the rest has no owner."
UNOWNED = IPv6Address("fd5a:0:0:1:8000::5")
PORT = 7480

IPV6_RECVERR = 25
IPV6_AND_UDP_HEADER_BYTES = 48
SIOCGIFHWADDR = 0x8927
RESET_S = 2
"Long for a reset, short for a connection that hangs."
TCP_INFO_RETRANSMITS = 2
"Offset of the count of retransmissions without an answer in struct tcp_info."


class Net:
    """Two nodes that own a quarter each, and a client."""

    def __init__(self, *, forwarding: bool = False) -> None:
        self.fabric = Fabric.build(SERVICE, ["n1", "n2", "client"], forwarding=forwarding)
        self.router = self.fabric.router_routes()
        self.routes = {name: self.fabric.host_routes(name) for name in ("n1", "n2")}
        self.listeners = {name: self.listener(name) for name in ("n1", "n2")}
        for name, cover in (("n1", LOWER), ("n2", UPPER)):
            self.routes[name].add(Route(cover))
            self.router.add(self.via(cover, name))

    def via(self, prefix: str, host: str) -> Route:
        return Route(prefix, str(self.fabric.address_of(host)))

    def listener(self, host: str) -> socket.socket:
        with in_namespace(self.fabric.namespace_fd(host)):
            listener = socket.create_server(("::", PORT), family=socket.AF_INET6)
        listener.setblocking(False)
        return listener

    def dialler(self, host: str = "client") -> socket.socket:
        with in_namespace(self.fabric.namespace_fd(host)):
            client = socket.socket(socket.AF_INET6)
        client.settimeout(30)
        return client

    def reached(self, address: IPv6Address, *, source: str = "client") -> str:
        """The node that a new connection to ``address`` arrives at, under just that address."""
        with self.dialler(source) as client:
            client.connect((str(address), PORT))
            for name, listener in self.listeners.items():
                try:
                    served, _ = listener.accept()
                except BlockingIOError:
                    continue
                with served:
                    assert served.getsockname()[:2] == (str(address), PORT)
                    return name
        raise AssertionError(f"connected to {address}, and nobody accepted")


def hardware_address(interface: str) -> str:
    with socket.socket(socket.AF_INET6) as any_socket:
        answer = fcntl.ioctl(any_socket, SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))
    return answer[18:24].hex(":")


def addresses_in(prefix: str, count: int) -> list[IPv6Address]:
    """Addresses with random tails, the same in every run."""
    within = slice_from_network(SERVICE, IPv6Network(prefix))
    source = random.Random(prefix)
    return [address_of(SERVICE, within.first + source.randrange(within.size)) for _ in range(count)]


def test_address_reaches_its_owner_under_its_own_name(inside: Inside) -> None:
    def work() -> None:
        net = Net()
        for prefix, owner in ((LOWER, "n1"), (UPPER, "n2")):
            for address in addresses_in(prefix, 50):
                assert net.reached(address) == owner

    inside(work)


def test_node_and_router_dial_service_addresses_too(inside: Inside) -> None:
    def work() -> None:
        net = Net()
        assert [net.reached(a, source="n1") for a in addresses_in(LOWER, 3)] == ["n1"] * 3
        assert [net.reached(a, source="n1") for a in addresses_in(UPPER, 3)] == ["n2"] * 3
        socket.create_connection((str(addresses_in(UPPER, 1)[0]), PORT)).close()
        assert net.listeners["n2"].accept()

    inside(work)


def test_unowned_address_is_unreachable_at_once(inside: Inside) -> None:
    """Every time, and before the first SYN is sent again (which would be after a second)."""

    def work() -> None:
        net = Net()
        for _ in range(20):
            with net.dialler() as client:
                # The answer is back before connect() lets go of the socket, and is then only
                # noted; this option makes it wake the one who waits.
                client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
                with pytest.raises(OSError) as caught:
                    client.connect((str(UNOWNED), PORT))
                assert caught.value.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
                info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
                assert info[TCP_INFO_RETRANSMITS] == 0

    inside(work)


def test_node_takes_only_addresses_that_it_accepts(inside: Inside) -> None:
    """Its listener is bound to all addresses; the local routes say which those are."""

    def work() -> None:
        net = Net()
        net.routes["n1"].remove(Route(LOWER))
        with net.dialler() as client, pytest.raises(TimeoutError):
            client.settimeout(0.2)
            client.connect((str(addresses_in(LOWER, 1)[0]), PORT))

    inside(work)


def test_one_node_may_own_the_whole_service_prefix(inside: Inside) -> None:
    """The router's unreachable route for the same prefix gives way."""

    def work() -> None:
        net = Net()
        net.routes["n1"].add(Route(str(SERVICE)))
        net.router.add(net.via(str(SERVICE), "n1"))
        assert net.reached(UNOWNED) == "n1"
        net.router.remove(net.via(str(SERVICE), "n1"))
        with net.dialler() as client, pytest.raises(OSError, match=r"unreachable|No route"):
            client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            client.connect((str(UNOWNED), PORT))

    inside(work)


def test_new_connections_follow_a_moved_prefix(inside: Inside) -> None:
    """The client has dialled the former owner before: it must not have learned a way around the router."""

    def work() -> None:
        net = Net()
        moved = "fd5a:0:0:1:1a3f::/80"
        inner = addresses_in(moved, 20)
        assert {net.reached(address) for address in inner} == {"n1"}

        net.routes["n2"].add(Route(moved))
        wanted = {net.via(LOWER, "n1"), net.via(UPPER, "n2"), net.via(moved, "n2")}
        for change in diff(wanted, net.router.installed()):
            change.apply(net.router)
        assert net.router.installed() == wanted
        assert {net.reached(address) for address in inner} == {"n2"}
        assert {net.reached(address) for address in addresses_in(LOWER, 20)} == {"n1"}

    inside(work)


def test_former_owner_forwards_a_part_of_its_cover(inside: Inside) -> None:
    """Accept and forward stand in one table, so the moved part wins over the cover around it."""

    def work() -> None:
        net = Net(forwarding=True)
        moved = "fd5a:0:0:1:1a3f::/80"
        net.routes["n2"].add(Route(moved))
        net.routes["n1"].add(net.via(moved, "n2"))
        assert {net.reached(address) for address in addresses_in(moved, 5)} == {"n2"}
        assert {net.reached(address) for address in addresses_in(LOWER, 5)} == {"n1"}

    inside(work)


def test_established_connection_is_reset_at_once_when_its_slice_moves(inside: Inside) -> None:
    """As the former owner forwards, the new one answers for it: nobody waits for a time-out."""

    def work() -> None:
        net = Net(forwarding=True)
        moved = "fd5a:0:0:1:1a3f::/80"
        address = addresses_in(moved, 1)[0]
        client = net.dialler()
        client.connect((str(address), PORT))
        served, _ = net.listeners["n1"].accept()
        served.sendall(b"hello")
        assert client.recv(9) == b"hello"
        net.routes["n2"].add(Route(moved))
        net.routes["n1"].add(net.via(moved, "n2"))
        client.settimeout(RESET_S)
        client.sendall(b"still there?")
        with pytest.raises(ConnectionResetError):
            client.recv(9)
        assert net.reached(address) == "n2"

    inside(work)


def test_pulled_cable_silences_one_host_until_it_is_plugged_again(inside: Inside) -> None:
    def work() -> None:
        net = Net()
        silent, heard = addresses_in(LOWER, 1)[0], addresses_in(UPPER, 1)[0]
        assert net.reached(silent) == "n1"
        net.fabric.set_link("n1", up=False)
        with net.dialler() as client, pytest.raises(OSError):
            client.settimeout(0.2)
            client.connect((str(silent), PORT))
        assert net.reached(heard) == "n2"
        net.fabric.set_link("n1", up=True)
        assert net.reached(silent) == "n1"

    inside(work)


def test_host_added_later_is_on_the_link_and_disturbs_nobody(inside: Inside) -> None:
    def work() -> None:
        net = Net()
        with net.dialler() as client:
            client.connect((str(addresses_in(LOWER, 1)[0]), PORT))
            served, _ = net.listeners["n1"].accept()
            for number in range(3, 12):
                net.fabric.add_host(f"n{number}")
            client.sendall(b"still")
            served.settimeout(30)
            assert served.recv(5) == b"still"
        # Else the router's neighbours would have to find out that it has a new one.
        assert hardware_address("br0") == BRIDGE_MAC
        assert net.fabric.hosts[-1] == "n11"
        net.listeners["n11"] = net.listener("n11")
        assert net.reached(net.fabric.address_of("n11")) == "n11"

    inside(work)


def test_name_that_is_taken_or_too_long_is_refused(inside: Inside) -> None:
    def work() -> None:
        fabric = Fabric.build(SERVICE, ["n1"])
        for name in ("n1", "br0", "lo", "n" * 16):
            with pytest.raises(EnvironmentProblem, match=f"host {name}"):
                fabric.add_host(name)
        assert fabric.hosts == ["n1"]
        fabric.add_host("n2")

    inside(work)


@pytest.mark.parametrize("mtu", [1500, 9000, 65_000])
def test_mtu_holds_all_along_the_way(inside: Inside, mtu: int) -> None:
    """A datagram that fills a frame arrives whole, one byte more is not sent."""

    def work() -> None:
        fabric = Fabric.build(SERVICE, ["n1", "client"], mtu=mtu)
        ends = {}
        for host in fabric.hosts:
            with in_namespace(fabric.namespace_fd(host)):
                ends[host] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        ends["n1"].bind(("::", PORT))
        ends["n1"].settimeout(30)
        ends["client"].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        ends["client"].connect((str(fabric.address_of("n1")), PORT))
        payload = bytes(mtu - IPV6_AND_UDP_HEADER_BYTES)
        ends["client"].send(payload)
        assert ends["n1"].recv(1 << 16) == payload
        with pytest.raises(OSError, match="Message too long"):
            ends["client"].send(payload + b"1")

    inside(work)


def test_close_takes_down_hosts_without_processes(inside: Inside) -> None:
    """The kernel removes a namespace that nobody holds, a little later, and its cable with it."""

    def ports() -> set[str]:
        return {name for _, name in socket.if_nameindex()} - {"lo", "br0"}

    def work() -> None:
        fabric = Fabric.build(SERVICE, ["n1", "n2"])
        assert ports() == {"n1", "n2"}
        with spawn_in(fabric.namespace_fd("n2"), ["sleep", "200"]) as process:
            fabric.close()
            while ports() != {"n2"}:
                time.sleep(0.01)
            process.kill()
        while ports():
            time.sleep(0.01)

    inside(work)


def test_slice_routes_are_told_apart_from_the_labs_own(inside: Inside) -> None:
    def work() -> None:
        Fabric.build(SERVICE, ["n1"])
        for table in (254, 255):
            assert NetlinkRoutes(table).installed() == set()

    inside(work)


def test_link_has_the_prefix_next_to_the_service() -> None:
    assert infra_of(SERVICE) == IPv6Network("fd5a::/64")
    assert infra_of(IPv6Network("2001:db8:5a::/64")) == IPv6Network("2001:db8:5a:1::/64")
