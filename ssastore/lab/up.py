"""``ssastore up``: a cluster of real network hosts on one machine, without root.

The process enters a user and a network namespace of its own, which become the
router; every node is a namespace on the router's bridge and runs ``ssastore node``
there, the command that an operator runs on a machine.  S3 and admin sockets are
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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ssastore.client import NATIVE_PORT
from ssastore.config import load_secrets, write_private
from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.routekeeper import RouteKeeper, announced_to_router
from ssastore.env import ControlStore, spawn
from ssastore.errors import ConfigError, DataDirError, EnvironmentProblem, NamespaceRefused
from ssastore.keyspace import service_network
from ssastore.lab import context as contexts
from ssastore.lab.context import Context
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import enter_new_user_and_net, spawn_in
from ssastore.lab.options import UpOptions, check_options, prepare_data_dir
from ssastore.lab.status import AdminLink, wait_until_ready
from ssastore.rebalance import form_cluster
from ssastore.system import SystemClock, SystemRandomness, run
from ssastore.worker import die_with_parent

REGION = "us-east-1"
GATEWAY_HOST = "gw"
CLIENT_HOST = "client"
ROUTER_HOST = "router"
MTU = 65_000
"Of the links between hosts: one machine's memory, where a small frame only costs CPU."

_READY_S = 60
_GATEWAY_STOP_S = 12
"A gateway closes what is idle at once and gives requests under way 10 s."
_NODES_STOP_S = 18
"A node's supervisor gives its workers 15 s."

_SOCKET_PATH_BYTES_MAX = 107
"A Unix socket's path, in the kernel's structure for it."


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
    listener.listen(1024)
    return listener


def _free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        port: int = probe.getsockname()[1]
        return port


class Lab:
    """The processes of one lab. Made and used in one thread, which must live as long as it."""

    def __init__(self, options: UpOptions, directory: Path, service: str) -> None:
        self._options = options
        self._directory = directory
        self._service = service_network(service)
        self._fabric: Fabric | None = None
        self._route_keeper: asyncio.Task[None] | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        # Made before a namespace is entered, so that it reaches the localhost outside.
        self._probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._names = [f"n{number}" for number in range(1, options.nodes + 1)]
        self._runtime: tempfile.TemporaryDirectory[str] | None = None
        self._control_path = self._choose_control_path()
        self._secrets = str(directory / "secrets.json")

    def _choose_control_path(self) -> Path:
        """In the data directory, where a killed lab leaves it to its next start; unless that is too deep."""
        path = self._directory / "control.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
            self._runtime = tempfile.TemporaryDirectory(prefix="ssa-")
            path = Path(self._runtime.name) / "control.sock"
        return path

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
        enter_new_user_and_net()
        hosts = [*self._names, GATEWAY_HOST, CLIENT_HOST]
        self._fabric = Fabric.build(self._service, hosts, mtu=MTU)
        self._router_namespace = os.open("/proc/self/ns/net", os.O_RDONLY)

    def simulate(self) -> None:
        """Do without a network: every node is a port of ``::1``, the same at every start."""
        kept = self._directory / "ports.json"
        if not kept.exists():
            write_private(kept, json.dumps({name: _free_port() for name in self._names}))
        try:
            found = json.loads(kept.read_bytes())
            self._ports = {name: int(found[name]) for name in self._names}
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
                    port=self._ports.get(name, NATIVE_PORT),
                    zone="",
                    weight=1,
                    workers=self._options.workers,
                )
            )
        return records

    async def _announce(self, control: ControlStore) -> None:
        """The router's routes: every node's cover by way of its node address, from now on."""
        assert self._fabric is not None
        routes = self._fabric.router_routes()
        keeper = RouteKeeper(control, routes, announced_to_router(self._service))
        await keeper.load()
        self._route_keeper = spawn("keep the router's routes", keeper.run())
        self._route_keeper.add_done_callback(lambda _: routes.close())

    def _write_config(self, name: str, settings: dict[str, object]) -> str:
        path = self._directory / "config" / f"{name}.toml"
        # TOML takes JSON's strings, but not its pairs of surrogates.
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def _start(self, host: str, name: str, arguments: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        argv = [sys.executable, "-m", "ssastore", *arguments]
        with open(self._directory / "log" / f"{name}.log", "ab") as log:
            # A session of its own: Ctrl-C is for us, who stop the others in order.
            options: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True}
            options |= {"stdin": subprocess.DEVNULL, "pass_fds": pass_fds}
            if self._fabric is not None:
                namespace = self._fabric.namespace_fd(host)
                process = spawn_in(namespace, argv, **options)
            else:  # preexec_fn for the reason that spawn_in has.
                process = subprocess.Popen(argv, preexec_fn=die_with_parent, **options)  # noqa: PLW1509
        self._processes[name] = process

    def start_node(self, name: str) -> None:
        """Start one node's supervisor."""
        path = self._write_config(
            name,
            {
                "name": name,
                "control": str(self._control_path),
                "data_dir": str((self._directory / "nodes" / name).resolve()),
                "secrets_file": self._secrets,
                "port": self._ports.get(name, NATIVE_PORT),
                "workers": self._options.workers,
                "manage_routes": self._fabric is not None,
                **self._options.extra_settings(),
            },
        )
        self._start(name, name, ["node", "--config", path])

    def start_gateway(self, s3: socket.socket, admin: socket.socket) -> None:
        """Start the S3 gateway on sockets of the machine outside, which are its own from then on."""
        path = self._write_config(
            "gateway",
            {"control": str(self._control_path), "secrets_file": self._secrets, "region": REGION},
        )
        fds = (s3.fileno(), admin.fileno())
        arguments = ["gateway", "--config", path, "--s3-fd", str(fds[0]), "--admin-fd", str(fds[1])]
        if self._ports:
            arguments.append("--simulated")
        self._start(GATEWAY_HOST, "gateway", arguments, fds)
        # Else nobody would be refused after the gateway's end, our own question whether all is ready
        # included: they would wait in our backlog.
        s3.close()
        admin.close()

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
            control=str(self._control_path),
            secrets_file=str(Path(self._secrets).resolve()),
            s3_port=self._options.s3_port,
            admin_port=self._options.admin_port,
            region=REGION,
            hosts=hosts,
            nodes=self._names,
            ports=self._ports,
        )

    # -- running ------------------------------------------------------------------------------------

    async def serve(
        self, s3: socket.socket, admin: socket.socket, on_ready: Callable[[Context], None]
    ) -> int:
        """Run until one of ``_endings``; the exit code."""
        stopped = asyncio.Event()
        for number in _endings():
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        server = await EmbeddedControlServer.start(self._directory / "control", self._control_path)
        control = EmbeddedControlStore(self._control_path)
        try:
            await form_cluster(
                control,
                self._service,
                self._options.replicas,
                self._node_records(),
                now_ms=SystemClock().now_ms(),
                random_bytes=SystemRandomness().bytes,
            )
            if self._fabric is not None:
                await self._announce(control)
            for name in self._names:
                self.start_node(name)
            self.start_gateway(s3, admin)
            await self._wait_ready(stopped)
            if not stopped.is_set():
                found = self.context()
                contexts.write(found)
                on_ready(found)
                spawn("watch processes", self._watch(stopped))
                await stopped.wait()
            return 0
        finally:
            contexts.remove(self._options.name, os.getpid())
            await self._stop()
            if self._route_keeper is not None:
                self._route_keeper.cancel()
            await control.close()
            await server.close()

    async def _wait_ready(self, stopped: asyncio.Event) -> None:
        """Until the gateway reaches every worker; fails early when a process has ended."""
        link = AdminLink(self._options.admin_port, self._probe, timeout_s=_READY_S)
        ready = spawn("wait until ready", wait_until_ready(link, _READY_S))
        watch = spawn("watch start", self._first_death())
        stop = spawn("wait for stop", stopped.wait())
        done, _ = await asyncio.wait({ready, watch, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, watch, stop):
            task.cancel()
        link.close()
        if stop in done:
            return
        if watch in done:
            name = watch.result()
            log = self._directory / "log" / f"{name}.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise EnvironmentProblem(f"{name} ended while starting; the end of {log}:\n{last}")
        if ready in done:
            ready.result()

    async def _first_death(self) -> str:
        while True:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    return name
            await asyncio.sleep(0.1)

    async def _watch(self, stopped: asyncio.Event) -> None:
        """Say which process ended; a node that was ended on purpose stays down."""
        reported: set[str] = set()
        while not stopped.is_set():
            for name, process in self._processes.items():
                if process.poll() is not None and name not in reported:
                    reported.add(name)
                    print(f"ssastore: {name} ended with code {process.returncode}", file=sys.stderr)
            await asyncio.sleep(0.5)

    async def _stop(self) -> None:
        """End the gateway, then the nodes: what the gateway is still doing needs them."""
        await self._end(["gateway"], _GATEWAY_STOP_S)
        await self._end(self._names, _NODES_STOP_S)

    async def _end(self, names: Sequence[str], patience_s: float) -> None:
        processes = [self._processes[name] for name in names if name in self._processes]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + patience_s
        for process in processes:
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            if process.poll() is None:
                process.kill()
                process.wait()


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
    with _data_dir(options.data_dir) as name:
        directory = Path(name).absolute()
        service = prepare_data_dir(directory, options)
        load_secrets(str(directory / "secrets.json"))
        lab = Lab(options, directory, service)
        try:
            try:
                lab.enter()
            except NamespaceRefused as error:
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


def _data_dir(path: str | None) -> AbstractContextManager[str]:
    if path is not None:
        return nullcontext(path)
    return tempfile.TemporaryDirectory(prefix="ssastore-", ignore_cleanup_errors=True)
