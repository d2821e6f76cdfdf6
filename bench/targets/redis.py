"""Redis Cluster: three servers without replicas, through redis-py (asyncio) with hiredis.

Two configurations, since Redis has to be told to be durable:

- ``redis``: nothing is written to disk. The fastest Redis there is, for reads.
- ``redis-always``: ``appendfsync always``, so that a SET is synced before it is answered, as our PUT is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.errors import BenchError, LeftOut
from bench.servers import START_S, Server, free_ports, program, waiting_for

SERVERS = 3
"The least that Redis makes a cluster of."

_BUS_PORT_OFFSET = 10_000
"Redis' nodes talk to each other on the port that much higher."

_MEMORY_ONLY = ["--appendonly", "no"]
# Rewriting the log would fork in the middle of a round.
_SYNCED = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]


class Redis:
    """A cluster on ports of 127.0.0.1."""

    module = "redis"
    product = "redis"

    def __init__(self, *, durable: bool) -> None:
        self.name = "redis-always" if durable else "redis"
        kept = "appendfsync always" if durable else "nothing on disk"
        self.about = f"Redis Cluster, {SERVERS} servers, {kept}; redis-py asyncio with hiredis"
        self._persistence = _SYNCED if durable else _MEMORY_ONLY
        self._ports: list[int] = []
        self.servers: list[Server] = []

    def check(self) -> None:
        """See ``Target.check``."""
        for name in ("redis-server", "redis-cli"):
            if program(name) is None:
                raise LeftOut(f"{name} is not installed")
        for package in ("redis", "hiredis"):
            try:
                version(package)
            except PackageNotFoundError:
                raise LeftOut(f"Python package {package} is not installed (extra: bench)") from None

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Start three servers and make them a cluster."""
        self._ports = free_ports(SERVERS, also=_BUS_PORT_OFFSET)
        for port in self._ports:
            self.servers.append(self._start_one(port, directory, cores))
        for server, port in zip(self.servers, self._ports, strict=True):
            server.wait_for_port(port)
        addresses = [f"127.0.0.1:{port}" for port in self._ports]
        _cli("--cluster", "create", *addresses, "--cluster-yes")
        for _ in waiting_for(self.name):
            # Each has its own opinion, and a client may ask any of them first.
            if all("cluster_state:ok" in _cli("-p", str(port), "cluster", "info") for port in self._ports):
                return

    def _start_one(self, port: int, directory: Path, cores: Collection[int]) -> Server:
        data = directory / f"redis-{port}"
        data.mkdir()
        argv = [program("redis-server") or "", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]
        argv += ["--cluster-enabled", "yes", "--save", "", "--daemonize", "no", *self._persistence]
        return Server(f"redis-{port}", argv, directory, cores=cores)

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        return {"port": self._ports[0]}

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        words = _run([program("redis-server") or "", "--version"]).split()
        server = next((word[2:] for word in words if word.startswith("v=")), "unknown")
        return {"redis-server": server, "redis-py": version("redis"), "hiredis": version("hiredis")}


def _cli(*arguments: str) -> str:
    return _run([program("redis-cli") or "", *arguments])


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=START_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{Path(argv[0]).name} did not end within {START_S} s") from None
    if done.returncode != 0:
        raise BenchError(f"{Path(argv[0]).name}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


class RedisClient:
    """See ``bench.load.Client``."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    async def put(self, key: str, data: bytes) -> None:
        """SET."""
        await self._cluster.set(key, data)

    async def get(self, key: str) -> bytes:
        """GET."""
        value: bytes = await self._cluster.get(key)
        return value

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._cluster.aclose()


async def open_client(settings: dict[str, Any]) -> RedisClient:
    """A client with as many connections to each server as there are callers."""
    from redis.asyncio.cluster import RedisCluster

    cluster = RedisCluster(
        host="127.0.0.1", port=settings["port"], max_connections=max(settings["inflight"], 8)
    )
    await cluster.initialize()
    return RedisClient(cluster)
