"""A load generator, seen from the run: start it, tell it what to do, wait for the answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.servers import START_S, Server
from bench.targets import Target
from ssastore.load import Measured, Round

_FILL_S = 120
_GRACE_S = 30
"Beyond the length of a round, for the operations that were in flight at its end."


class Generator:
    """The one client process of a target."""

    def __init__(self, target: Target, directory: Path, *, inflight: int, cores: Collection[int]) -> None:
        """Start it and wait until its client is open. Raises BenchError.

        Args:
            inflight: the most callers that it will have.
            cores: where it may run; empty for everywhere.
        """
        settings = json.dumps({**target.settings(), "inflight": inflight})
        argv = target.on_client_host([sys.executable, "-m", "bench.load", target.module, settings])
        self._target = target.name
        self._server = Server(
            f"load-{target.name}",
            argv,
            directory,
            cores=cores,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.loop: str = self._answer(START_S)["loop"]
        except BaseException:
            self.stop()
            raise

    def fill(self, wanted: Round) -> None:
        """Write what the GETs of a round will read. Raises BenchError."""
        self._ask({"fill": asdict(wanted)}, _FILL_S)

    def run(self, wanted: Round) -> Measured:
        """One round. Raises BenchError."""
        found = Measured(**self._ask({"round": asdict(wanted)}, wanted.seconds + _GRACE_S))
        if found.failed:
            raise BenchError(
                f"{self._target}: {found.failed} operations failed, the first one: {found.reason}"
            )
        return found

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        pipe = self._server.process.stdin
        assert pipe is not None
        self._server.check()
        pipe.write(json.dumps(command).encode() + b"\n")
        pipe.flush()
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._server.answer(timeout_s)
        if "error" in answer:
            raise BenchError(f"{self._target}: {answer['error']}\n{self._server.log_end()}")
        return answer
