"""ssastore: a lab of nodes with one worker each, and the native client on the lab's client host.

The bucket is a hashed one (``shards=0``): it spreads keys over all slices as Redis
spreads them over its hash slots, and like those it has no ordered listing.  An
acknowledged PUT is synced to disk; there is no weaker setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.errors import LeftOut
from bench.servers import Server, free_ports, waiting_for
from ssastore import AsyncClient, ObjectInfo
from ssastore.client import AsyncBucket
from ssastore.errors import ConfigError
from ssastore.form import form
from ssastore.lab import context
from ssastore.limits import SHARDS_DEFAULT


class Ssastore:
    """A lab, started by the command that people use."""

    module = "ssastore"
    product = "ssastore"

    def __init__(
        self,
        replicas: int = 1,
        *,
        nodes: int | None = None,
        workers: int = 1,
        lab: str | None = None,
        is_listed: bool = False,
    ) -> None:
        self.name = "ssastore" if replicas == 1 else f"ssastore R={replicas}"
        self._nodes = replicas if nodes is None else nodes
        count = "1 node" if self._nodes == 1 else f"{self._nodes} nodes"
        bucket = "indexed" if is_listed else "hashed"
        each = "1 worker" if workers == 1 else f"{workers} workers"
        durable = "" if replicas == 1 else " on a majority"
        self.about = f"{count}, {each} each, R={replicas}, {bucket} bucket; every PUT is durable{durable}"
        self._replicas = replicas
        self._workers = workers
        self._is_listed = is_listed
        self._lab = lab or f"bench{replicas}"
        self.servers: list[Server] = []
        "The lab; node, worker and the S3 gateway are its descendants."

    def check(self) -> None:
        """Nothing can be missing: this package is installed."""

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Start the lab; see ``Target.start``."""
        # A state directory of our own, for our commands too: nobody else's lab is seen or named.
        os.environ["XDG_STATE_HOME"] = str(directory / "state")
        s3_port, admin_port = free_ports(2)
        options = {
            "--nodes": self._nodes,
            "--replicas": self._replicas,
            "--workers": self._workers,
            "--data": directory / f"data-{self._lab}",
            "--s3-port": s3_port,
            "--admin-port": admin_port,
            "--name": self._lab,
        }
        arguments = [str(part) for option in options.items() for part in option]
        argv = [sys.executable, "-m", "ssastore", "up", *arguments]
        self.servers.append(Server(self._lab, argv, directory, cores=cores))
        self._ready(self.servers[0])
        if self.found().is_simulated:
            raise LeftOut(
                "this machine allows no network namespaces, and a simulated network is not measured"
            )

    def _ready(self, lab: Server) -> None:
        """Wait for the lab's context, which is written when every worker answers."""
        for _ in waiting_for("the lab"):
            lab.check()
            try:
                self.found()
                return
            except ConfigError:
                continue

    def found(self) -> context.Context:
        """The lab, which runs."""
        return context.find(self._lab)

    def settings(self) -> dict[str, Any]:
        """URL and key are in the environment of the client host."""
        return {"is_listed": self._is_listed}

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Run it behind the lab's router."""
        return self.on_host("client", argv)

    def on_host(self, host: str, argv: list[str]) -> list[str]:
        """Run it on a host of the lab: a node by its name, router or client."""
        return [sys.executable, "-m", "ssastore", "--context", self._lab, "exec", "--host", host, "--", *argv]

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        return {"form": form(), **{name: version(name) for name in ("ssastore", "lmdb", "msgpack")}}


class SsastoreClient:
    """See ``bench.load.Client``."""

    def __init__(self, client: AsyncClient, bucket: AsyncBucket) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, key: str, data: bytes) -> None:
        """Durable when it returns."""
        await self._bucket.put(key, data)

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        return await self._bucket.get(key)

    async def page(self, prefix: str, after: str, count: int) -> list[str]:
        """Of an indexed bucket."""
        keys: list[str] = []
        listing: Any = self._bucket.list(prefix, start_after=after)
        async with aclosing(listing) as entries:
            async for entry in entries:
                assert isinstance(entry, ObjectInfo)
                keys.append(entry.key)
                if len(keys) == count:
                    break
        return keys

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._client.close()


async def open_client(settings: dict[str, Any]) -> SsastoreClient:
    """A client with a new bucket: a hashed one, or one that can be listed."""
    client = AsyncClient.from_env()
    shards = SHARDS_DEFAULT if settings["is_listed"] else 0
    return SsastoreClient(client, await client.create_bucket("bench", shards=shards))
