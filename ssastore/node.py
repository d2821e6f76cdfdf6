"""A storage node: the supervisor of W workers.

    ssastore node --config FILE

It accepts the addresses of what the node owns (AnyIP), opens the W sockets, and
keeps W workers running.  It listens when all of them could answer: until then a
client is refused and asks another plane at once, where in a backlog it would wait
for a process to begin.  The kernel steers a connection by the lane digit of its
destination to the socket with that index in the order of listening, so the sockets
are held here for the node's whole life: a worker that dies comes back to its own
socket, and what waits in its backlog is answered then.

It is a candidate for the cluster's coordinator as well.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path

from ssastore.config import (
    NodeConfig,
    load,
    load_rules,
    load_tls,
    open_control,
    watch_secrets,
    write_private,
)
from ssastore.coordination import guardian_of, historian_of
from ssastore.core.cluster import Cluster, NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.forwarding import Forwarding
from ssastore.core.reworking import unnamed, worker_state
from ssastore.core.routekeeper import RouteKeeper, accepted_by
from ssastore.env import ControlStore, spawn
from ssastore.errors import ConfigError, DataDirError, SsaStoreError
from ssastore.limits import DRAIN_MS, GOAWAY_MS, LISTEN_BACKLOG
from ssastore.observe import configure_logging
from ssastore.probing import Prober
from ssastore.rebalance import read_cluster
from ssastore.routes.announced import AnnouncedRoutes, announcer
from ssastore.routes.bgpspeaker import BgpRoutes
from ssastore.routes.netlink import NetlinkRoutes
from ssastore.routes.seen import keep_note, note_path
from ssastore.system import (
    SystemClock,
    SystemRandomness,
    forwards_packets,
    keep_read,
    keep_watchdog,
    refuse_optimised,
    run,
    tell_service_manager,
)
from ssastore.traces import CopyKeeper
from ssastore.transport.connection import Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.ruled import ruled
from ssastore.transport.steering import attach_lane_steering
from ssastore.transport.tcp import TcpLinks

log = logging.getLogger(__name__)

_RESTART_BASE_S = 0.1
_RESTART_CAP_S = 5.0
_STEADY_S = 10.0
_STOP_S = 15.0
_COUNT_EVERY_S = 1.0
_OPEN_LATE_S = 5.0
_AGAIN = -1
"In the place of an exit code."

EXIT_CONFIG = 2
EXIT_DATA_DIR = 3


def open_listeners(port: int, workers: int) -> list[socket.socket]:
    """W sockets on one port of all addresses. They do not listen: the kernel refuses who comes.

    AnyIP needs the wildcard address: binding a single address of the range fails.

    Raises:
        ConfigError: the port is taken.
    """
    listeners: list[socket.socket] = []
    try:
        for _ in range(workers):
            listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("::", port))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigError(f"port {port}: {error.strerror}") from None
    return listeners


def begin_listening(listeners: list[socket.socket]) -> None:
    """Let clients in, each at the worker of its lane: the kernel counts sockets in the order of this.

    Raises:
        OSError: somebody has come to listen on the port.
    """
    for listener in listeners:
        listener.listen(LISTEN_BACKLOG)
    if len(listeners) > 1:
        attach_lane_steering(listeners[0], len(listeners))


def claim_data_dir(path: str, cluster_id: str, name: str, workers: int, *, are_named: bool = False) -> None:
    """Check that a directory is this node's, or make it so.

    ``are_named``: the groups' records say which environments answer for the node's slices, so that it may
    have another number of workers than before (``core.reworking``).

    Raises:
        DataDirError: not a directory, not writable, or of another cluster, node or worker count.
    """
    identity = {"cluster_id": cluster_id, "node": name, "workers": workers}
    directory = Path(path)
    marker = directory / "node.json"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not marker.exists():
            if any(directory.glob("worker-*")):
                raise DataDirError(f"{path} holds a node's data and no {marker.name}: whose is it?")
            write_private(marker, json.dumps(identity))
            return
        found = json.loads(marker.read_bytes())
    except OSError as error:
        raise DataDirError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DataDirError(f"{marker} is not JSON") from None
    differs = False
    for what, mine in identity.items():
        theirs = found.get(what) if isinstance(found, dict) else None
        if theirs == mine:
            continue
        differs = True
        if what != "workers" or not are_named:
            raise DataDirError(f"{path} belongs to another {what}: {theirs}, not {mine}")
    if differs:
        write_private(marker, json.dumps(identity))


def forget_workers(path: str, workers: int) -> list[str]:
    """Remove the data of workers that a node has no more; their names. Others have all that was in it."""
    gone = [
        found
        for found in sorted(Path(path).glob("worker-*"))
        if found.name.removeprefix("worker-").isdecimal()
        and int(found.name.removeprefix("worker-")) >= workers
    ]
    for found in gone:
        shutil.rmtree(found)
    return [found.name for found in gone]


def check_record(config: NodeConfig, cluster: Cluster) -> NodeRecord:
    """What the cluster knows of the node; how many workers it has is said there, and nowhere else.

    Raises ConfigError when it knows no such node: clients would look for another one.
    """
    record = next((node for node in cluster.nodes if node.name == config.name), None)
    if record is None:
        raise ConfigError(f"node {config.name!r} is not in the cluster")
    if config.port != record.port:
        raise ConfigError(
            f"port = {config.port}, and the cluster knows {config.name!r} with port {record.port}"
        )
    return record


def _close(routes: NetlinkRoutes | BgpRoutes, _: asyncio.Task[None]) -> None:
    routes.close()


class Supervisor:
    """Routes, sockets and workers of one node."""

    def __init__(self, config_path: str, config: NodeConfig) -> None:
        self._config_path = config_path
        self._config = config
        self._tls = load_tls(config)
        self._credentials = Credentials(b"", {})
        self._listeners: list[socket.socket] = []
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failed: int | None = None
        self._is_again = self._is_ended = False
        "It ends to begin again, with another number of workers."
        self._jobs: list[asyncio.Task[None]] = []
        self._ready = (-1, -1)
        "A pipe: workers write their numbers into it when they could answer."
        self._answering: set[int] = set()
        self._is_open = False
        self._opens_late: asyncio.TimerHandle | None = None

    async def serve(self) -> int:
        """Run until SIGTERM or SIGINT, or until a worker finds that it must not run; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        self._keep_read()
        control = open_control(self._config.control, self._config.secrets_file)
        self._ready = os.pipe()
        try:
            return await self._serve(control)
        finally:
            loop.remove_reader(self._ready[0])
            for descriptor in self._ready:
                os.close(descriptor)
            await control.close()

    def _end(self) -> None:
        """Somebody says so: whatever else is going on, it does not begin again."""
        self._is_ended = True
        self._stopping.set()

    def _hear_ready(self, workers: int) -> None:
        """A worker could answer. When all can, clients are let in, and who waits for the node may go on."""
        self._answering.update(os.read(self._ready[0], workers))
        if len(self._answering) == workers:
            self._open()
            tell_service_manager("READY=1")
        elif self._opens_late is None:
            # One that cannot begin must not keep the lanes of the others from being served.
            self._opens_late = asyncio.get_running_loop().call_later(_OPEN_LATE_S, self._open)

    def _open(self) -> None:
        if self._is_open or self._stopping.is_set():
            return
        try:
            begin_listening(self._listeners)
            self._is_open = True
        except OSError as error:
            log.critical("port.taken", extra={"port": self._config.port, "reason": error.strerror})
            self._failed = EXIT_CONFIG
            self._stopping.set()

    def _keep_read(self) -> None:
        """Secrets and certificates; workers have sessions of their own, and hear a signal from here alone."""

        watches = [watch_secrets(self._config.secrets_file, self._credentials)]
        watches += [self._tls.watch] if self._tls is not None else []
        keep_read(watches, self._tell_workers)

    def _tell_workers(self) -> None:
        # Those that answer: of one that begins the signal would be the end, and it reads all anyway.
        for index in self._answering & self._running.keys():
            with suppress(ProcessLookupError):
                self._running[index].send_signal(signal.SIGHUP)

    async def _serve(self, control: ControlStore) -> int:
        cluster = await read_cluster(control)
        name, workers = self._config.name, check_record(self._config, cluster).workers
        are_named = unnamed(cluster.groups, name) == 0
        claim_data_dir(self._config.data_dir, cluster.record.cluster_id, name, workers, are_named=are_named)
        self._listeners = open_listeners(self._config.port, workers)
        view = ClusterView(control)
        await view.load()
        if self._config.manage_routes:
            self._accept_addresses(view)
        prober = self._stand_for_coordinator(control, view)
        keeper = CopyKeeper(view, control, self._config.data_dir, SystemClock())
        self._jobs.append(spawn("copy the control store", keeper.run()))
        self._jobs.append(spawn("follow the cluster", view.run()))
        self._jobs.append(spawn("keep the number of workers", self._keep_count(control, view, workers)))
        self._jobs.append(spawn("keep the watchdog", keep_watchdog()))
        asyncio.get_running_loop().add_reader(self._ready[0], self._hear_ready, workers)
        keepers = [spawn(f"worker {index}", self._keep(index)) for index in range(workers)]
        await self._stopping.wait()
        tell_service_manager("STOPPING=1")
        if self._opens_late is not None:
            self._opens_late.cancel()
        for process in self._running.values():
            process.terminate()
        _, late = await asyncio.wait(keepers, timeout=_STOP_S)
        for process in self._running.values() if late else ():
            process.kill()
        for listener in self._listeners:
            listener.close()
        for job in self._jobs:
            job.cancel()
        await prober.close()
        log.info("node.stopped")
        return _AGAIN if self._is_again and not self._is_ended else self._failed or 0

    async def _keep_count(self, control: ControlStore, view: ClusterView, workers: int) -> None:
        """End when the cluster wants another number of workers; remove what earlier ones have left.

        An environment is one worker's and the kernel steers by their number, so all of them begin anew.
        """
        name, has_left = self._config.name, True
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            known = view.nodes.get(name)
            if known is not None and known.workers != workers:
                log.warning("workers.changed", extra={"from": workers, "to": known.workers})
                self._is_again = True
                self._stopping.set()
                return
            try:
                if has_left and not (await worker_state(control, name)).left:
                    gone = forget_workers(self._config.data_dir, workers)
                    if gone:
                        log.warning("workers.forgotten", extra={"directories": gone})
                    has_left = False
            except (SsaStoreError, OSError) as error:
                log.warning("workers.not_looked_at", extra={"reason": str(error)})

    def _accept_addresses(self, view: ClusterView) -> None:
        """AnyIP for exactly the cover of what this node owns, from now on."""
        accepted = NetlinkRoutes()
        announced = announcer(self._config, IPv6Address(view.nodes[self._config.name].address))
        routes = accepted if announced is None else AnnouncedRoutes(accepted, announced)
        wanted = accepted_by(self._config.name)
        # A host that drops what is not its own would only make clients wait.
        forwarding = Forwarding(self._config.name, DRAIN_MS / 1000) if forwards_packets() else None
        keeper = RouteKeeper(view, routes, wanted, linger_ms=GOAWAY_MS, forwarding=forwarding)
        keeper.begin()
        self._jobs.append(spawn("keep routes", keeper.run()))
        for adapter in (announced, accepted):
            if adapter is not None:
                self._jobs[-1].add_done_callback(partial(_close, adapter))
        if isinstance(announced, BgpRoutes):
            note = keep_note(announced, note_path(self._config.data_dir))
            self._jobs.append(spawn("note what is announced", note))
        log.info("addresses.accepted", extra={"prefixes": sorted(r.prefix for r in routes.installed())})

    def _stand_for_coordinator(self, control: ControlStore, view: ClusterView) -> Prober:
        """From now on. The prober is to be closed at the end."""
        record, name = view.record, self._config.name
        identity = Identity("node", name, cluster_id=record.cluster_id, credentials=self._credentials)
        rules = load_rules(self._config.rules, self._config.secrets_file)
        links = ruled(TcpLinks(self._tls), rules, SystemClock(), SystemRandomness())
        prober = Prober(view, identity, links, SystemRandomness())
        guardian = guardian_of(control, view, name, prober.reaches, prober.heard, SystemClock())
        self._jobs.append(spawn("watch who is there", guardian.run()))
        historian = historian_of(control, view, name, prober.used_bytes, SystemClock())
        self._jobs.append(spawn("note what is stored", historian.run()))
        return prober

    async def _keep(self, index: int) -> None:
        """Keep one worker running."""
        loop = asyncio.get_running_loop()
        delay_s = _RESTART_BASE_S
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_worker(index)
            if self._stopping.is_set():
                return
            if code in (EXIT_CONFIG, EXIT_DATA_DIR):
                self._failed = code
                self._stopping.set()
                return
            if code is not None:
                log.error("worker.died", extra={"worker": index, "code": code})
            # One crash is mended at once; a worker that dies again and again is not spun.
            delay_s = (
                _RESTART_BASE_S if loop.time() - started > _STEADY_S else min(2 * delay_s, _RESTART_CAP_S)
            )
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _run_worker(self, index: int) -> int | None:
        """Its exit code at its end; None when the kernel gave no process for it."""
        try:
            process = await self._start(index)
        except OSError as error:
            log.error("worker.not_started", extra={"worker": index, "reason": error.strerror})
            return None
        code = await process.wait()
        self._running.pop(index, None)
        self._answering.discard(index)
        return code

    async def _start(self, index: int) -> asyncio.subprocess.Process:
        listen_fd = self._listeners[index].fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ssastore.worker",
            self._config_path,
            str(index),
            str(listen_fd),
            str(os.getpid()),
            str(self._ready[1]),
            pass_fds=(listen_fd, self._ready[1]),
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells its workers.
        )
        self._running[index] = process
        if self._stopping.is_set():
            process.terminate()
        return process


def main(config_path: str) -> int:
    """Run a node until it is told to stop; the exit code: 0, or why a worker had to give up.

    Raises:
        ConfigError, DataDirError, EnvironmentProblem, TryLater: it could not be started.
    """
    refuse_optimised()
    config = load(config_path, NodeConfig)
    configure_logging(config.name, log_format=config.log_format)
    return run(_serve(os.path.abspath(config_path), config))


async def _serve(config_path: str, config: NodeConfig) -> int:
    while (code := await Supervisor(config_path, config).serve()) == _AGAIN:
        log.info("node.begins_again")
    return code
