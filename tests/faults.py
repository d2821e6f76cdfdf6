"""Faults for labs of real processes: kill -9, pauses, cut and lossy links; and what is judged after them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssastore.lab.load import Settings
from tests.labs import PYTHON, RunningLab

READY_S = 15


class Nodes:
    """The processes of a lab's nodes. A node is its supervisor and all workers of it."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._started: list[subprocess.Popen[str]] = []
        self.names = [node["name"] for node in lab.status()["nodes"]]

    def pids(self, name: str) -> list[int]:
        """Supervisor first; nothing when the node is down."""
        config = self.config(name).encode()
        lines = {pid: line for pid, line in command_lines() if config in line}
        supervisors = [pid for pid, line in lines.items() if b"node" in line.split(b"\0")]
        workers = [pid for pid in lines if pid not in supervisors]
        return supervisors + workers

    def config(self, name: str) -> str:
        return str(self._lab.data / "config" / f"{name}.toml")

    def kill(self, name: str) -> None:
        """Kill -9 of all its processes; the supervisor goes first, so that it starts nothing again."""
        self.signal(name, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while self.pids(name):
            assert time.monotonic() < deadline, f"{name} does not die"
            time.sleep(0.01)

    def signal(self, name: str, number: signal.Signals) -> None:
        for pid in self.pids(name):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def start(self, name: str) -> None:
        """Start a node that is down, as an operator would: the same command on the same host."""
        command = [PYTHON, "-m", "ssastore", "--context", self._lab.name, "exec", "--host", name, "--"]
        log = open(self._lab.data / "log" / f"{name}.log", "ab")  # noqa: SIM115  # handed to the process
        with log:
            self._started.append(
                subprocess.Popen(
                    [*command, PYTHON, "-m", "ssastore", "node", "--config", self.config(name)],
                    env=self._lab.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
            )

    def stop_started(self) -> None:
        """End what ``start`` began: the lab does not know of it."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            process.wait(20)


def command_lines() -> Iterator[tuple[int, bytes]]:
    """Of all processes but zombies."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line:
                yield int(entry.name), line


@contextmanager
def nodes_of(lab: RunningLab) -> Iterator[Nodes]:
    """The nodes of a lab; those that were started again are ended before the lab is."""
    nodes = Nodes(lab)
    try:
        yield nodes
    finally:
        for name in nodes.names:
            nodes.signal(name, signal.SIGCONT)
        nodes.stop_started()


# -- links ------------------------------------------------------------------------------------------


def own_address(lab: RunningLab, host: str) -> str:
    """A host's own address: what it sends from."""
    script = (
        "import json, subprocess; found = json.loads(subprocess.check_output("
        "['ip', '-j', '-6', 'addr', 'show', 'dev', 'eth0', 'scope', 'global']));"
        "print(found[0]['addr_info'][0]['local'])"
    )
    return lab.python(script, host=host).strip()


class Links:
    """Packet filters on the hosts of a lab, with nft. All of one change come at once."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._address: dict[str, str] = {}
        self._filtered: set[str] = set()

    def address(self, host: str) -> str:
        if host not in self._address:
            self._address[host] = own_address(self._lab, host)
        return self._address[host]

    def cut_one_way(self, *pairs: tuple[str, str]) -> None:
        """Drop every packet from one host to another, those of connections the other way included."""
        rules: dict[str, list[str]] = {}
        for sender, receiver in pairs:
            rules.setdefault(sender, []).append(f"output ip6 daddr {self.address(receiver)} drop")
            rules.setdefault(receiver, []).append(f"input ip6 saddr {self.address(sender)} drop")
        self._filter(rules)

    def split(self, one: Sequence[str], other: Sequence[str]) -> None:
        """Cut every link between two sides."""
        pairs = list(itertools.product(one, other))
        self.cut_one_way(*pairs, *[(receiver, sender) for sender, receiver in pairs])

    def lose(self, percent: int, hosts: Sequence[str]) -> None:
        """Lose that share of the TCP packets that arrive at hosts, at random."""
        rule = f"input meta l4proto tcp numgen random mod 100 < {percent} drop"
        self._filter({host: [rule] for host in hosts})

    def heal(self) -> None:
        """All filters away."""
        self._nft(dict.fromkeys(sorted(self._filtered), "delete table inet faults"))
        self._filtered.clear()

    def _filter(self, rules: dict[str, list[str]]) -> None:
        assert not self._filtered, "heal first"
        self._filtered = set(rules)
        chains = "".join(
            f"chain {name} {{ type filter hook {name} priority 0; policy accept; }}; "
            for name in ("input", "output")
        )
        table = f"table inet faults {{ {chains} }}; "
        added = {host: "; ".join(f"add rule inet faults {rule}" for rule in rules[host]) for host in rules}
        self._nft({host: table + found for host, found in added.items()})

    def _nft(self, commands: dict[str, str]) -> None:
        # Processes that wait for a line: to start one takes longer than the change may.
        waiting = [
            self._lab.start("sh", "-c", 'read go && exec nft "$1"', "sh", command, host=host)
            for host, command in commands.items()
        ]
        time.sleep(1)
        for process in waiting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in waiting:
            process.communicate()
            assert process.returncode == 0, "nft refused"


# -- load ------------------------------------------------------------------------------------------


class RunningLoad:
    """A process of clients on a host of the lab (``ssastore.lab.load``)."""

    def __init__(self, lab: RunningLab, directory: Path, *, host: str = "client", **settings: Any) -> None:
        name = settings.setdefault("name", host)
        self._stop = directory / f"{name}.stop"
        self._stop.write_text("")
        self.settings = Settings(str(directory / f"{name}.history"), str(self._stop), **settings)
        command = [PYTHON, "-m", "ssastore", "--context", lab.name, "exec", "--host", host, "--"]
        self._process = subprocess.Popen(
            [*command, PYTHON, "-m", "ssastore.lab.load", json.dumps(asdict(self.settings))],
            env=lab.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "started"

    def stop(self, wait_s: float = 120) -> dict[str, Any]:
        """End the clients; the numbers that they bring home."""
        self._stop.write_text("stop")
        output, _ = self._process.communicate(timeout=wait_s)
        assert self._process.returncode == 0
        found: dict[str, Any] = json.loads(output)
        return found

    def abandon(self) -> None:
        """After a failure elsewhere."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@contextmanager
def load_on(lab: RunningLab, directory: Path, **settings: Any) -> Iterator[RunningLoad]:
    """Clients that are gone at the end."""
    load = RunningLoad(lab, directory, **settings)
    try:
        yield load
    finally:
        load.abandon()
