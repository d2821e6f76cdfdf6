"""``ssastore up``: a cluster of real network hosts on one machine, without root.

The process enters a user and a network namespace of its own, which become the
router; every node is a namespace on the router's bridge and runs ``ssastore node``
there, the command that an operator runs on a machine.  The control store is served by this process,
or is an etcd on one more host.  S3 and admin sockets are
opened before entering, so they serve the localhost of the machine outside.

Where the kernel forbids namespaces the nodes are ports of ``::1`` and the network
is simulated; the banner says so.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ssastore.config import load_secrets, open_control, write_private
from ssastore.control.embedded import EmbeddedControlServer
from ssastore.core.cluster import CLUSTER_KEY, FORMING_KEY, ClusterRecord, NodeRecord
from ssastore.core.membership import alive_key
from ssastore.core.settings import RECOVERY_SETTINGS_KEY, RecoverySettings
from ssastore.core.sites import order_sites
from ssastore.env import ControlStore, Write, spawn
from ssastore.errors import ConfigError, DataDirError, NamespaceRefused, Unavailable
from ssastore.keyspace import service_network
from ssastore.lab import context as contexts
from ssastore.lab import members
from ssastore.lab.context import Context
from ssastore.lab.edge import keep_edge
from ssastore.lab.front import domain_of, keep_front, keep_name
from ssastore.lab.launching import (
    CLIENT_HOST,
    ETCD_HOST,
    GATEWAY_HOST,
    GATEWAY_PROCESS,
    OTHER_GATEWAYS,
    REGION,
    Launcher,
)
from ssastore.lab.namespaces import enter_new_net, enter_new_user_and_net
from ssastore.lab.options import (
    BGP,
    BGP_BUILT_IN,
    BRIDGE,
    EMBEDDED,
    ETCD,
    FILTER,
    TIERS,
    TWO_SITES,
    UpOptions,
    check_options,
    open_data_dir,
    prepare_data_dir,
)
from ssastore.lab.processes import Processes, free_port
from ssastore.lab.status import AdminLink, wait_until_ready
from ssastore.lab.topologies.bgp import Bgp, BgpBuiltIn
from ssastore.lab.topologies.bridge import Bridge
from ssastore.lab.topologies.filter import FilterRow
from ssastore.lab.topologies.network import Ground, Network
from ssastore.lab.topologies.tiers import Tiers
from ssastore.lab.topologies.two_sites import TwoSites
from ssastore.limits import LISTEN_BACKLOG
from ssastore.rebalance import add_node, form_cluster, read_cluster, remove_node
from ssastore.rules.record import NATIVE_PORT, ServiceRecord, record_from_text
from ssastore.system import SystemClock, SystemRandomness, run

ROUTER_HOST = "router"
_OWN_NAMES = {GATEWAY_HOST, CLIENT_HOST, ROUTER_HOST, ETCD_HOST, GATEWAY_PROCESS, *OTHER_GATEWAYS}
"Of hosts, processes and files that are no node's."
MTU = 65_000
"Of the links between hosts: one machine's memory, where a small frame only costs CPU."

_READY_S = 60
_CONTROL_S = 20
"For an etcd to start, or one that was given to answer."
_NODE_START_S = 20
"For a node that joins to begin its workers."
_POLL_S = 0.05
_ETCD_STOP_S = 5
_GATEWAY_STOP_S = 12
"A gateway closes what is idle at once and gives requests under way 10 s."
_NODES_STOP_S = 18
"A node's supervisor gives its workers 15 s."

_SOCKET_PATH_BYTES_MAX = 107
"A Unix socket's path, in the kernel's structure for it."
_SOCKET_NAME_BYTES_MAX = 20
"Of the longest: `.bird` after a host's name, which has at most 15."

_NETWORKS: dict[str, type[Network]] = {
    BRIDGE: Bridge,
    BGP: Bgp,
    BGP_BUILT_IN: BgpBuiltIn,
    TWO_SITES: TwoSites,
    TIERS: Tiers,
    FILTER: FilterRow,
}


def _listener(port: int) -> socket.socket:
    """A socket on the localhost of the machine, opened before any namespace is entered."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} of 127.0.0.1: {error.strerror}; choose others with --s3-port and --admin-port"
        ) from None
    listener.listen(LISTEN_BACKLOG)
    return listener


class Lab:
    """The processes of one lab. Made and used in one thread, which must live as long as it."""

    def __init__(self, options: UpOptions, directory: Path, service: str) -> None:
        self._options = options
        self._directory = directory
        self._service = service_network(service)
        self._fabric: Network | None = None
        self._is_ready = False
        self._jobs: list[asyncio.Task[None]] = []
        self._processes = Processes(directory / "log")
        # Made before a namespace is entered, so that it reaches the localhost outside.
        self._probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._names = [f"n{number}" for number in range(1, options.nodes + 1)]
        self._gateways = list(OTHER_GATEWAYS)[: options.gateways - 1]
        self._runtime: tempfile.TemporaryDirectory[str] | None = None
        sockets = self._choose_sockets()
        self._ground = Ground(self._processes, directory / "config", sockets)
        self._control_path = sockets / "control.sock"
        self._secrets = str(directory / "secrets.json")
        self._launcher = Launcher(
            options,
            directory,
            self._processes,
            control=str(self._control_path) if options.control == EMBEDDED else options.control,
            secrets=self._secrets,
        )

    def _choose_sockets(self) -> Path:
        """The data directory, where a killed lab leaves them to its next start; unless that is too deep."""
        if len(os.fsencode(self._directory)) + 1 + _SOCKET_NAME_BYTES_MAX > _SOCKET_PATH_BYTES_MAX:
            self._runtime = tempfile.TemporaryDirectory(prefix="ssa-")
            return Path(self._runtime.name)
        return self._directory

    def close(self) -> None:
        """Let go of what was made outside of ``serve``."""
        self._probe.close()
        if self._fabric is not None:
            self._fabric.close()
        if self._runtime is not None:
            self._runtime.cleanup()

    # -- building -----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Make the network. Raises NamespaceRefused when the kernel forbids it."""
        if self._options.simulate:
            raise NamespaceRefused("asked for a simulated network")
        if self._options.topology == FILTER:
            enter_new_net()
        else:
            enter_new_user_and_net()
        others = [GATEWAY_HOST, CLIENT_HOST]
        if self._options.control == ETCD:
            others.append(ETCD_HOST)
        network = _NETWORKS[self._options.topology]
        self._fabric = network.open(self._service, self._names, others, mtu=MTU)
        for name in self._gateways:
            self._fabric.add_host(name, self._fabric.infra[OTHER_GATEWAYS[name]])
        self._fabric.rules = self._options.rules
        self._launcher.fabric = self._fabric
        self._router_namespace = os.open("/proc/self/ns/net", os.O_RDONLY)

    def simulate(self) -> None:
        """Do without a network: every node is a port of ``::1``, the same at every start."""
        kept = self._directory / "ports.json"
        if not kept.exists():
            write_private(kept, json.dumps({name: free_port("::1") for name in self._names}))
        try:
            found = json.loads(kept.read_bytes())
            self._launcher.ports = {name: int(found[name]) for name in self._names}
        except (ValueError, KeyError, TypeError):
            raise DataDirError(f"{kept} is not what ssastore up writes") from None

    def _node_records(self) -> list[NodeRecord]:
        records = []
        for number, name in enumerate(self._names, 1):
            # In a simulated network the address is a label that nothing dials.
            address = (
                str(self._fabric.address_of(name))
                if self._fabric
                else str(ipaddress.IPv6Address(int(self._service.network_address) + (1 << 64) + number))
            )
            records.append(
                NodeRecord(
                    name=name,
                    address=address,
                    port=self._launcher.ports.get(name, NATIVE_PORT),
                    zone=self._fabric.zone_of(name) if self._fabric else "",
                    weight=1,
                    workers=self._options.workers,
                )
            )
        return records

    def _renumber(self, record: ClusterRecord) -> None:
        """The cluster's own record is this now: other commands find the service where clients are told."""
        if record.network != self._service:
            self._service = record.network
            if self._is_ready:
                contexts.write(self.context())

    def context(self) -> Context:
        """What other commands need to know."""
        fabric = self._fabric
        hosts = {name: fabric.namespace_fd(name) for name in fabric.hosts} if fabric else {}
        if fabric:
            hosts[ROUTER_HOST] = self._router_namespace
        return Context(
            name=self._options.name,
            pid=os.getpid(),
            birth=contexts.birth_of(os.getpid()) or 0,
            started_ms=time.time_ns() // 1_000_000,
            service=str(self._service),
            port=NATIVE_PORT,
            replicas=self._options.replicas,
            data_dir=str(self._directory.resolve()),
            control=self._launcher.control,
            secrets_file=str(Path(self._secrets).resolve()),
            s3_port=self._options.s3_port,
            admin_port=self._options.admin_port,
            region=REGION,
            hosts=hosts,
            nodes=self._names,
            ports=self._launcher.ports,
            rules=self._options.rules,
            domain=domain_of(self._options.name) if fabric else "",
            name_server=str(fabric.router) if fabric else "",
        )

    # -- running ------------------------------------------------------------------------------------

    async def serve(
        self, s3: socket.socket, admin: socket.socket, on_ready: Callable[[Context], None]
    ) -> int:
        """Run until one of ``_endings``; the exit code."""
        stopped = asyncio.Event()
        for number in _endings():
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        server = await self._start_control()
        control = self._store = open_control(self._launcher.control, self._secrets)
        try:
            await self._wait_for_control(control)
            await self._form(control)
            if self._options.recover_after is not None:
                wanted = RecoverySettings(self._options.recover_after).encode()
                await control.transact([], [Write(RECOVERY_SETTINGS_KEY, wanted)])
            gateways = [GATEWAY_HOST, *self._gateways]
            if self._fabric is not None and not self._fabric.hear_gateways(gateways):
                self._jobs += await keep_front(control)
            self._jobs += await keep_edge(control, self._fabric, self._names, self._ground, self._renumber)
            if self._fabric is not None:
                record = record_from_text(self._options.rules) if self._options.rules else ServiceRecord()
                domain = domain_of(self._options.name)
                self._jobs += await keep_name(control, domain, record, self._fabric.router)
            for name in self._names:
                self._launcher.start_node(name)
            self._launcher.start_gateway(s3, admin)
            for name in self._gateways:
                self._launcher.start_other_gateway(name)
            await self._wait_ready(stopped)
            if not stopped.is_set():
                await members.end_old_wishes(control)
                found = self.context()
                contexts.write(found)
                self._is_ready = True
                self._jobs.append(spawn("do what is asked", members.Clerk(control, self._deeds()).run()))
                on_ready(found)
                self._jobs.append(spawn("watch processes", self._processes.watch()))
                await stopped.wait()
            return 0
        finally:
            contexts.remove(self._options.name, os.getpid())
            await self._stop()
            for job in self._jobs:
                job.cancel()
            await control.close()
            daemons = self._fabric.daemons if self._fabric is not None else []
            await self._processes.end([*daemons, ETCD_HOST], _ETCD_STOP_S)
            if server is not None:
                await server.close()

    async def _start_control(self) -> EmbeddedControlServer | None:
        """Serve the control store, or start an etcd; nothing where one is given."""
        if self._options.control == EMBEDDED:
            return await EmbeddedControlServer.start(self._directory / "control", self._control_path)
        if self._options.control == ETCD:
            self._launcher.start_etcd()
        return None

    async def _wait_for_control(self, control: ControlStore) -> None:
        """Until it answers; fails early when an etcd of ours has ended."""
        deadline = time.monotonic() + _CONTROL_S
        while True:
            try:
                await control.get(CLUSTER_KEY)
                return
            except Unavailable:
                if self._processes.has_ended(ETCD_HOST):
                    raise self._processes.early_end(ETCD_HOST) from None
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _form(self, control: ControlStore) -> None:
        """A cluster of the nodes that were asked for, or the one that there is, with those that joined it."""
        item = await control.get(CLUSTER_KEY)
        if item is not None:
            self._service = ClusterRecord.decode(item.value).network
        asked = self._options.service
        if asked and service_network(asked) != self._service:
            raise DataDirError(f"{self._directory} holds a lab with the service prefix {self._service}")
        if item is None or await control.get(FORMING_KEY) is not None:
            await form_cluster(
                control,
                self._service,
                self._options.replicas,
                self._node_records(),
                now_ms=SystemClock().now_ms(),
                random_bytes=SystemRandomness().bytes,
            )
            if self._fabric is not None and self._fabric.sites:
                await order_sites(control, self._fabric.sites)
            return
        nodes = (await read_cluster(control)).nodes
        joined = [node for node in nodes if node.name not in self._names]
        for node in sorted(joined, key=lambda node: ipaddress.IPv6Address(node.address)):
            if self._fabric is None:
                raise ConfigError(f"node {node.name} joined this lab, which a simulated network cannot have")
            _check_node_name(node.name)
            self._fabric.add_host(node.name, ipaddress.IPv6Address(node.address))
        self._names = [node.name for node in nodes]

    # -- what is asked while it runs (``members``) ---------------------------------------------------

    def _deeds(self) -> dict[str, members.Deed]:
        return {
            members.ADD: self._add_node,
            members.KILL: self._kill_node,
            members.START: self._restart,
            members.REMOVE: self._remove_node,
        }

    async def _add_node(self, name: str, wish: members.Ask) -> None:
        if self._fabric is None:
            raise ConfigError("a simulated network cannot grow")
        _check_node_name(name)
        if name in self._names:
            raise ConfigError(f"the lab has a node {name}")
        # What is refused is refused before there is a host.
        record = NodeRecord(
            name, str(self._fabric.router), NATIVE_PORT, wish.zone, wish.weight, self._options.workers
        )
        if name not in self._fabric.hosts:  # Else a try that failed has left it.
            self._fabric.add_host(name)
        zone = wish.zone or self._fabric.zone_of(name)
        address = str(self._fabric.address_of(name))
        await add_node(self._store, replace(record, address=address, zone=zone))
        self._names.append(name)
        self._fabric.add_node(name)
        self._launcher.start_node(name)
        contexts.write(self.context())
        await self._processes.first_child(name, _NODE_START_S)
        await self._wait_alive(name)

    async def _wait_alive(self, name: str) -> None:
        """Until a node has a lease. ConfigError: not in time, or it has ended."""
        deadline = time.monotonic() + _NODE_START_S
        while await self._store.get(alive_key(name)) is None:
            if time.monotonic() > deadline or not self._processes.is_running(name):
                raise ConfigError(f"{name} gives no sign of life; its log says why")
            await asyncio.sleep(_POLL_S)

    async def _kill_node(self, name: str, wish: members.Ask) -> None:
        self._check_known(name)
        if not self._processes.is_running(name):
            raise ConfigError(f"{name} is not running")
        self._processes.kill(name)

    async def _restart(self, name: str, wish: members.Ask) -> None:
        self._check_known(name)
        if self._processes.is_running(name):
            raise ConfigError(f"{name} is running")
        self._launcher.start_node(name)

    async def _remove_node(self, name: str, wish: members.Ask) -> None:
        """Its host stays, and its data: it may be added again."""
        self._check_known(name)
        await remove_node(self._store, name)
        await self._processes.end([name], _NODES_STOP_S)
        self._names.remove(name)
        contexts.write(self.context())

    def _check_known(self, name: str) -> None:
        if name not in self._names:
            raise ConfigError(f"the lab has no node {name}; it has {', '.join(self._names)}")

    async def _wait_ready(self, stopped: asyncio.Event) -> None:
        """Until the gateway reaches every worker; fails early when a process has ended."""
        link = AdminLink(self._options.admin_port, self._probe, timeout_s=_READY_S)
        ready = spawn("wait until ready", wait_until_ready(link, _READY_S))
        watch = spawn("watch start", self._processes.first_death())
        stop = spawn("wait for stop", stopped.wait())
        done, _ = await asyncio.wait({ready, watch, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, watch, stop):
            task.cancel()
        link.close()
        if stop in done:
            return
        if watch in done:
            raise self._processes.early_end(watch.result())
        if ready in done:
            try:
                ready.result()
            except Unavailable as error:  # The logs go with the directory, where it is not kept.
                raise Unavailable("\n".join([str(error), *self._processes.complaints()])) from None

    async def _stop(self) -> None:
        """End the gateway, then the nodes: what the gateway is still doing needs them."""
        await self._processes.end([GATEWAY_PROCESS, *self._gateways], _GATEWAY_STOP_S)
        await self._processes.end(self._names, _NODES_STOP_S)


def _check_node_name(name: str) -> None:
    if name in _OWN_NAMES:
        raise ConfigError(f"no node can be called {name}: the lab has something else of that name")


def up(options: UpOptions, on_ready: Callable[[Context], None]) -> int:
    """Run a lab in the foreground until it is told to stop; the exit code.

    Raises:
        ConfigError, DataDirError, EnvironmentProblem, TryLater: it could not be started.
    """
    check_options(options)
    contexts.check_free(options.name)
    contexts.make_state_dir()
    # Logs name keys and addresses: they are nobody else's business.
    os.umask(0o077)
    endings = _endings()
    # Until the event loop listens for them: so that what was made so far is cleaned up.
    for number in endings:
        signal.signal(number, signal.default_int_handler)
    s3, admin = _listener(options.s3_port), _listener(options.admin_port)
    with open_data_dir(options.data_dir) as name:
        directory = Path(name).absolute()
        service = prepare_data_dir(directory, options)
        load_secrets(str(directory / "secrets.json"))
        lab = Lab(options, directory, service)
        try:
            try:
                lab.enter()
            except NamespaceRefused as error:
                if options.topology != BRIDGE:
                    raise
                print(f"ssastore: SIMULATED NETWORK: nodes are ports of ::1 ({error})", file=sys.stderr)
                lab.simulate()
            return run(lab.serve(s3, admin, on_ready))
        finally:
            # A second Ctrl-C must not cut the cleaning short.
            for number in endings:
                signal.signal(number, signal.SIG_IGN)
            lab.close()


def _endings() -> list[signal.Signals]:
    """Signals that end a lab. A terminal that goes is one, unless somebody wants to outlive it (nohup)."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
