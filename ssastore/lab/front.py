"""What leads to the gateways of a lab as the control store says: its router's routes, and a name in DNS.

NAME.test    APL and TXT for clients that know of prefixes, AAAA with addresses of the front plane
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView, announced_gates
from ssastore.core.routekeeper import RouteKeeper
from ssastore.env import ControlStore, spawn
from ssastore.naming.answer import Whereabouts
from ssastore.naming.responder import Responder, Zone, zone_of
from ssastore.routes.netlink import FRONT_ROUTE_PROTOCOL, TABLE_MAIN, NetlinkRoutes
from ssastore.rules.record import ServiceRecord

_ADDRESSES = 4
"Of one AAAA answer: a client tries the next one when a gateway has just died."
_TTL_S = 10
_DNS_PORT = 53


def domain_of(lab: str) -> str:
    """The name of a lab's service in its own DNS."""
    return f"{lab.lower()}.test"


async def keep_name(
    control: ControlStore, domain: str, record: ServiceRecord, address: IPv6Address
) -> list[asyncio.Task[None]]:
    """Answer for the name from now on, at an address of the router; the tasks for it.

    To be called in the router's namespace.
    """
    cluster = ClusterView(control)
    await cluster.load()
    responder = Responder(_zone(cluster, domain, record))
    await responder.start(str(address), _DNS_PORT)
    return [
        spawn("follow the cluster for its name", cluster.run()),
        spawn("answer for the service's name", _answer(responder, cluster, domain, record)),
    ]


async def keep_front(control: ControlStore) -> list[asyncio.Task[None]]:
    """Send every gateway its part of the front plane from now on; the tasks for it.

    To be called in the router's namespace, where no gateway announces by itself.
    """
    cluster = ClusterView(control)
    await cluster.load()
    view = FrontView(control, cluster)
    await view.load()
    routes = NetlinkRoutes(TABLE_MAIN, protocol=FRONT_ROUTE_PROTOCOL)
    keeper = RouteKeeper(view, routes, announced_gates(view))
    keeper.begin()
    keeping = spawn("keep the router's routes to gateways", keeper.run())
    keeping.add_done_callback(lambda _: routes.close())
    return [
        keeping,
        spawn("follow the front plane", view.run()),
        spawn("follow the cluster for gateways", cluster.run()),
    ]


def _zone(cluster: ClusterView, domain: str, record: ServiceRecord) -> Zone:
    found = cluster.record
    told = replace(record, replicas=found.replicas)
    sites = (found.network, *map(IPv6Network, found.sites))
    return zone_of(domain, Whereabouts(sites, record=told, ttl_s=_TTL_S), front=_ADDRESSES)


async def _answer(responder: Responder, cluster: ClusterView, domain: str, record: ServiceRecord) -> None:
    try:
        while True:
            cluster.record_changed.clear()
            responder.zone = _zone(cluster, domain, record)
            await cluster.record_changed.wait()
    finally:
        await responder.close()
