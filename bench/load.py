"""The load generator: one process, one client library, one event loop.

    python -m bench.load TARGET SETTINGS

``TARGET`` is a module of ``bench.targets``, ``SETTINGS`` what its ``open_client``
takes, as JSON.  It obeys lines of JSON on standard input, answers each with one on
standard output, and ends with its input.  Between rounds the loop stands still: the
generators of the other targets have the core to themselves.

All generators use uvloop where it is installed, as ssastore itself does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol

from ssastore.load import Bucket, Load, Round
from ssastore.system import loop_factory


class Client(Bucket, Protocol):
    """A target as this process sees it."""

    async def close(self) -> None:
        """Close all connections."""


async def obey(load: Load, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command; its answer."""
    if "fill" in command:
        await load.fill(Round(**command["fill"]))
        return {}
    return asdict(await load.run(Round(**command["round"])))


def failure(error: BaseException) -> str:
    """An exception in one line; of a group the first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """See the module's docstring."""
    settings = json.loads(sys.argv[2])
    opener = import_module(f"bench.targets.{sys.argv[1]}").open_client
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        client: Client = runner.run(opener(settings))
        load = Load(client)
        print(json.dumps({"loop": type(runner.get_loop()).__module__}), flush=True)
        for line in sys.stdin:
            try:
                answer = runner.run(obey(load, json.loads(line)))
            except Exception as error:
                answer = {"error": failure(error)}
            print(json.dumps(answer), flush=True)
        runner.run(client.close())


if __name__ == "__main__":
    main()
