"""Real labs for tests: ``ssastore up`` as a subprocess, as a user would start it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssastore.lab.status import fetch, health_of
from tests.shares import SHARES, own_share

PYTHON = sys.executable


PORTS = range(20_000, 32_000, SHARES)
"Below those that the kernel gives to outgoing connections: one could be taken before its user listens."


_drawn: deque[int] = deque(maxlen=100)
"Ports that who drew them may not have bound yet."


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, nor a process of tests beside this one will take."""
    while True:
        port = random.choice(PORTS) + (own_share() or 0)
        if port in _drawn:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _drawn.append(port)
            return port


@dataclass
class RunningLab:
    """A lab with a state directory of its own, so that it cannot meet a user's."""

    name: str
    data: Path
    environment: dict[str, str]
    s3_port: int
    admin_port: int

    def cli(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run an ssastore command against this lab."""
        return subprocess.run(
            [PYTHON, "-m", "ssastore", "--context", self.name, *arguments],
            env=self.environment,
            check=check,
            text=True,
            capture_output=True,
            timeout=options.pop("timeout", 100),
            **options,
        )

    def start(self, *command: str, host: str = "client") -> subprocess.Popen[str]:
        """A command that runs on a host of the lab, with pipes to talk to it."""
        entered = [PYTHON, "-m", "ssastore", "--context", self.name, "exec", "--host", host, "--"]
        return subprocess.Popen(
            [*entered, *command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def python(self, script: str, *arguments: str, host: str = "client", **options: Any) -> str:
        """Run a Python script on a host of the lab; what it prints."""
        command = [PYTHON, "-c", script, *arguments]
        done = self.cli("exec", "--host", host, "--", *command, check=False, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        """As ``ssastore status --json`` tells, without a process for each look."""
        _, report = fetch(self._context()["admin_port"], "/status")
        return report | {"context": self.name, "health": health_of(report)}

    def aws(self) -> dict[str, str]:
        """Environment for S3 tools."""
        variables: dict[str, str] = json.loads(self.cli("s3", "env", "--json").stdout)
        return self.environment | variables

    def worker_pid(self, node: str, index: int = 0) -> int:
        report = next(found for found in self.status()["nodes"] if found["name"] == node)
        pid: int = report["workers"][index]["pid"]
        return pid

    @property
    def pid(self) -> int:
        """Of the process that made it, with the router and the embedded control store."""
        found: int = self._context()["pid"]
        return found

    def _context(self) -> Any:
        context = Path(self.environment["XDG_STATE_HOME"]) / "ssastore" / "contexts" / f"{self.name}.json"
        return json.loads(context.read_text())

    def stop(self) -> None:
        self.cli("down")


def start_lab(directory: Path, name: str, *options: str) -> RunningLab:
    """Start a lab with its data and state below ``directory``; of one replica unless ``options`` say more."""
    if "--replicas" not in options:
        options = (*options, "--replicas", "1")
    environment = os.environ | {"XDG_STATE_HOME": str(directory / "state")}
    environment.pop("SSASTORE_URL", None)
    lab = RunningLab(name, directory / "data", environment, free_port(), free_port())
    ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
    command = ["up", "--name", name, "--data", str(lab.data), *ports, "--detach", *options]
    done = lab.cli(*command, check=False)
    assert done.returncode == 0, done.stderr
    return lab


@contextmanager
def running_lab(directory: Path, name: str, *options: str) -> Iterator[RunningLab]:
    """A lab that is gone at the end."""
    lab = start_lab(directory, name, *options)
    try:
        yield lab
    finally:
        lab.cli("down", check=False)
