"""What is measured: ssastore and its peers, one module each.

A module has its servers (``Target``), which live in the process of the run, and
``open_client(settings)``, which is called in the load generator.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from bench.servers import Server


class Target(Protocol):
    """Servers of one product in one configuration."""

    name: str
    "In tables and results."

    product: str
    "What ``--only`` calls it."

    module: str
    "Name of the module in ``bench.targets`` that has its client."

    about: str
    "Configuration in a few words, for the report."

    servers: list[Server]
    """What ``start`` has started so far; the run stops them, whether it succeeded or not. Their CPU time and
    that of their descendants is the target's."""

    def check(self) -> None:
        """Raises LeftOut when something is not installed."""

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Start the servers, and wait until they answer.

        Raises:
            LeftOut: the machine does not allow it.
            BenchError: they did not start.
        """

    def settings(self) -> dict[str, Any]:
        """What ``open_client`` needs to know."""

    def on_client_host(self, argv: list[str]) -> list[str]:
        """The command that runs ``argv`` where clients of this target are."""

    def versions(self) -> dict[str, str]:
        """Of server and client."""
