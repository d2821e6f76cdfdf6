"""``top``, ``watch``, ``metrics``: what a cluster does now, what changes, and what monitoring is told."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from ssastore.cli.sizes import size

_CLEAR = "\x1b[H\x1b[J"
"Of a terminal: to the upper left, and everything below away (ECMA-48: CUP, ED)."
_SILENT_S_MAX = 30.0
"How long a gateway may not answer while it is watched: it may be starting again."


@click.command("top")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1),
    default=2.0,
    help="Seconds between two looks; default: 2.",
)
@click.option("--once", is_flag=True, help="One table, of one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, one object a look.")
@click.pass_obj
def top_command(context: str | None, interval_s: float, once: bool, as_json: bool) -> int:
    """What every worker does at this moment: requests, CPU, log, moves; and the gateway's S3 requests.

    p50 and p99 are of the requests of the interval, from their headers to the last byte of the answer.
    """
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch, health_of
    from ssastore.metrics.rates import rates

    port = find(context).admin_port
    before, looked_s = fetch(port, "/status")[1], time.monotonic()
    while True:
        time.sleep(interval_s)
        after, now_s = fetch(port, "/status")[1], time.monotonic()
        found = rates(before, after, now_s - looked_s) | {"health": health_of(after)}
        before, looked_s = after, now_s
        if as_json:
            print(json.dumps(found), flush=True)
        else:
            print((_CLEAR if sys.stdout.isatty() and not once else "") + "\n".join(table(found)), flush=True)
        if once:
            return 0


def table(found: dict[str, Any]) -> list[str]:
    """Lines: the cluster, the gateway, a head, each worker."""
    gateway = found["gateway"]
    coordinator = found["coordinator"]
    who = "control store away" if coordinator is None else f"{coordinator or 'nobody'} coordinates"
    answers = "all workers answer" if found["ready"] else "not all workers answer"
    lines = [
        f"{answers}; {who}; data: {found['health']}",
        f"S3  {_rate(gateway['requests_per_s'])}/s  p50 {_ms(gateway['p50'])}  p99 {_ms(gateway['p99'])}  "
        f"in {_bytes(gateway['received_bytes_per_s'])}/s  out {_bytes(gateway['sent_bytes_per_s'])}/s  "
        f"in flight {gateway['in_flight']}  failed {_rate(gateway['failures_per_s'])}/s",
        "",
        f"{'node':12} {'worker':>6} {'req/s':>8} {'cpu':>5} {'conns':>6} {'slices':>6} {'silent':>6} "
        f"{'stored':>9} {'full':>6} {'log':>8} {'coming':>6} {'going':>6} {'taken/s':>9}  health",
    ]
    return lines + [_row(worker) for worker in found["workers"]]


def _row(worker: dict[str, Any]) -> str:
    name = f"{worker['node']:12} {worker['worker']:6}"
    if not worker["ok"]:
        return f"{name} does not answer: {worker['error']}"
    if worker["idle"]:
        return f"{name} owns nothing"
    cpu = "-" if worker["cpu"] is None else f"{100 * worker['cpu']:.0f}%"
    return (
        f"{name} {_rate(worker['requests_per_s']):>8} {cpu:>5} {worker['connections']:6} "
        f"{worker['slices']:6} "
        f"{worker['silent']:6} {_bytes(worker['stored_bytes']):>9} {100 * worker['full']:5.1f}% "
        f"{_ms(worker['log_write_s']):>8} {worker['coming']:6} {worker['going']:6} "
        f"{_bytes(worker['taken_bytes_per_s']):>9}  {worker['health']}"
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def _bytes(value: float | None) -> str:
    return "-" if value is None else size(value)


@click.command("watch")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1),
    default=1.0,
    help="Seconds between two looks; what is shorter is not seen. Default: 1.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.pass_obj
def watch_command(context: str | None, interval_s: float, as_json: bool) -> int:
    """What happens to the cluster, a line each: nodes and workers that come and go, moves, scrubs.

    Ends with exit code 5 when the gateway does not answer for half a minute.
    """
    from ssastore.errors import Unavailable
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch
    from ssastore.metrics.events import Moves, began, events

    port = find(context).admin_port
    before = fetch(port, "/status")[1]
    _tell(began(before), as_json)
    moves, heard_s = Moves(), time.monotonic()
    while True:
        time.sleep(interval_s)
        try:
            after = fetch(port, "/status")[1]
        except Unavailable:
            if time.monotonic() - heard_s > _SILENT_S_MAX:
                raise
            continue
        heard_s = time.monotonic()
        for event in [*events(before, after), *moves.note(before, after, heard_s)]:
            _tell(event, as_json)
        before = after


def _tell(event: dict[str, Any], as_json: bool) -> None:
    now_s = time.time()
    if as_json:
        print(json.dumps({"ts": round(now_s, 3), **event}), flush=True)
        return
    fields = "".join(f" {name}={value!r}" for name, value in event.items() if name != "event")
    print(f"{time.strftime('%H:%M:%S', time.localtime(now_s))} {event['event']}{fields}", flush=True)


@click.group("metrics")
def metrics_command() -> None:
    """What is measured, and what Grafana and Prometheus make of it (docs/how-to/monitoring.md)."""


@metrics_command.command("dashboard")
def _dashboard_command() -> int:
    """A dashboard for import in Grafana, as JSON."""
    from ssastore.metrics.dashboard import dashboard

    print(json.dumps(dashboard(), indent=1))
    return 0


@metrics_command.command("alerts")
def _alerts_command() -> int:
    """Rules for Prometheus' alerts, as YAML: a file of its rule_files."""
    from ssastore.metrics.alerts import rule_file

    print(rule_file(), end="")
    return 0


@metrics_command.command("list")
def _list_command() -> int:
    """Every metric: name, type, labels, help."""
    from ssastore.metrics.declared import METRICS

    for metric in METRICS:
        print(f"{metric.name}\t{metric.kind}\t{','.join(metric.labels)}\t{metric.help}")
    return 0
