"""memcached: one server, nothing on disk, through a client of our own on asyncio.

The client has what is needed of the text protocol (memcached's doc/protocol.txt): ``get`` and ``set``.  It
does less than any library, so the comparison is rather in memcached's favour.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench.errors import BenchError, LeftOut
from bench.servers import Server, free_ports, program

_MEMORY_MIB = 2048
_ITEM_MAX_MIB = 65
"Above the largest value of a run; the server's own default is 1 MiB."


class Memcached:
    """One memcached on a port of 127.0.0.1."""

    name = "memcached"
    product = "memcached"
    module = "memcached"

    def __init__(self, *, workers: int = 1) -> None:
        self.servers: list[Server] = []
        threads = "1 thread" if workers == 1 else f"{workers} threads"
        self.about = f"{threads}, nothing on disk; a minimal asyncio client"
        self._workers = workers
        self._port = 0

    def check(self) -> None:
        """See ``Target.check``."""
        if program("memcached") is None:
            raise LeftOut("memcached is not installed")

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """See ``Target.start``."""
        (self._port,) = free_ports(1)
        user = pwd.getpwuid(os.geteuid()).pw_name
        argv = [program("memcached") or "", "-l", "127.0.0.1", "-p", self._port, "-u", user, "-c", 4096]
        argv += ["-t", self._workers, "-m", _MEMORY_MIB, "-I", f"{_ITEM_MAX_MIB}m"]
        server = Server("memcached", [str(part) for part in argv], directory, cores=cores)
        self.servers.append(server)
        server.wait_for_port(self._port)

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        return {"port": self._port}

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        done = subprocess.run([program("memcached") or "", "-V"], capture_output=True, text=True, timeout=10)
        return {"memcached": done.stdout.split()[-1]}


class MemcachedClient:
    """See ``bench.load.Client``."""

    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._count = connections
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        """Connect."""
        for _ in range(self._count):
            self._idle.append(await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20))
        self._writers = [writer for _, writer in self._idle]

    async def put(self, key: str, data: bytes) -> None:
        """Set."""
        reader, writer = self._idle.pop()
        writer.write(b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(data), data))
        if len(data) > 1 << 16:
            await writer.drain()
        answer = await reader.readline()
        if answer != b"STORED\r\n":
            raise BenchError(f"memcached answered {answer!r} to a set of {key}")
        self._idle.append((reader, writer))

    async def get(self, key: str) -> bytes:
        """Get."""
        reader, writer = self._idle.pop()
        writer.write(b"get %b\r\n" % key.encode())
        head = await reader.readline()
        if not head.startswith(b"VALUE "):
            raise BenchError(f"memcached answered {head!r} to a get of {key}")
        size = int(head.rpartition(b" ")[2])
        body = await reader.readexactly(size + len(b"\r\nEND\r\n"))
        self._idle.append((reader, writer))
        return body[:size]

    async def close(self) -> None:
        """See ``Client.close``."""
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()


async def open_client(settings: dict[str, Any]) -> MemcachedClient:
    """A client with as many connections as there are callers."""
    client = MemcachedClient(settings["port"], settings["inflight"])
    await client.open()
    return client
