"""One worker process: an event loop, one LMDB environment, one listening socket of the supervisor.

Share-nothing: worker w of W serves the lanes with ``lane % W == w``.  The kernel
brings it the connections to those lanes' addresses, so the address leads to the
core that holds the object.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import msgpack

from ssastore.config import NodeConfig, load, load_secrets
from ssastore.control.embedded import EmbeddedControlStore
from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.boot import start_environment
from ssastore.core.coordinator import MATE_BUDGET_MS, Coordinator
from ssastore.core.planner import owned_slices
from ssastore.core.proposer import Proposer
from ssastore.core.tombstones import collect_tombstones
from ssastore.env import Store, spawn
from ssastore.errors import ConfigError, DataDirError, SsaStoreError
from ssastore.keyspace import slice16_of
from ssastore.observe import configure_logging
from ssastore.rebalance import read_cluster
from ssastore.store.lmdb import LmdbStore
from ssastore.system import SystemClock, SystemRandomness, refuse_optimised, run
from ssastore.transport.connection import Identity
from ssastore.transport.pool import Pool
from ssastore.transport.session import Service
from ssastore.transport.tcp import TcpLinks

log = logging.getLogger(__name__)

TOMBSTONE_KEPT_MS = 60 * 60 * 1000
"How long a delete is remembered: far above the longest deadline of a call that could repeat it."

_COLLECT_EVERY_S = 60
_COLLECT_BATCH = 500
_COLLECT_BATCHES_MAX = 200
_DRAIN_S = 10
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Be ended when the supervisor dies: an orphan would hold the environment's lock."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def collect(store: Store, clock: SystemClock) -> None:
    """Drop old tombstones, for ever."""
    while True:
        before_ms = clock.now_ms() - TOMBSTONE_KEPT_MS
        change = partial(collect_tombstones, before_ms=before_ms, limit=_COLLECT_BATCH)
        try:
            for _ in range(_COLLECT_BATCHES_MAX):
                if not await store.submit(change):
                    break
        except SsaStoreError as error:
            log.warning("tombstones.not_collected", extra={"reason": str(error)})
        await asyncio.sleep(_COLLECT_EVERY_S)


class Worker:
    """The parts of one worker, built from configuration and control store."""

    def __init__(self, config: NodeConfig, index: int, listener: socket.socket) -> None:
        self._config = config
        self._index = index
        self._listener = listener
        self._started = time.monotonic()
        self._clock = SystemClock()
        self._mates: Pool | None = None

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        service = await self._build()
        server = await asyncio.get_running_loop().create_server(
            service.session, sock=self._listener, start_serving=True
        )
        background = [spawn("reap connections", self._reap(service))]
        if service.acceptor.replicas == 1:
            # With several replicas one plane must not forget a delete by itself: a plane that missed it
            # would bring the object back. Until all planes collect together, tombstones stay.
            background.append(spawn("collect tombstones", collect(self._store, self._clock)))
        log.info("worker.ready", extra={"slices": len(service.acceptor.active)})
        await stopped.wait()
        server.close()
        for task in background:
            task.cancel()
        await self._drain(service)
        if self._mates is not None:
            await self._mates.close()
        await self._store.close()
        log.info("worker.stopped")

    async def _build(self) -> Service:
        config = self._config
        path = Path(config.data_dir) / f"worker-{self._index}"
        self._store = LmdbStore.open(path, map_bytes=config.map_bytes)
        randomness = SystemRandomness()
        control = EmbeddedControlStore(Path(config.control))
        try:
            cluster = await read_cluster(control)
            if config.name not in {node.name for node in cluster.nodes}:
                raise ConfigError(f"node {config.name!r} is not in the cluster")
            owner = f"{config.name}/{self._index}"
            ballots = await start_environment(self._store, control, randomness, owner)
        finally:
            await control.close()
        record = cluster.record
        acceptor = Acceptor(
            replicas=record.replicas, worker=self._index, workers=config.workers, ballots=ballots
        )
        acceptor.activate({slice16_of(piece.first) for piece in owned_slices(cluster.groups, config.name)})
        credentials = load_secrets(config.secrets_file)
        service: Service = Service(
            store=self._store,
            acceptor=acceptor,
            credentials=credentials,
            cluster_id=record.cluster_id,
            clock=self._clock,
            randomness=randomness,
            describe=lambda: self._describe(service),
        )
        service.coverage = encode_coverage(acceptor.active, 1)
        if record.replicas > 1:
            identity = Identity("node", owner, credentials.cluster_secret, record.replicas, record.cluster_id)
            self._mates = Pool(
                record.network,
                config.port,
                identity,
                links=TcpLinks(),
                randomness=randomness,
                deadline_ms=MATE_BUDGET_MS,
            )
            proposer = Proposer(ballots, self._clock, randomness)
            service.coordinator = Coordinator(acceptor, proposer, self._store, self._mates, self._clock)
        return service

    async def _reap(self, service: Service) -> None:
        while True:
            await asyncio.sleep(1)
            service.reap()

    async def _drain(self, service: Service) -> None:
        """Answer what is in flight, then close every connection."""
        for session in list(service.sessions):
            session.stop()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await service.emptied.wait()
        except TimeoutError:
            for session in list(service.sessions):
                session.abort()

    def _describe(self, service: Service) -> bytes:
        usage = self._store.usage()
        counters = service.counters
        described: bytes = msgpack.packb(
            {
                "node": self._config.name,
                "worker": self._index,
                "workers": self._config.workers,
                "pid": os.getpid(),
                "uptime_s": round(time.monotonic() - self._started, 1),
                "slices": len(service.acceptor.active),
                "connections": len(service.sessions),
                "accepted": counters.accepted,
                "accept_log": list(counters.accept_log),
                "denied": counters.denied,
                "peer_errors": counters.peer_errors,
                "requests": counters.requests,
                "refusals": counters.refusals,
                "records": usage.records,
                "used_bytes": usage.used_bytes,
                "limit_bytes": usage.limit_bytes,
            }
        )
        return described


def main() -> None:
    """``python -m ssastore.worker CONFIG INDEX LISTEN_FD SUPERVISOR``: started by that process only."""
    refuse_optimised()
    die_with_parent()
    config_path, index, listen_fd, supervisor = sys.argv[1], *map(int, sys.argv[2:5])
    if os.getppid() != supervisor:
        return  # It died before the kernel was asked to tell us.
    try:
        config = load(config_path, NodeConfig)
        configure_logging(f"{config.name}/{index}", log_format=config.log_format)
        run(Worker(config, index, socket.socket(fileno=listen_fd)).serve())
    except SsaStoreError as error:
        log.critical("worker.refused", extra={"reason": str(error)})
        code = 3 if isinstance(error, DataDirError) else 2 if isinstance(error, ConfigError) else 1
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
