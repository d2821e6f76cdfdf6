"""What BIRD 2 is told on a node and on the router of a lab; bgp.md shows the same for machines. Pure.

The daemon of a host learns what ``announce = "kernel"`` of a node or gateway left in table main, by our
protocol numbers alone, and exports it by BGP; it takes nothing.  A router takes from each what can be its
own, a prefix inside of a service /64 from a whole plane down to the smallest slice, first hand, and gives it
to its kernel.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from ssastore.errors import ConfigError
from ssastore.keyspace import IID_BITS, PLANE_BITS, SLICE_DEPTH_MAX
from ssastore.routes.netlink import FRONT_ROUTE_PROTOCOL, ROUTE_PROTOCOL

AS_FIRST = 4_200_000_000
"Private use (RFC 6996), one for the router and one for each node, as in RFC 7938."

PREFIX_MIN = 128 - IID_BITS + PLANE_BITS
"A cover has no longer arc than a plane: the R slices of a group are at R nodes."
PREFIX_MAX = 128 - IID_BITS + SLICE_DEPTH_MAX
PREFIXES_MAX = 8192
"From one node, refused ones included, before its session ends: more than any plan makes."

HOLD_S, KEEPALIVE_S = 9, 3
BFD_MS = 100
"Between routers: five missed, and the other one is gone."

_PATHS = ("/usr/sbin/bird", "/usr/local/sbin/bird")
"Users have no sbin in their PATH."

_HEAD = """\
router id {identifier};
log stderr {{ info, warning, error, fatal, bug }};
protocol device {{ }}
"""

_NODE = """
protocol kernel announced {{
    learn;
    ipv6 {{
        import where krt_source ~ [ {protocols} ];
        export none;
    }};
}}
"""

_UPSTREAM = """\
protocol bgp upstream{number} {{
    local {own} as {own_as};
    neighbor {router} as {router_as};
    ttl security on;
    hold time {hold};
    keepalive time {keepalive};
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv6 {{
        import none;
        export where proto = "announced";
    }};
}}
"""

_ROUTER = """
filter from_node {{
    if bgp_path.len != 1 then reject;
    if net !~ [ {allowed} ] then reject;
    accept;
}}
protocol kernel {{
    ipv6 {{
        import none;
        export where source = RTS_BGP;
    }};
}}
template bgp node {{
    local {own} as {own_as};
    passive;
    error wait time 1, 30;
    ttl security on;
    hold time {hold};
    keepalive time {keepalive};
    ipv6 {{
        import keep filtered;
        import filter from_node;
        receive limit {most} action restart;
        export none;
    }};
}}
"""

_NEIGHBOUR = "protocol bgp '{name}' from node {{ neighbor {address} as {number}; }}\n"


_TIER = """
protocol static planes {{
    ipv6;
{routes}}}
filter planes_out {{
    if proto != "planes" then reject;
    if net !~ [ {own} ] then {{ bgp_path.prepend({number}); bgp_path.prepend({number}); }}
    accept;
}}
filter nothing_in {{ reject; }}
protocol bfd {{ interface "*" {{ interval {bfd} ms; multiplier 5; }}; }}
"""

_EDGE = """
filter planes_in {{ if net ~ [ {planes} ] then accept; reject; }}
filter nothing_out {{ reject; }}
protocol bfd {{ interface "*" {{ interval {bfd} ms; multiplier 5; }}; }}
"""

_WIDE = """
function is_link() {{ return net ~ [ {links} ]; }}
function is_slice() {{ return net ~ [ {allowed} ]; }}
filter inner_in {{ if is_link() || is_slice() then accept; reject; }}
filter inner_out {{ if is_link() then accept; if is_slice() && bgp_path.len = 1 then accept; reject; }}
filter whole_in {{ if is_link() || net ~ [ {services} ] then accept; reject; }}
protocol direct {{ ipv6; }}
protocol bfd {{ interface "*" {{ interval {bfd} ms; multiplier 5; }}; }}
"""

_WHOLE = """
protocol static whole {{
    ipv6;
{routes}}}
filter whole_out {{
    if source = RTS_DEVICE then accept;
    if proto != "whole" then reject;
    if net != {own} then {{ bgp_path.prepend({number}); bgp_path.prepend({number}); }}
    accept;
}}
"""

_PEER = """
protocol bgp '{name}' {{
    local {here} as {here_as};
    neighbor {there} as {there_as};
    ttl security on;
    bfd on;
    hold time {hold};
    keepalive time {keepalive};
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv6 {{ import filter {imported}; export filter {exported}; }};
}}
"""


@dataclass(frozen=True, slots=True)
class Speaker:
    """One end of a session. The low bits of its address, and its link, name its AS."""

    name: str
    address: IPv6Address
    area: int = 0
    "Number of its link, where there are several."

    @property
    def number(self) -> int:
        """Of its autonomous system."""
        return AS_FIRST + (self.area << 16) + (int(self.address) & 0xFFFF)

    @property
    def identifier(self) -> str:
        """Its router id, which looks like an IPv4 address and is none."""
        low = int(self.address) & 0xFFFF
        return f"10.{74 + self.area}.{low >> 8}.{low & 0xFF}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A session between routers. ``imported`` and ``exported`` are filters: inner ones, or of whole /64."""

    speaker: Speaker
    here: IPv6Address
    "Our own address on the link between."
    there: IPv6Address
    imported: str = "inner_in"
    exported: str = "inner_out"


def find_bird() -> str:
    """The path of BIRD. Raises ConfigError, with a remedy, when there is none."""
    for path in (shutil.which("bird"), *_PATHS):
        if path is not None and Path(path).exists():
            return path
    raise ConfigError("--topology: there is no bird here; Debian's package of it is bird2")


def wide_config(
    router: Speaker,
    peers: Iterable[Peer],
    *,
    services: Iterable[IPv6Network],
    links: Iterable[IPv6Network],
    own: IPv6Network | None = None,
) -> str:
    """What a router has besides when there are others: it tells them of its nodes, and believes theirs.

    Args:
        router: whose it is; ``router_config`` comes before.
        peers: the other routers.
        services: all /64 of the service.
        links: that nodes are on, anywhere.
        own: the prefix of the router's site; all are announced whole, this one with the shortest path.
    """
    services = list(services)
    text = _WIDE.format(
        links=_listed(links), allowed=_slices_of(services), services=_listed(services), bfd=BFD_MS
    )
    if own is not None:
        routes = "".join(f"    route {service} unreachable;\n" for service in services)
        text += _WHOLE.format(routes=routes, own=own, number=router.number)
    return text + _sessions(router, peers)


def tier_config(router: Speaker, edge: Peer, services: Iterable[IPv6Network], parity: int) -> str:
    """What a filter has besides ``router_config``: it announces whole planes to the edge.

    Every other plane, from ``parity`` on, is its own; the rest it would take over.
    """
    planes = [plane for service in services for plane in service.subnets(new_prefix=PREFIX_MIN)]
    text = _TIER.format(
        routes="".join(f"    route {plane} unreachable;\n" for plane in planes),
        own=_listed(planes[parity::2]),
        number=router.number,
        bfd=BFD_MS,
    )
    return text + _sessions(router, [edge])


def edge_config(router: Speaker, filters: Iterable[Peer], services: Iterable[IPv6Network]) -> str:
    """What the edge before such filters has besides ``router_config``: it takes whole planes alone."""
    planes = ", ".join(f"{service}{{{PREFIX_MIN},{PREFIX_MIN}}}" for service in services)
    return _EDGE.format(planes=planes, bfd=BFD_MS) + _sessions(router, filters)


def _sessions(router: Speaker, peers: Iterable[Peer]) -> str:
    return "".join(
        _PEER.format(
            name=peer.speaker.name,
            here=peer.here,
            here_as=router.number,
            there=peer.there,
            there_as=peer.speaker.number,
            hold=HOLD_S,
            keepalive=KEEPALIVE_S,
            imported=peer.imported,
            exported=peer.exported,
        )
        for peer in peers
    )


def _listed(networks: Iterable[IPv6Network]) -> str:
    return ", ".join(map(str, networks))


def _slices_of(services: Iterable[IPv6Network]) -> str:
    """What of the service prefixes can be a node's."""
    return ", ".join(f"{service}{{{PREFIX_MIN},{PREFIX_MAX}}}" for service in services)


def node_config(node: Speaker, *routers: Speaker) -> str:
    """For the host of a node or gateway, which announces what it accepts to its routers."""
    sessions = [
        _UPSTREAM.format(
            number=number or "",
            own=node.address,
            own_as=node.number,
            router=router.address,
            router_as=router.number,
            hold=HOLD_S,
            keepalive=KEEPALIVE_S,
        )
        for number, router in enumerate(routers)
    ]
    head = _HEAD.format(identifier=node.identifier) + _NODE.format(
        protocols=f"{ROUTE_PROTOCOL}, {FRONT_ROUTE_PROTOCOL}"
    )
    return head + "".join(sessions)


def router_config(router: Speaker, nodes: Iterable[Speaker], services: Iterable[IPv6Network]) -> str:
    """For the router of these nodes, with all prefixes that the service has at the moment."""
    head = _HEAD.format(identifier=router.identifier) + _ROUTER.format(
        allowed=_slices_of(services),
        own=router.address,
        own_as=router.number,
        hold=HOLD_S,
        keepalive=KEEPALIVE_S,
        most=PREFIXES_MAX,
    )
    neighbours = [
        _NEIGHBOUR.format(name=node.name, address=node.address, number=node.number) for node in nodes
    ]
    return head + "".join(neighbours)
