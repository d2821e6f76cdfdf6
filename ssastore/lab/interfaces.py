"""Interfaces, addresses and routes of one network namespace of a lab, by netlink requests.

An interface gets its number from the caller, so nothing has to be asked for.
Methods raise OSError with the kernel's words.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import (
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    rt_proto,
    rt_type,
)
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ssastore.routes.netlink import TABLE_LOCAL, TABLE_MAIN
from ssastore.routes.rtnetlink import Rtnetlink


class Interfaces:
    """Those of the network namespace in which the calling thread is at construction."""

    def __init__(self) -> None:
        self._rtnetlink = Rtnetlink()
        self._addresses: set[str] = set()

    def close(self) -> None:
        """Close the socket; what was made stays."""
        self._rtnetlink.close()

    def add_bridge(self, index: int, name: str, *, mtu: int, mac: str) -> None:
        """Make a bridge, and switch it on."""
        self._create(
            RTM_NEWLINK,
            _link(index, IFLA_IFNAME=name, IFLA_MTU=mtu, IFLA_ADDRESS=mac, IFLA_LINKINFO=_kind("bridge")),
        )

    def add_cable(
        self, index: int, name: str, *, mtu: int, far_index: int, far_name: str, far_namespace: int
    ) -> None:
        """Make a pair of interfaces: this end is switched on, the other, far away, is not."""
        far = {
            "index": far_index,
            "attrs": [["IFLA_IFNAME", far_name], ["IFLA_MTU", mtu], ["IFLA_NET_NS_FD", far_namespace]],
        }
        pair = _kind("veth", {"attrs": [["VETH_INFO_PEER", far]]})
        self._create(RTM_NEWLINK, _link(index, IFLA_IFNAME=name, IFLA_MTU=mtu, IFLA_LINKINFO=pair))

    def make_port(self, index: int, *, bridge: int) -> None:
        """Make an interface a port of a bridge."""
        self._rtnetlink.request(RTM_NEWLINK, _link(index, IFLA_MASTER=bridge))

    def switch(self, index: int, *, up: bool) -> None:
        """Switch an interface on or off."""
        self._rtnetlink.request(RTM_NEWLINK, _link(index, up=up))

    def add_address(self, index: int, address: IPv6Address) -> None:
        """Give an interface an address and the /64 around it, without duplicate detection."""
        message = ifaddrmsg()
        message.update(family=socket.AF_INET6, prefixlen=64, index=index, flags=IFA_F_NODAD)
        message["attrs"] = [["IFA_ADDRESS", str(address)]]
        self._create(RTM_NEWADDR, message)
        self._addresses.add(str(address))

    def add_route(self, kind: str, network: IPv6Network, **attributes: Any) -> None:
        """Add a route of the lab itself, of a protocol that the routes of slices do not have."""
        message = rtmsg()
        message.update(
            family=socket.AF_INET6,
            dst_len=network.prefixlen,
            table=TABLE_MAIN,
            proto=rt_proto["static"],
            type=rt_type[kind],
        )
        attributes["RTA_DST"] = str(network.network_address)
        message["attrs"] = [list(attribute) for attribute in attributes.items()]
        self._create(RTM_NEWROUTE, message)

    def are_ready(self, indexes: Iterable[int]) -> bool:
        """Whether these interfaces carry frames and all addresses added are in force.

        A kernel thread sees to both, some 0.1 ms after the request was answered.
        """
        links = self._rtnetlink.dump(RTM_GETLINK, ifinfmsg())
        up = {link["index"] for link in links if link.get_attr("IFLA_OPERSTATE") == "UP"}
        return up.issuperset(indexes) and self._addresses <= self._addresses_in_force()

    def _addresses_in_force(self) -> set[str]:
        """Those with a route: until the kernel has made it, packets for the address are dropped."""
        pattern = rtmsg()
        pattern.update(family=socket.AF_INET6, table=TABLE_LOCAL, proto=rt_proto["kernel"])
        return {route.get_attr("RTA_DST") for route in self._rtnetlink.dump(RTM_GETROUTE, pattern)}

    def _create(self, kind: int, message: Any) -> None:
        self._rtnetlink.request(kind, message, NLM_F_CREATE | NLM_F_EXCL)


def _link(index: int, *, up: bool = True, **attributes: Any) -> Any:
    message = ifinfmsg()
    message.update(index=index, flags=IFF_UP if up else 0, change=IFF_UP)
    message["attrs"] = [list(attribute) for attribute in attributes.items()]
    return message


def _kind(name: str, data: Any = None) -> dict[str, Any]:
    return {"attrs": [["IFLA_INFO_KIND", name], *([["IFLA_INFO_DATA", data]] if data else [])]}
