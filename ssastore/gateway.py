"""The S3 gateway: a client of the service that speaks HTTP on its other side. Keeps no state.

ssastore gateway --config FILE
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ssastore.admin import ClusterWatch, Counters, admin_server, status_routes
from ssastore.client import AsyncClient
from ssastore.config import (
    GatewayConfig,
    load,
    load_rules,
    load_s3_tls,
    load_tls,
    load_wrapping_keys,
    open_control,
    watch_secrets,
)
from ssastore.console.actions import Actions
from ssastore.console.desk import Console
from ssastore.console.door import Door
from ssastore.console.objects import Objects
from ssastore.console.token import TokenFile, make_token, token_path
from ssastore.core.clusterview import ClusterView
from ssastore.core.frontview import FrontView
from ssastore.core.locate import Location
from ssastore.env import ControlStore, Links, Randomness, spawn
from ssastore.errors import ConfigError
from ssastore.frontgate import FrontGate
from ssastore.observe import configure_logging
from ssastore.rebalance import read_cluster
from ssastore.rules.guard import Guard
from ssastore.s3.server import S3Server
from ssastore.s3.serving import Serving, listening
from ssastore.system import (
    SystemClock,
    SystemRandomness,
    keep_read,
    keep_watchdog,
    refuse_optimised,
    run,
    serve_for_long,
    tell_service_manager,
)
from ssastore.transport.connection import Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.ruled import ruled
from ssastore.transport.tcp import TcpLinks, simulated_links
from ssastore.transport.tls import Tls

log = logging.getLogger(__name__)


async def serve(config: GatewayConfig, s3_fd: int | None, admin_fd: int | None, is_simulated: bool) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    credentials = Credentials(b"", {})
    watches = [watch_secrets(config.secrets_file, credentials)]
    tls, s3_tls = load_tls(config), load_s3_tls(config)
    keep_read(watches + [found.watch for found in (tls, s3_tls) if found is not None])
    wrapping_keys = load_wrapping_keys(config.secrets_file)
    control = open_control(config.control, config.secrets_file)
    try:
        cluster, view = await read_cluster(control), ClusterView(control)
        await view.load()
        front = FrontView(control, view)
        await front.load()
        if config.name and front.strange:
            key, reason = next(iter(front.strange.items()))
            raise ConfigError(f"name: this version can have no part in the front plane: {key}: {reason}")
        following = [spawn("follow the cluster", view.run()), spawn("follow the front plane", front.run())]
        links: Links = simulated_links(cluster, tls) if is_simulated else TcpLinks(tls)
        rules = load_rules(config.rules, config.secrets_file)
        links = ruled(links, rules, SystemClock(), SystemRandomness())
        try:
            secrets = credentials, wrapping_keys
            outside = links, s3_tls, (s3_fd, admin_fd)
            await _serve(config, secrets, (view, front, control), outside, stopped)
        finally:
            for job in following:
                job.cancel()
        return 0
    finally:
        await control.close()


async def _serve(
    config: GatewayConfig,
    secrets: tuple[Credentials, list[tuple[str, bytes]]],
    known: tuple[ClusterView, FrontView, ControlStore],
    outside: tuple[Links, Tls | None, tuple[int | None, int | None]],
    stopped: asyncio.Event,
) -> None:
    """Serve S3 and status until ``stopped``. ``outside``: with sockets handed down for both, if any."""
    credentials, wrapping_keys = secrets
    links, s3_tls, (s3_fd, admin_fd) = outside
    loop, (view, front, control) = asyncio.get_running_loop(), known
    cluster = view.cluster()
    record = cluster.record
    identity = Identity("node", "gateway", cluster_id=record.cluster_id, credentials=credentials)
    client = AsyncClient(
        record.network,
        port=cluster.nodes[0].port,
        deadline_ms=config.deadline_ms,
        links=links,
        identity=identity,
    )
    client.objects.blobs.cache.limit_bytes = config.cache_bytes
    client.pool.replicas, client.pool.prefixes.serial = record.replicas, record.serial
    following = [spawn("follow the prefix", _follow_prefix(view, client))]
    clock, randomness = SystemClock(), SystemRandomness()
    s3 = S3Server(
        client.objects,
        region=config.region,
        access_keys=credentials.access_keys,
        clock=clock,
        randomness=randomness,
        wrapping_keys=wrapping_keys,
        domain=config.s3_domain,
    )
    watch = ClusterWatch(view, control, identity, links, randomness, front)
    guard = _guard(config, view)
    serving = Serving(
        s3, None if guard is None else lambda peer, own: guard.lets_in(peer, own, clock.now_ms()), s3_tls
    )
    if s3_fd is not None:
        await serving.begin(socket.socket(fileno=s3_fd))
    if s3_fd is None or config.name:
        await serving.begin(listening(config.s3_listen))
    gate: FrontGate | None = None
    if config.name:
        gate = await FrontGate.join(config, control, front, serving.connections.retire)
    admin: asyncio.Server | None = None
    if admin_fd is not None or config.admin_listen:
        admin_socket = listening(config.admin_listen) if admin_fd is None else socket.socket(fileno=admin_fd)
        counters = Counters(s3.counts, client.objects.blobs.cache, lambda: guard.verdicts if guard else {})
        door = Door(_tokens(config, randomness), clock, randomness)
        actions = Actions(control, watch.report, watch.start_scrub)
        objects = Objects(s3, door, config.region, randomness)
        full = partial(watch.report, is_full=True)
        given = view, front, full, _locate(client), s3.recent, clock, randomness
        console = Console(*given, door, actions, objects)
        following.append(spawn("look for the console", console.run()))
        tables = status_routes(watch, counters, door.reads, door.acts), console.routes()
        admin = await loop.create_server(admin_server(*tables), sock=admin_socket)
    await _until(stopped, {"service": record.service, **(s3_tls.shown() if s3_tls is not None else {})})
    if gate is not None:
        await gate.leave()
    for job in following:
        job.cancel()
    if admin is not None:
        admin.close()
    await serving.close()
    await watch.close()
    await client.close()
    log.info("gateway.stopped")


async def _until(stopped: asyncio.Event, shown: dict[str, Any]) -> None:
    """Say that all is ready, and when the end begins."""
    log.info("gateway.ready", extra=shown)
    watchdog = spawn("keep the watchdog", keep_watchdog())
    tell_service_manager("READY=1")
    await stopped.wait()
    tell_service_manager("STOPPING=1")
    watchdog.cancel()


def _guard(config: GatewayConfig, view: ClusterView) -> Guard | None:
    """Of a gateway of the front plane, where the service has a rule. Raises ConfigError."""
    rules = load_rules(config.rules, config.secrets_file)
    if rules is None or not config.name:
        return None
    return Guard(*rules, lambda: view.record.networks, is_monitor=config.rules_monitor, is_front=True)


def _tokens(config: GatewayConfig, randomness: Randomness) -> TokenFile:
    """The admin token, made if it is not there. Where it cannot be, nobody can act through the console."""
    path = token_path(config.secrets_file, config.admin_token_file)
    try:
        if not path.exists():
            make_token(path, randomness)
    except OSError as error:
        log.warning("admin_token.not_made", extra={"file": str(path), "reason": error.strerror})
    return TokenFile(path)


def _locate(client: AsyncClient) -> Callable[[str, str], Awaitable[Location]]:
    async def locate(bucket: str, key: str) -> Location:
        return await client.bucket(bucket).locate(key)

    return locate


async def _follow_prefix(view: ClusterView, client: AsyncClient) -> None:
    """Nodes tell it too, but only those that are connected: a gateway may have nothing to do for long."""
    while True:
        view.record_changed.clear()
        client.pool.renumber(view.record.serial, view.record.network)
        await view.record_changed.wait()


def main(
    config_path: str, s3_fd: int | None = None, admin_fd: int | None = None, *, is_simulated: bool
) -> int:
    """Run a gateway until it is told to stop; the exit code 0.

    Raises:
        ConfigError, TryLater: it could not be started.
    """
    refuse_optimised()
    config = load(config_path, GatewayConfig)
    configure_logging("gateway", log_format=config.log_format)
    serve_for_long()
    return run(serve(config, s3_fd, admin_fd, is_simulated))
