"""Real processes of etcd for tests, on ports of the loopback address."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ssastore.control.address import EtcdAddress, parse_control
from tests.labs import free_port

_START_S = 20


class Etcd:
    """One member of an etcd; ``start`` after ``stop`` or ``kill`` brings the same one back."""

    def __init__(self, directory: Path, *options: str, name: str = "default", scheme: str = "http") -> None:
        self.directory = directory
        self.name = name
        self._options = options
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.members = f"{name}={self.peer}"
        "All members of its cluster, as etcd is told them."
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the process runs; ``wait`` for an answer."""
        # Short times of Raft are also the shortest period of a lease.
        options = ["--heartbeat-interval", "10", "--election-timeout", "100", "--logger", "zap"]
        options += ["--data-dir", str(self.directory / self.name), "--name", self.name, *self._options]
        options += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        options += ["--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer]
        with open(self.directory / f"{self.name}.log", "ab") as log:
            command = ["etcd", *options, "--initial-cluster", self.members]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it answers."""
        assert self._process
        deadline = time.monotonic() + _START_S
        while True:
            with socket.socket() as probe:
                is_open = probe.connect_ex(("127.0.0.1", self.port)) == 0
            with suppress(urllib.error.URLError, ConnectionError):
                # Who wants TLS or a password answers too.
                if is_open and (self.url.startswith("https") or self.ask("/v3/lease/leases")):
                    return
            log = self.directory / f"{self.name}.log"
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "etcd does not answer"
            time.sleep(0.02)

    def restart(self) -> None:
        self.start()
        self.wait()

    def send(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; no error when it is not running."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(_START_S)
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def address(self, prefix: str = "") -> EtcdAddress:
        return address_of(f"etcd://127.0.0.1:{self.port}{prefix}")

    def ask(self, path: str, **body: object) -> Any:
        """An answer of the gateway, asked without our client."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    async def leases(self) -> list[int]:
        answer = await asyncio.to_thread(self.ask, "/v3/lease/leases")
        return [int(lease["ID"]) for lease in answer.get("leases", [])]

    async def compact(self, revision: int) -> None:
        await asyncio.to_thread(lambda: self.ask("/v3/kv/compaction", revision=str(revision), physical=True))


def address_of(text: str) -> EtcdAddress:
    found = parse_control(text)
    assert found
    return found


def require_etcd() -> None:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed (Debian: etcd-server)")


@contextmanager
def running_etcd(directory: Path, *options: str) -> Iterator[Etcd]:
    """An etcd that is gone at the end; the test skips where there is none."""
    require_etcd()
    etcd = Etcd(directory, *options)
    try:
        etcd.restart()
        yield etcd
    finally:
        etcd.kill()
