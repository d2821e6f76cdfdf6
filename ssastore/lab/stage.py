"""A lab under load that is changed step by step, and what its clients noticed of each step.

Of ``lab.moves`` and ``lab.demo``.  Whatever an operator does here is a command of the command line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssastore.judge.history import Op
from ssastore.judge.verdicts import judge, read_history
from ssastore.lab.load import Settings
from ssastore.lab.movesreport import Phase, Result, Row, row_of

_APPLY_S = 1_800
_LAST_CALLS_S = 120
_AS_ELSEWHERE = ("nice", "-n", "10")
"""Operators' commands run on another machine than the cluster: here they give way to it. A plan is a second
of computing, and with two cores clients would wait for that rather than for slices that move."""


class Stage:
    """A lab, and the phases so far."""

    def __init__(
        self, directory: Path, context: str, say: Callable[[str], None], *, rate: str = "gentle"
    ) -> None:
        """``directory`` is for what the load leaves; ``rate`` as that of ``ssastore apply``."""
        self.directory = directory
        self.context = context
        self.phases: list[Phase] = []
        self._say = say
        self._rate = rate

    def cli(self, *arguments: str) -> str:
        """An ssastore command against the lab; its output. Raises SystemExit, with what it said."""
        command = [*_AS_ELSEWHERE, sys.executable, "-m", "ssastore", "--context", self.context, *arguments]
        # What starts the cluster's own processes gives them its priority.
        command = command[len(_AS_ELSEWHERE) :] if arguments[0] == "up" else command
        done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, timeout=_APPLY_S)
        if done.returncode:
            raise SystemExit(f"ssastore {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout

    def done(self, *arguments: str) -> None:
        """The same, when nobody wants to read it."""
        self.cli(*arguments)

    def inside(self, *arguments: str) -> list[str]:
        """A Python module on the client host, as a command."""
        inside = [sys.executable, "-m", "ssastore", "--context", self.context, "exec", "--"]
        return [*inside, sys.executable, "-m", *arguments]

    def ask(self, *arguments: str) -> str:
        """What a command of ``lab.moves`` prints there. Raises SystemExit: it failed, and said why."""
        done = subprocess.run(
            [*_AS_ELSEWHERE, *self.inside("ssastore.lab.moves", *arguments)],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
        )
        if done.returncode:  # What it was is said above.
            raise SystemExit(f"`{' '.join(arguments)}` on the client host ended with {done.returncode}")
        return done.stdout.strip()

    def planned(self, *arguments: str, meanwhile: Callable[[], None] | None = None) -> int:
        """Plan and apply; how many slices went."""
        path = str(self.directory / "plan.json")
        self.cli("plan", *arguments, "--out", path)
        if meanwhile is not None:
            self.cli("apply", path, "--rate", self._rate, "--no-wait")
            meanwhile()
        return int(json.loads(self.cli("apply", path, "--rate", self._rate, "--json"))["done"])

    def phase(self, name: str, work: Callable[[], int | None]) -> None:
        """Do something, and note when."""
        self._say(f"{name} ...")
        began = time.monotonic_ns()
        moves = work() or 0
        self.phases.append(Phase(name, began, time.monotonic_ns(), moves))

    @contextmanager
    def load(self, **settings: Any) -> Iterator[Load]:
        """Clients that work until ``Load.end``, as ``lab.load.Settings`` has it; killed if that never is."""
        history, stop = self.directory / "history", self.directory / "stop"
        stop.write_text("")
        chosen = Settings(str(history), str(stop), **settings)
        command = self.inside("ssastore.lab.load", json.dumps(asdict(chosen)))
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Load(process, history, stop)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class Load:
    """Clients at work."""

    def __init__(self, process: subprocess.Popen[str], history: Path, stop: Path) -> None:
        self._process = process
        self._stop = stop
        self._told: dict[str, Any] = {}
        self.history = str(history)

    def calls(self) -> list[Op]:
        """All calls that were answered so far."""
        return [op for ops in read_history(self.history).values() for op in ops]

    def row(self, phase: Phase) -> Row:
        """What they noticed of a phase."""
        return row_of(phase, self.calls())

    def end(self) -> None:
        """Let them read everything that they wrote, and end. Raises SystemExit: something went wrong."""
        self._stop.write_text("stop")
        output, _ = self._process.communicate(timeout=_LAST_CALLS_S)
        if self._process.returncode:
            code = self._process.returncode
            raise SystemExit(f"the load ended with {code}: see what it said above")
        self._told = json.loads(output)

    def result(self, phases: list[Phase], objects: int, wrong_objects: int) -> Result:
        """The judgement, after the end. ``wrong_objects`` of the ``objects`` are not as they were stored."""
        histories = read_history(self.history)
        calls = [op for ops in histories.values() for op in ops]
        judged = judge(histories)
        return Result(
            objects,
            [row_of(phase, calls) for phase in phases],
            self._told["answers"],
            self._told["errors"],
            wrong_objects,
            judged.violations,
            judged.undecided,
            judged.lost,
        )
