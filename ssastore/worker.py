"""One worker process: an event loop, one LMDB environment, one listening socket of the supervisor.

Share-nothing: worker w of W serves the lanes with ``lane % W == w``.  The kernel
brings it the connections to those lanes' addresses, so the address leads to the
core that holds the object.  What it runs is ``engine.py``; here are process, signals
and files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ssastore.config import NodeConfig, load, load_rules, load_tls, open_control, watch_secrets
from ssastore.core.membership import Heartbeat
from ssastore.core.tools import UpkeepRules
from ssastore.engine import Engine, Outside, Place, holding_of
from ssastore.env import Links, spawn
from ssastore.errors import ConfigError, DataDirError, SsaStoreError, Unavailable
from ssastore.limits import LISTEN_BACKLOG
from ssastore.observe import configure_logging
from ssastore.rebalance import read_cluster
from ssastore.routes.seen import SeenRoutes
from ssastore.rules.guard import Guard
from ssastore.store.lmdb import LmdbStore
from ssastore.system import (
    SystemClock,
    SystemRandomness,
    die_with_parent,
    give_up_route_privilege,
    keep_read,
    refuse_optimised,
    run,
    serve_for_long,
)
from ssastore.transport.credentials import Credentials
from ssastore.transport.ruled import ruled
from ssastore.transport.secure import SecureListener
from ssastore.transport.session import SPEAK_TLS, Service
from ssastore.transport.tcp import TcpLinks, simulated_links

log = logging.getLogger(__name__)

_OPENS_S = 0.005
"Between two looks whether the supervisor listens: the kernel tells nobody."


class Worker:
    """An engine as a process, built from configuration and control store."""

    def __init__(self, config: NodeConfig, index: int, listener: socket.socket, ready_fd: int = -1) -> None:
        """``ready_fd``: where its number is written when it could answer; who reads it then listens."""
        self._config = config
        self._ready_fd = ready_fd
        self._index = index
        self._listener = listener
        self._started = time.monotonic()
        self._tls = load_tls(config)
        self._routes = SeenRoutes(config) if index == 0 else None
        "Of the host, so one of its workers tells of them."
        self._credentials = Credentials(b"", {})

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        # Before anything that may take long: until then SIGHUP would end the process.
        watches = [watch_secrets(self._config.secrets_file, self._credentials)]
        keep_read(watches + ([self._tls.watch] if self._tls is not None else []))
        engine = await self._start_engine()
        if self._ready_fd >= 0:
            os.write(self._ready_fd, bytes([self._index]))
            while not stopped.is_set() and not is_listening(self._listener):  # noqa: ASYNC110
                await asyncio.sleep(_OPENS_S)
        server = await self._listen(engine.service)
        engine.begin()
        signs = spawn("keep lease", self._heartbeat(engine).run()) if self._index == 0 else None
        tls = self._tls.shown() if self._tls is not None else {}
        log.info("worker.ready", extra={"slices": len(engine.acceptor.owned), **tls})
        await stopped.wait()
        server.close()
        if signs is not None:
            signs.cancel()
        await engine.end()
        log.info("worker.stopped")

    async def _listen(self, service: Service) -> asyncio.Server | SecureListener:
        loop, tls = asyncio.get_running_loop(), self._tls
        if tls is None:
            return await loop.create_server(service.session, sock=self._listener, backlog=LISTEN_BACKLOG)
        service.node_name = tls.name
        return SecureListener(
            self._listener, tls, service.session, plainly=SPEAK_TLS, lets_in=service.lets_in
        )

    async def _start_engine(self) -> Engine:
        config, tls = self._config, self._tls
        path = Path(config.data_dir) / f"worker-{self._index}"
        store = LmdbStore.open(path, map_bytes=config.map_bytes)
        control = open_control(config.control, config.secrets_file)
        cluster = await read_cluster(control)
        holding = holding_of(cluster, config.name)
        workers = holding.workers[config.name]
        if self._index >= workers:
            # Its supervisor is about to begin again.
            raise Unavailable(f"{config.name} has {workers} workers now, and this is number {self._index}")
        links: Links = simulated_links(cluster, tls) if config.simulated else TcpLinks(tls)
        rules = load_rules(config.rules, config.secrets_file)
        links = ruled(links, rules, SystemClock(), SystemRandomness())
        engine = await Engine.start(
            Outside(store, control, links, SystemClock(), SystemRandomness()),
            Place(config.name, self._index, workers, self._credentials, config.port),
            holding,
            describe_process=self._describe,
            rules=UpkeepRules(
                tombstone_kept_ms=config.tombstone_kept_s * 1000,
                blob_grace_ms=config.blob_grace_s * 1000,
                scrub_bytes_per_s=config.scrub_bytes_per_s,
                scrub_every_s=float(config.scrub_every_s),
                lifecycle_day_ms=config.lifecycle_day_s * 1000,
            ),
        )
        if rules is not None:
            engine.service.guard = Guard(
                *rules, lambda: engine.record.networks, is_monitor=config.rules_monitor
            )
            # In the network a filter would spare the host even the connection.
            log.info("rule.checked_at_accept", extra={"record": str(rules[0])})
        return engine

    def _heartbeat(self, engine: Engine) -> Heartbeat:
        """What tells others that the node is there. Of one worker: a supervisor keeps all of them running."""
        return Heartbeat(engine.outside.control, self._config.name, engine.environment, SystemClock())

    def _describe(self) -> dict[str, Any]:
        disk = os.statvfs(self._config.data_dir)
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "cpu_s": round(time.process_time(), 3),
            "disk_free_bytes": disk.f_bavail * disk.f_frsize,
            **({} if self._routes is None else {"routes": self._routes.describe()}),
        }


def is_listening(listener: socket.socket) -> bool:
    """Does the kernel let connections in?"""
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def main() -> None:
    """``python -m ssastore.worker CONFIG INDEX LISTEN_FD SUPERVISOR READY_FD``: by that process only."""
    refuse_optimised()
    die_with_parent()
    give_up_route_privilege()
    config_path, index, listen_fd, supervisor, ready_fd = sys.argv[1], *map(int, sys.argv[2:6])
    if os.getppid() != supervisor:
        return  # It died before the kernel was asked to tell us.
    try:
        config = load(config_path, NodeConfig)
        configure_logging(f"{config.name}/{index}", log_format=config.log_format)
        serve_for_long()
        run(Worker(config, index, socket.socket(fileno=listen_fd), ready_fd).serve())
    except SsaStoreError as error:
        log.critical("worker.refused", extra={"reason": str(error)})
        code = 3 if isinstance(error, DataDirError) else 2 if isinstance(error, ConfigError) else 1
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
