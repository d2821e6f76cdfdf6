"""``scrub``: read, compare and repair every copy now."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

_POLL_S = 0.2
_SILENT_S_MAX = 30.0
"""How long a worker that has begun may be silent, as its process may be starting again; and the gateway,
which gets no processor while others are busy. A pass may take hours: who waits for it is patient."""

_FIGURES = (
    "records",
    "bytes",
    "rotten",
    "missing",
    "stale",
    "repaired",
    "unrepaired",
    "elsewhere",
    "unheard",
    "collected",
    "not_compared",
)


@click.command("scrub")
@click.option("--wait", "is_waiting", is_flag=True, help="Show the progress, and the result at the end.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def scrub_command(context: str | None, is_waiting: bool, as_json: bool) -> int:
    """Read and compare every copy, and repair what is rotten or missing.

    With --wait: exit code 0 when all is healthy, 1 when copies are not good, 5 when not everything could be
    read and compared. A pass goes on when the waiting is interrupted; `ssastore status` shows its result.
    """
    from ssastore.errors import ConfigError
    from ssastore.lab.context import find
    from ssastore.lab.status import HEALTHY, NOT_GOOD, fetch, health_of

    found = find(context)
    token = found.admin_token()
    status, begun = fetch(found.admin_port, "/scrub", method="POST", timeout_s=_SILENT_S_MAX, token=token)
    if status != 200:
        raise ConfigError(f"the gateway says: {begun.get('error', status)}")
    silent = begun["silent"]
    if not is_waiting:
        said = f"begun by {len(begun['passes'])} workers; `ssastore status` shows what comes of it"
        print(json.dumps(begun) if as_json else f"{said}{_no_answer(silent)}")
        return 5 if silent else 0
    began_s = time.monotonic()
    report, lost = _Wait(found.admin_port, begun["passes"]).follow(is_shown=not as_json)
    took_s = time.monotonic() - began_s
    silent = [*silent, *lost]
    health = health_of(report)
    if silent and NOT_GOOD not in health:
        health = "not all workers answer"
    result = _result(report, begun["passes"])
    if as_json:
        print(json.dumps({"health": health, "silent": silent, "seconds": round(took_s, 1), **result}))
    else:
        _show(health, silent, took_s, result)
    if health == HEALTHY:
        return 0
    return 1 if NOT_GOOD in health else 5


class _Wait:
    """Waits for the passes with these numbers, by worker."""

    def __init__(self, admin_port: int, passes: dict[str, int]) -> None:
        self._admin_port = admin_port
        self._wanted = dict(passes)
        self._heard_s = dict.fromkeys(passes, time.monotonic())

    def follow(self, *, is_shown: bool) -> tuple[dict[str, Any], list[str]]:
        """The report at the end, and who has stopped answering."""
        with ExitStack() as stack:
            tell: Callable[[float, str], None] = lambda share, text: None  # noqa: E731
            if is_shown and sys.stderr.isatty():
                tell = _bar(stack)
            while True:
                found = self._ask()
                now_s = time.monotonic()
                self._heard_s.update(dict.fromkeys(found, now_s))
                self._renew(found)
                shares = [self._share(name, found.get(name)) for name in self._wanted]
                tell(sum(shares) / max(1, len(shares)), _doing(found))
                lost = [name for name, at_s in self._heard_s.items() if now_s - at_s > _SILENT_S_MAX]
                waited_for = [s for s, n in zip(shares, self._wanted, strict=True) if n not in lost]
                if all(share == 1.0 for share in waited_for):
                    return self._report, lost
                time.sleep(_POLL_S)

    def _ask(self) -> dict[str, dict[str, Any]]:
        """What the workers say of their passes. Those that do not answer are left out."""
        from ssastore.errors import Unavailable
        from ssastore.lab.status import fetch

        try:
            _, self._report = fetch(self._admin_port, "/status", timeout_s=_SILENT_S_MAX)
        except Unavailable:
            if max(self._heard_s.values(), default=0.0) < time.monotonic() - _SILENT_S_MAX:
                raise
            return {}
        return scrubs_of(self._report)

    def _renew(self, found: dict[str, dict[str, Any]]) -> None:
        """A worker that was started again counts its passes from one, and begins one by itself."""
        for name, scrub in found.items():
            if name in self._wanted and _passes_of(scrub) < self._wanted[name] - 1:
                self._wanted[name] = 1

    def _share(self, name: str, scrub: dict[str, Any] | None) -> float:
        """How much of the pass that is waited for a worker has done: 1.0 is all of it."""
        if scrub is None:
            return 0.0
        last, current = scrub["last"], scrub["pass"]
        if last is not None and last["number"] >= self._wanted[name]:
            return 1.0
        if current is None or current["number"] < self._wanted[name]:
            return 0.0
        done: float = current["slices_done"] / max(1, current["slices"])
        return min(0.99, done)


def scrubs_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each worker that answers says of its scrub, by the worker's name."""
    return {
        f"{node['name']} worker {worker['worker']}": worker["scrub"]
        for node in report["nodes"]
        for worker in node["workers"]
        if worker["ok"] and "scrub" in worker
    }


def _passes_of(scrub: dict[str, Any]) -> int:
    return max((scrub[part]["number"] for part in ("last", "pass") if scrub[part] is not None), default=0)


def _bar(stack: ExitStack) -> Callable[[float, str], None]:
    bar = stack.enter_context(
        click.progressbar(length=100, label="scrub", file=sys.stderr, item_show_func=lambda text: text)
    )

    def tell(share: float, text: str) -> None:
        bar.update(max(0, int(100 * share) - bar.pos), text)

    return tell


def _doing(found: dict[str, dict[str, Any]]) -> str:
    """What the running passes are at, for the progress bar."""
    running = [scrub["pass"] for scrub in found.values() if scrub["pass"] is not None]
    mib = sum(progress["bytes"] for progress in running) / 2**20
    bad = sum(progress["rotten"] + progress["missing"] + progress["stale"] for progress in running)
    again = sum(progress["looking_again"] for progress in running)
    parts = [f"{mib:.0f} MiB read", f"{bad} bad copies" if bad else "", f"{again} in doubt" if again else ""]
    return ", ".join(filter(None, parts))


def _result(report: dict[str, Any], passes: dict[str, int]) -> dict[str, Any]:
    """Figures of the last pass of all workers, why copies are left, and each worker's part."""
    scrubs = {name: scrub for name, scrub in scrubs_of(report).items() if name in passes}
    lasts = [scrub["last"] for scrub in scrubs.values() if scrub["last"] is not None]
    why: Counter[str] = Counter()
    objects: set[str] = set()
    for scrub in scrubs.values():
        why.update(scrub["left"]["why"])
        objects.update(scrub["left"].get("objects", []))  # A worker of an older release names none.
    return {
        **{name: sum(last[name] for last in lasts) for name in _FIGURES},
        "why": dict(why),
        "objects": sorted(objects),
        "broke_off": sorted({last["broke_off"] for last in lasts if last["broke_off"]}),
        "workers": {name: {"health": s["health"], "last": s["last"]} for name, s in scrubs.items()},
    }


def _show(health: str, silent: list[str], took_s: float, result: dict[str, Any]) -> None:
    print(f"{health}{_no_answer(silent)}")
    mib = result["bytes"] / 2**20
    print(
        f"  {result['records']} records, {mib:.1f} MiB read in {took_s:.1f} s; {result['rotten']} rotten, "
        f"{result['missing']} missing, {result['stale']} stale; {result['repaired']} repaired, "
        f"{result['unrepaired']} not; {result['collected']} collected"
    )
    for reason, count in result["why"].items():
        print(f"  not healed: {count} x {reason}")
    for title in result["objects"]:
        print(f"  cannot be read for lack of a blob: {title}")
    if result["unheard"]:
        print(f"  not all replicas answered for {result['unheard']} entries, however often they were asked")
    if result["not_compared"]:
        print(f"  {result['not_compared']} slices could not be compared with all of their replicas")
    for reason in result["broke_off"]:
        print(f"  a pass broke off: {reason}")
    for name, part in result["workers"].items():
        if part["health"] != "healthy":
            print(f"  {name}: {part['health']}")


def _no_answer(silent: list[str]) -> str:
    return f"; no answer from {', '.join(silent)}" if silent else ""
