"""What is measured: ssastore and its peers, one module each.

A module has its servers (``Target``), which live in the process of the run, and
``open_client(settings)``, which is called in the load generator.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol


class Target(Protocol):
    """Servers of one product in one configuration."""

    name: str
    "In tables and results."

    module: str
    "Name of the module in ``bench.targets`` that has its client."

    about: str
    "Configuration in a few words, for the report."

    def check(self) -> None:
        """Raises LeftOut when something is not installed."""

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Start the servers and wait until they answer.

        Raises:
            LeftOut: the machine does not allow it.
            BenchError: they did not start.
        """

    def pids(self) -> list[int]:
        """The processes that were started; their descendants count as well."""

    def settings(self) -> dict[str, Any]:
        """What ``open_client`` needs to know."""

    def on_client_host(self, argv: list[str]) -> list[str]:
        """The command that runs ``argv`` where clients of this target are."""

    def versions(self) -> dict[str, str]:
        """Of server and client."""

    def stop(self) -> None:
        """End all processes. May be called again, and after ``start`` has failed."""
