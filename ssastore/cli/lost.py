"""Whether nodes that somebody calls lost are: ``plan --lost`` and ``apply`` look before they believe it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Collection

    from ssastore.lab.context import Context

accept_alive_option = click.option(
    "--accept-alive",
    is_flag=True,
    help="Also a node that answers, or has its lease: what it has counts no more from the first step on.",
)

_POLL_S = 0.5
_LEASE_SPARE_MS = 5000
"What the end of a lease may take longer: to be seen by the control store, and to be asked for."


def require_lost(found: Context, names: Collection[str], *, accept_alive: bool) -> None:
    """Return when nodes are gone; of one that does not answer the end of its lease is waited for.

    Before the lab is entered.

    Raises:
        ConfigError: one answers, or keeps its lease.
        Unavailable: the lab's gateway does not say.
    """
    from ssastore.errors import ConfigError
    from ssastore.lab.status import fetch
    from ssastore.limits import LEASE_MS

    if not names or accept_alive:
        return
    deadline = time.monotonic() + (LEASE_MS + _LEASE_SPARE_MS) / 1000
    is_told = False
    while True:
        _, report = fetch(found.admin_port, "/status")
        answering, leased = who_is_there(report, names)
        if answering or (leased and time.monotonic() > deadline):
            what = f"{answering[0]} answers" if answering else f"{leased[0]} has a lease"
            name = (answering or leased)[0]
            raise ConfigError(
                f"{what}: it is not lost. Move its slices away with plan --drain {name}, or end it first; "
                "with --accept-alive what it has counts no more"
            )
        if not leased:
            return
        if not is_told:
            print(f"{', '.join(leased)} does not answer; waiting for the end of its lease", file=sys.stderr)
            is_told = True
        time.sleep(_POLL_S)


def who_is_there(report: dict[str, Any], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Of some nodes those that answer, and the others that have a lease. Who owns nothing loses nothing."""
    nodes = [node for node in report["nodes"] if node["name"] in names and node["slices"]]
    answering = [node["name"] for node in nodes if any(_answers(worker) for worker in node["workers"])]
    return answering, [node["name"] for node in nodes if node["alive"] and node["name"] not in answering]


def _answers(worker: dict[str, Any]) -> bool:
    return bool(worker["ok"] and not worker.get("idle"))
