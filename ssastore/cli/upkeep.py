"""``scrub``: read, compare and repair every copy now."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import click

_POLL_S = 0.2


@click.command("scrub")
@click.option("--wait", "is_waiting", is_flag=True, help="Show the progress, and the result at the end.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def scrub_command(context: str | None, is_waiting: bool, as_json: bool) -> int:
    """Read and compare every copy, and repair what is rotten or missing.

    With --wait: exit code 0 when all is healthy, 1 when copies are missing, 5 when not all could be asked.
    """
    from ssastore.lab.context import find
    from ssastore.lab.status import HEALTHY, fetch, health_of, workers_of

    found = find(context)
    asked_ms = int(time.time() * 1000)
    _, begun = fetch(found.admin_port, "/scrub", method="POST")
    if not is_waiting:
        print(json.dumps(begun) if as_json else f"begun by {begun['started']} workers{_silent(begun)}")
        return 5 if begun["silent"] else 0
    report = _follow(found.admin_port, asked_ms, begun["started"], is_shown=not as_json)
    workers = [worker for worker in workers_of(report) if "scrub" in worker]
    sums = {
        name: sum(worker["scrub"]["last"][name] for worker in workers if worker["scrub"]["last"])
        for name in ("records", "bytes", "rotten", "missing", "stale", "repaired", "unrepaired", "collected")
    }
    health = health_of(report) if not begun["silent"] else "not all workers answer"
    if as_json:
        print(json.dumps({"health": health, "silent": begun["silent"], **sums}))
    else:
        print(f"{health}{_silent(begun)}")
        print(
            f"  {sums['records']} records, {sums['bytes'] / 2**20:.1f} MiB read; {sums['rotten']} rotten, "
            f"{sums['missing']} missing, {sums['stale']} stale; {sums['repaired']} repaired, "
            f"{sums['unrepaired']} not; {sums['collected']} collected"
        )
    if health == HEALTHY:
        return 0
    return 1 if "missing" in health else 5


def _silent(begun: dict[str, Any]) -> str:
    return f"; no answer from {', '.join(begun['silent'])}" if begun["silent"] else ""


def _follow(admin_port: int, asked_ms: int, started: int, *, is_shown: bool) -> dict[str, Any]:
    """Wait until as many workers as have begun have finished a pass that began after it was asked for."""
    from ssastore.lab.status import fetch, workers_of

    with ExitStack() as stack:
        bar = None
        if is_shown and sys.stderr.isatty():
            bar = stack.enter_context(click.progressbar(length=100, label="scrub", file=sys.stderr))
        while True:
            _, report = fetch(admin_port, "/status")
            shares = [_share(worker, asked_ms) for worker in workers_of(report)]
            if bar is not None:
                bar.update(max(0, int(100 * sum(shares) / max(1, started)) - bar.pos))
            if shares.count(1.0) >= started:
                return dict(report)
            time.sleep(_POLL_S)


def _share(worker: dict[str, Any], asked_ms: int) -> float:
    """How much of a pass that began after it was asked for a worker has done: 1.0 is all of it."""
    scrub = worker.get("scrub")
    if scrub is None:
        return 0.0
    last, current = scrub["last"], scrub["pass"]
    if last is not None and last["began_ms"] >= asked_ms:
        return 1.0
    if current is None or current["began_ms"] < asked_ms:
        return 0.0
    done: float = current["slices_done"] / max(1, current["slices"])
    return min(0.99, done)
