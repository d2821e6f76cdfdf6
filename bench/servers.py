"""Server processes of a run: started on loopback or in a lab, stopped by pid, never left behind."""

from __future__ import annotations

import ctypes
import json
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError

START_S = 30
STOP_S = 10

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.05
_LOG_LINES_SHOWN = 8
_PORTS = range(20_000, 30_000)
"Below what Linux hands out to outgoing connections, and room above for Redis' second port."

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"Where servers are installed; often not on the path of an ordinary user."

_libc = ctypes.CDLL(None, use_errno=True)


def program(name: str) -> str | None:
    """Path of an installed program, or None."""
    folders = [os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS]
    return shutil.which(name, path=os.pathsep.join(folders))


def free_ports(count: int, *, also: int = 0) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; with ``also``, neither on the port that much higher."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if _is_free(port) and (not also or _is_free(port + also)):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise BenchError(f"no {count} free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def waiting_for(what: str, timeout_s: float = START_S) -> Iterator[None]:
    """Pause between looks at something, until the caller breaks out. Raises BenchError after the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield
        time.sleep(_POLL_S)
    raise BenchError(f"{what} was not ready after {timeout_s:g} s")


class Server:
    """A process of ours in a session of its own: Ctrl-C reaches us, and we stop it in order."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        *,
        cores: Collection[int] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        """Start it.

        Args:
            name: for messages and the name of its log.
            argv: command and arguments.
            directory: where the log goes.
            cores: where it may run; empty for everywhere.
            stdin: as for ``subprocess.Popen``.
            stdout: likewise; the log by default.
        """
        self.name = name
        self._log = directory / f"{name}.log"
        begin = _Begin(frozenset(cores), os.getpid())
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=Path(__file__).parents[1],
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
                # There is no other way to ask for what _Begin does, and the run has one thread.
                preexec_fn=begin,  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raises BenchError, with the end of its log, when it has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with code {self.process.returncode}\n{self.log_end()}")

    def answer(self, timeout_s: float) -> Any:
        """The next line of JSON that it prints. Raises BenchError: none came in time, or it has ended."""
        pipe = self.process.stdout
        assert pipe is not None
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise BenchError(f"{self.name} did not answer in {timeout_s:.0f} s")
        # A line is written at once and is shorter than a pipe's buffer, so it comes whole.
        line = pipe.readline()
        if not line:
            raise BenchError(f"{self.name} ended\n{self.log_end()}")
        return json.loads(line)

    def log_end(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_LINES_SHOWN:])

    def wait_for_port(self, port: int, timeout_s: float = START_S) -> None:
        """Until it listens on a port of 127.0.0.1. Raises BenchError."""
        for _ in waiting_for(self.name, timeout_s):
            self.check()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                continue
            return

    def stop(self) -> None:
        """End it, by force when it does not within STOP_S. May be called again."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                # Its session holds nothing but what it started.
                os.killpg(self.pid, signal.SIGKILL)
                self.process.wait()


class Foreign(Server):
    """A process of somebody else: its figures are read, and it is left alone."""

    def __init__(self, pid: int) -> None:
        self.name = f"process {pid}"
        self._pid = pid

    @property
    def pid(self) -> int:
        return self._pid

    def check(self) -> None:
        """Raises BenchError when it has ended."""
        if not Path(f"/proc/{self._pid}").exists():
            raise BenchError(f"{self.name} has ended")

    def stop(self) -> None:
        """It is not ours to end."""


class _Begin:
    """What a new process does before it becomes the server."""

    def __init__(self, cores: frozenset[int], parent: int) -> None:
        self._cores = cores
        self._parent = parent

    def __call__(self) -> None:
        # A benchmark that was killed must leave nothing behind, and only the kernel can see to that.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self._parent:
            os._exit(1)
        if self._cores:
            os.sched_setaffinity(0, self._cores)
