"""Control store, name in DNS, and routes of a node: as its settings have them."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv6Network

from ssastore.config import NodeConfig, open_control
from ssastore.core.cluster import Cluster
from ssastore.core.planner import owned_slices
from ssastore.doctor.findings import Finding, State, good
from ssastore.errors import SsaStoreError
from ssastore.keyspace import minimal_cover
from ssastore.naming.resolve import look_up, name_server_from
from ssastore.rebalance import read_cluster
from ssastore.routes.netlink import NetlinkRoutes

_SLOW_MS = 5_000.0
_TIMEOUT_S = 10
_SHOWN = 3
"Prefixes that a line names."


def look_at_service(config: NodeConfig) -> list[Finding]:
    """The control store of a node's settings; and if that answers, the node's record and its routes."""
    begun = time.monotonic()
    try:
        cluster = asyncio.run(_read(config))
    except (SsaStoreError, OSError, TimeoutError) as error:
        found = f"{config.control}: {error or type(error).__name__}"
        wanted = "an answer; data is served without it, and nothing moves or recovers"
        return [
            Finding("control store", State.BAD, found, wanted, "start it, or mend `control` in the settings")
        ]
    findings = [judge_control(config.control, (time.monotonic() - begun) * 1000)]
    record = next((node for node in cluster.nodes if node.name == config.name), None)
    if record is None:
        names = ", ".join(node.name for node in cluster.nodes)
        return [
            *findings,
            Finding(
                "node",
                State.BAD,
                f"the cluster has no {config.name}, only {names}",
                "its record",
                "plan --add",
            ),
        ]
    findings.append(good("node", f"{config.name} at {record.address}, {record.workers} workers"))
    if config.manage_routes and not config.simulated:
        wanted_prefixes = {
            str(piece.network(network))
            for network in cluster.record.networks
            for piece in minimal_cover(owned_slices(cluster.groups, config.name))
        }
        findings.append(judge_routes(wanted_prefixes, _installed()))
    return findings


async def _read(config: NodeConfig) -> Cluster:
    control = open_control(config.control, config.secrets_file)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await read_cluster(control)
    finally:
        await control.close()


def judge_control(control: str, took_ms: float) -> Finding:
    """Of the time in which all of a cluster's records were read."""
    found = f"{control} answers, {took_ms:.0f} ms for all records"
    if took_ms > _SLOW_MS:
        return Finding(
            "control store",
            State.WARN,
            found,
            "some seconds at most: moves wait for it",
            "an etcd that is nearer",
        )
    return good("control store", found)


def _installed() -> set[str]:
    routes = NetlinkRoutes()
    try:
        return {route.prefix for route in routes.installed() if route.via is None}
    finally:
        routes.close()


def judge_routes(wanted: set[str], installed: set[str]) -> Finding:
    """Of the prefixes that the node owns, and of its `local` routes here."""
    wanted_networks, networks = set(map(IPv6Network, wanted)), set(map(IPv6Network, installed))
    missing, extra = sorted(wanted_networks - networks), sorted(networks - wanted_networks)
    if missing:
        found = f"{len(missing)} of {len(wanted)} prefixes have no `local` route: {_some(missing)}"
        return Finding(
            "routes",
            State.WARN,
            found,
            "one for each, while the node runs",
            "start the node, or read its log",
        )
    if extra:
        found = f"{len(extra)} `local` routes for what the node does not own: {_some(extra)}"
        return Finding(
            "routes",
            State.WARN,
            found,
            "none; a slice that moves away keeps one for half a second",
            "restart the node",
        )
    return good("routes", f"{len(wanted)} prefixes, each with its `local` route")


def _some(networks: list[IPv6Network]) -> str:
    shown = ", ".join(map(str, networks[:_SHOWN]))
    return f"{shown}, ..." if len(networks) > _SHOWN else shown


def look_at_name(name: str, server: str) -> Finding:
    """What a client finds in DNS."""
    try:
        where = asyncio.run(look_up(name, server=name_server_from(server) if server else None))
    except SsaStoreError as error:
        mend = f"ssastore dns check {name}; ssastore dns zone writes the records"
        return Finding("name", State.BAD, str(error), "an APL record with the service's prefixes", mend)
    return good(
        "name", f"{name} is {', '.join(map(str, where.sites))} by {where.step.upper()}, for {where.ttl_s} s"
    )
