"""IPv6, AnyIP, lane steering, MTU and packet filter of this host."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from ssastore.doctor.findings import Finding, State, good
from ssastore.env import Route
from ssastore.errors import NamespaceRefused, SsaStoreError
from ssastore.lab.namespaces import in_new_namespaces
from ssastore.routes.netlink import NetlinkRoutes
from ssastore.transport.steering import attach_lane_steering

_MTU_MIN = 1280
"RFC 8200, section 5."
_CAP_NET_ADMIN = 12
"linux/capability.h."
_TRIED = "fd00:ffff:ffff:ffff"
"A prefix that exists in a name space of its own for a moment."
_TRIED_ADDRESS = f"{_TRIED}:1234:5678:9abc:def0"
_NFT_TIMEOUT_S = 5


def look_at_ipv6(proc: Path = Path("/proc")) -> Finding:
    """Whether the kernel has IPv6, and lets it."""
    settings = proc / "sys/net/ipv6/conf"
    if not settings.exists():
        return Finding(
            "ipv6",
            State.BAD,
            "the kernel has none",
            "IPv6",
            "remove ipv6.disable=1 from the kernel's command line",
        )
    off = [
        name
        for name in ("all", "default", "lo")
        if (settings / name / "disable_ipv6").read_text().strip() == "1"
    ]
    if off:
        mend = "; ".join(f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0" for name in off)
        return Finding("ipv6", State.BAD, f"switched off for {', '.join(off)}", "IPv6", mend)
    return good("ipv6", "on")


def look_at_anyip() -> Finding:
    """Accept connections to addresses that no interface has: tried in a name space of its own."""
    try:
        in_new_namespaces(_try_anyip)
    except NamespaceRefused as error:
        # Nodes need none: only the lab, and this look.
        return Finding("anyip", State.UNKNOWN, str(error), "a user name space, to try it in", "")
    except (OSError, SsaStoreError) as error:
        return Finding(
            "anyip", State.BAD, f"refused: {error}", "routes of the type `local` on lo", "use Debian's kernel"
        )
    return good("anyip", "a socket on [::] accepts a whole prefix")


def _try_anyip() -> None:
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
    NetlinkRoutes().add(Route(f"{_TRIED}::/64"))
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6))
        port = listener.getsockname()[1]
        client = stack.enter_context(socket.create_connection((_TRIED_ADDRESS, port), timeout=2))
        accepted, _ = listener.accept()
        stack.enter_context(accepted)
        if accepted.getsockname()[0] != client.getpeername()[0]:
            raise OSError("a connection was accepted at another address than the one that was dialled")


def look_at_privilege(proc: Path = Path("/proc")) -> Finding:
    """Whether a node that is started from here may set its routes."""
    lines = (proc / "self/status").read_text().splitlines()
    effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
    return judge_privilege(effective)


def judge_privilege(effective: int) -> Finding:
    """Of a mask of effective capabilities."""
    if effective >> _CAP_NET_ADMIN & 1:
        return good("privilege", "CAP_NET_ADMIN: a node sets its own routes")
    return Finding(
        "privilege",
        State.WARN,
        "no CAP_NET_ADMIN",
        "a node sets the routes of its slices itself (a lab and a client need nothing)",
        "systemd: AmbientCapabilities=CAP_NET_ADMIN; or manage_routes = false, and routes by others",
    )


def look_at_steering() -> Finding:
    """Whether the kernel hands connections to workers by lane."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket(socket.AF_INET6)) for _ in range(2))
        for listener in (first, second):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("::1", first.getsockname()[1] if listener is second else 0))
            listener.listen()
        try:
            attach_lane_steering(first, 2)
        except SsaStoreError as error:
            return Finding(
                "lane steering", State.BAD, str(error), "classic BPF on listening sockets", "workers = 1"
            )
    return good("lane steering", "the kernel takes the program")


def look_at_mtu() -> Finding:
    """The least MTU of the interfaces that are up."""
    with IPRoute() as ip:
        links = [
            (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU"))
            for link in ip.get_links()
            if link["flags"] & 1
        ]
    return judge_mtu(links)


def judge_mtu(links: Iterable[tuple[str, int]]) -> Finding:
    """Of (name, MTU in bytes) of the interfaces: below 1280 the kernel has no IPv6 there."""
    links = list(links)
    small = [(name, mtu) for name, mtu in links if mtu < _MTU_MIN]
    if small:
        found = ", ".join(f"{name} {mtu}" for name, mtu in small)
        mend = "; ".join(f"ip link set {name} mtu 1500" for name, _ in small)
        return Finding("mtu", State.BAD, found, f"{_MTU_MIN} bytes or more (RFC 8200)", mend)
    return good("mtu", ", ".join(f"{name} {mtu}" for name, mtu in links))


def look_at_packet_filter(port: int) -> Finding:
    """Whether nftables lets the native port in."""
    nft = shutil.which("nft")
    if nft is None:
        return good("packet filter", "no nft here")
    asked = subprocess.run(
        [nft, "-j", "list", "ruleset"], capture_output=True, timeout=_NFT_TIMEOUT_S, check=False
    )
    if asked.returncode:
        return Finding("packet filter", State.UNKNOWN, "nft lists its rules to root alone", "")
    return judge_packet_filter(json.loads(asked.stdout), port)


def judge_packet_filter(ruleset: dict[str, Any], port: int) -> Finding:
    """Of ``nft -j list ruleset``: chains on input that drop what no rule takes must take the port."""
    chains, rules = [], []
    for item in ruleset.get("nftables", []):
        if (chain := item.get("chain")) and chain.get("hook") == "input" and chain.get("policy") == "drop":
            chains.append(chain)
        elif rule := item.get("rule"):
            rules.append(rule)
    for chain in chains:
        where = chain["family"], chain["table"], chain["name"]
        if chain["family"] not in ("ip6", "inet"):
            continue
        own = [rule for rule in rules if (rule["family"], rule["table"], rule["chain"]) == where]
        if not any(_names(rule.get("expr"), port) for rule in own):
            name = " ".join(where)
            return Finding(
                "packet filter",
                State.WARN,
                f"{name} drops what no rule takes, and no rule names port {port}",
                f"TCP to port {port} from clients and nodes",
                f"nft insert rule {name} tcp dport {port} accept",
            )
    return good("packet filter", f"no chain drops port {port} for want of a rule")


def _names(expression: Any, port: int) -> bool:
    """Whether a port is named in it, alone or in a set or range."""
    if isinstance(expression, dict):
        if isinstance(ends := expression.get("range"), list) and all(isinstance(end, int) for end in ends):
            return bool(ends[0] <= port <= ends[-1])
        return any(_names(value, port) for value in expression.values())
    if isinstance(expression, list):
        return any(_names(value, port) for value in expression)
    return isinstance(expression, int) and expression == port
