"""nginx: static files over HTTP with keep-alive. GET only.

The limit of what a file server can do with a CPU.  The client is aiohttp, which is
the limit of the throughput here; the figure to look at is the server's CPU time.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from bench.errors import BenchError, LeftOut
from bench.servers import Server, free_ports, program

_IDLE_S = 3600
"Connections wait for the rounds of the other targets."

_CONFIGURATION = """
worker_processes {workers};
daemon off;
{user}
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout {idle_s}s;
    keepalive_requests 1000000000;
    open_file_cache max=10000 inactive={idle_s}s;
    open_file_cache_valid {idle_s}s;
    client_body_temp_path {directory}/tmp;
    proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp;
    scgi_temp_path {directory}/tmp;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {directory}/files;
    }}
}}
"""


def configuration(directory: Path, port: int, workers: int = 1) -> str:
    """The text of nginx.conf."""
    # Started by root, the worker would become somebody who cannot read our files.
    names = f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
    user = f"user {names};" if os.geteuid() == 0 else ""
    return _CONFIGURATION.format(directory=directory, port=port, user=user, idle_s=_IDLE_S, workers=workers)


class Nginx:
    """One nginx on a port of 127.0.0.1."""

    name = "nginx"
    product = "nginx"
    module = "nginx"

    def __init__(self, *, workers: int = 1) -> None:
        count = "1 worker" if workers == 1 else f"{workers} workers"
        self.about = f"static files, {count}; the client (aiohttp) limits ops/s, look at the server's CPU"
        self._workers = workers
        self.servers: list[Server] = []
        self._directory = Path()
        self._port = 0

    def check(self) -> None:
        """See ``Target.check``."""
        if program("nginx") is None:
            raise LeftOut("nginx is not installed")

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """See ``Target.start``."""
        self._directory = directory / "nginx"
        for folder in ("files", "tmp"):
            (self._directory / folder).mkdir(parents=True)
        (self._port,) = free_ports(1)
        path = self._directory / "nginx.conf"
        path.write_text(configuration(self._directory, self._port, self._workers))
        server = Server("nginx", [program("nginx") or "", "-c", str(path)], directory, cores=cores)
        self.servers.append(server)
        server.wait_for_port(self._port)

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        return {"port": self._port, "files": str(self._directory / "files")}

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        done = subprocess.run([program("nginx") or "", "-v"], capture_output=True, text=True, timeout=10)
        return {"nginx": done.stderr.strip().rpartition("/")[2], "aiohttp": version("aiohttp")}


class NginxClient:
    """See ``bench.load.Client``. ``put`` writes the file itself: it only fills."""

    def __init__(self, session: aiohttp.ClientSession, url: str, files: Path) -> None:
        self._session = session
        self._url = url
        self._files = files

    async def put(self, key: str, data: bytes) -> None:
        """Put a file where nginx finds it."""
        file = self._files / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    async def get(self, key: str) -> bytes:
        """HTTP GET."""
        async with self._session.get(self._url + key) as response:
            if response.status != 200:
                raise BenchError(f"nginx answered {response.status} for {key}")
            return await response.read()

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._session.close()


async def open_client(settings: dict[str, Any]) -> NginxClient:
    """A client with as many connections as there are callers."""
    connector = aiohttp.TCPConnector(limit=settings["inflight"], keepalive_timeout=_IDLE_S)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
    return NginxClient(session, f"http://127.0.0.1:{settings['port']}/", Path(settings["files"]))
