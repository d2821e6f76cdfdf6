"""The processes of a lab: started on its hosts, watched, ended in order or at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssastore.errors import EnvironmentProblem, Unavailable
from ssastore.lab.namespaces import spawn_in
from ssastore.system import die_with_parent

_TOLD_LINES = 5


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of a loopback address that nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """By name. Each writes a log of its own into ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, argv: Sequence[str], namespace: int | None, pass_fds: tuple[int, ...] = ()
    ) -> None:
        """Start a process, in a network namespace if there is one."""
        with open(self._directory / f"{name}.log", "ab") as log:
            # A session of its own: Ctrl-C is for us, who stop the others in order.
            options: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True}
            options |= {"stdin": subprocess.DEVNULL, "pass_fds": pass_fds}
            if namespace is not None:
                process = spawn_in(namespace, argv, **options)
            else:  # preexec_fn for the reason that spawn_in has.
                process = subprocess.Popen(argv, preexec_fn=die_with_parent, **options)  # noqa: PLW1509
        self._running[name] = process

    def is_running(self, name: str) -> bool:
        """Whether it was started and has not ended."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def has_ended(self, name: str) -> bool:
        """Whether it was started and has ended."""
        return name in self._running and not self.is_running(name)

    def early_end(self, name: str) -> EnvironmentProblem:
        """What to raise when a process ended while it was starting."""
        log = self._directory / f"{name}.log"
        last = "\n".join(log.read_text(errors="replace").splitlines()[-_TOLD_LINES:])
        return EnvironmentProblem(f"{name} ended while starting; the end of {log}:\n{last}")

    def complaints(self) -> list[str]:
        """The last line of each log that says why a process cannot do its work."""
        logs = [self._directory / f"{name}.log" for name in self._running]
        lines = [path.read_text(errors="replace").splitlines() for path in logs if path.exists()]
        found = [[line for line in of_one if " CRITICAL " in line][-1:] for of_one in lines]
        return [line for of_one in found for line in of_one]

    async def first_child(self, name: str, within_s: float) -> None:
        """Until the process has begun one of its own.

        Raises:
            EnvironmentProblem: it ended before.
            Unavailable: not within that time.
        """
        deadline = time.monotonic() + within_s
        while self.has_ended(name) or not _children(self._running[name].pid):
            if self.has_ended(name):
                raise self.early_end(name)
            if time.monotonic() > deadline:
                raise Unavailable(f"{name} has begun no worker after {within_s:g} s")
            await asyncio.sleep(0.05)

    async def first_death(self) -> str:
        """The name of the first that ends."""
        while True:
            for name in self._running:
                if self.has_ended(name):
                    return name
            await asyncio.sleep(0.1)

    async def watch(self) -> None:
        """Say which process ended, for ever; one that was ended on purpose stays down."""
        reported: set[subprocess.Popen[bytes]] = set()
        while True:
            for name, process in self._running.items():
                if process.poll() is not None and process not in reported:
                    reported.add(process)
                    print(f"ssastore: {name} ended with code {process.returncode}", file=sys.stderr)
            await asyncio.sleep(0.5)

    async def end(self, names: Sequence[str], patience_s: float) -> None:
        """Ask them to end, and end them when they have not after that time."""
        processes = [self._running[name] for name in names if name in self._running]
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

    def reload(self, name: str) -> None:
        """Let it read its settings again, in the way of daemons."""
        self._running[name].send_signal(signal.SIGHUP)

    def kill(self, name: str) -> None:
        """End it and its children as a power switch would: none of them has a word to say."""
        process = self._running[name]
        os.kill(process.pid, signal.SIGSTOP)  # Else it starts its children again.
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
