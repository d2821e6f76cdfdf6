"""What happened between two reports: rates for ``top``, events for ``watch``."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ssastore.cli.top import table
from ssastore.metrics.events import Moves, began, events
from ssastore.metrics.histogram import BOUNDS
from ssastore.metrics.rates import rates


def worker(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "worker": 0,
        "ok": True,
        "uptime_s": 10.0,
        "cpu_s": 1.0,
        "slices": 3072,
        "silent": {},
        "connections": 4,
        "records": 5,
        "used_bytes": 2**20,
        "limit_bytes": 2**30,
        "requests": {"16": 100},
        "log": {"writes": 10, "write_s": 0.1},
        "moves": {"coming": 0, "going": 0, "done": 0, "bytes": 0, "paused": False},
        "recovery": {"left": 0, "done": 0},
        "scrub": {"health": "healthy", "left": {"here": 0}, "repaired": 0, "last": None},
    }
    return found | changed


def gateway(requests: int, *buckets: int) -> dict[str, Any]:
    counts = [*buckets, *[0] * (len(BOUNDS) + 1 - len(buckets))]
    names = ("failures", "received_bytes", "sent_bytes")
    return {"requests": requests, "durations": counts, "in_flight": 1, **dict.fromkeys(names, 10 * requests)}


def report(*workers: dict[str, Any], **changed: Any) -> dict[str, Any]:
    nodes = [
        {"name": f"n{at}", "alive": found.pop("alive", True), "workers": [found]}
        for at, found in enumerate(workers, 1)
    ]
    ready = all(found["ok"] for found in workers)
    base = {"ready": ready, "coordinator": "n1", "service": "2001:db8::/64", "replicas": 3, "nodes": nodes}
    return base | {"gateway": gateway(0)} | changed


def test_rates_are_of_the_time_between() -> None:
    before = report(worker(), gateway=gateway(100, 100))
    changed = worker(
        uptime_s=12.0,
        cpu_s=2.5,
        requests={"16": 150, "17": 50},
        log={"writes": 30, "write_s": 0.2},
        moves={"coming": 2, "going": 1, "done": 1, "bytes": 4000, "paused": False},
    )
    found = rates(before, report(changed, gateway=gateway(300, 100, 0, 0, 198, 0, 0, 0, 2)), 2.0)
    (row,) = found["workers"]
    assert (row["requests_per_s"], row["cpu"], row["taken_bytes_per_s"]) == (50, 0.75, 2000)
    assert row["log_write_s"] == pytest.approx(0.005)
    assert (row["coming"], row["going"], row["full"]) == (2, 1, 2**-10)
    top = found["gateway"]
    assert (top["requests_per_s"], top["sent_bytes_per_s"]) == (100, 1000)
    # Of the 200 of this time alone: what was before took half a millisecond.
    assert BOUNDS[2] < top["p50"] < BOUNDS[3] and top["p99"] <= BOUNDS[3] and top["p99.9"] > BOUNDS[6]


def test_who_began_anew_or_was_silent_has_no_rates() -> None:
    old = report(worker(), {"worker": 0, "ok": False, "error": "x"}, gateway=gateway(100))
    new = report(worker(uptime_s=1.0, requests={}), worker(), gateway=gateway(5, 5))
    found = rates(old, new, 1.0)
    assert [row["requests_per_s"] for row in found["workers"]] == [None, None]
    assert found["gateway"]["requests_per_s"] is None and found["gateway"]["p50"] is not None


def test_table_has_a_line_for_everybody() -> None:
    silent = {"worker": 0, "ok": False, "error": "no route"}
    idle = {"worker": 0, "ok": True, "idle": True}
    found = rates(report(worker(), silent, idle), report(worker(), silent, idle), 1.0)
    lines = table(found | {"health": "healthy"})
    assert lines[0] == "not all workers answer; n1 coordinates; data: healthy"
    assert lines[1].startswith("S3  0.0/s  p50 -  p99 -")
    assert "1.0 MiB   0.1%" in lines[4] and lines[4].endswith("healthy")
    assert lines[5].endswith("does not answer: no route") and lines[6].endswith("owns nothing")


def names(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [event["event"] for event in events(before, after)]


def moving(coming: int, done: int = 0, *, paused: bool = False) -> dict[str, Any]:
    return worker(moves={"coming": coming, "going": 0, "done": done, "bytes": 0, "paused": paused})


def scrub(**changed: Any) -> dict[str, Any]:
    return worker(scrub={"health": "healthy", "left": {"here": 0}, "repaired": 0, "last": None} | changed)


SILENT = {"worker": 0, "ok": False, "error": "no answer"}


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (worker(), worker(), []),
        (worker(), worker(alive=False), ["node.down"]),
        (worker(alive=False), worker(), ["node.up"]),
        (worker(), worker(alive=None), []),
        (worker(), {**SILENT}, ["worker.silent"]),
        ({**SILENT}, worker(), ["worker.answered"]),
        (worker(), worker(uptime_s=1.0), ["worker.started"]),
        (moving(3), moving(2, 1), ["slices.taken"]),
        (moving(1, 2), moving(0, 3), ["slices.taken"]),
        (moving(0), moving(0, paused=True), ["moves.paused"]),
        (moving(0, paused=True), moving(0), ["moves.resumed"]),
        (worker(), worker(silent={"QUARANTINED": 7}), ["slices.silent"]),
        (worker(), worker(recovery={"left": 3, "done": 4}), ["slices.rebuilt"]),
        (scrub(), scrub(left={"here": 2}), ["scrub.found"]),
        (scrub(left={"here": 2}), scrub(repaired=2), ["scrub.mended", "copies.repaired"]),
        (scrub(), scrub(last={"number": 1, "records": 9}), ["scrub.ended"]),
        (scrub(last={"number": 1, "records": 9}), scrub(last={"number": 1, "records": 9}), []),
    ],
)
def test_what_changes_has_its_event(before: dict[str, Any], after: dict[str, Any], wanted: list[str]) -> None:
    assert names(report(before), report(after)) == wanted


def test_moves_end_when_nothing_has_moved_for_a_while() -> None:
    moves = Moves()
    seen = [moving(0), moving(3), moving(0, 3), moving(2, 3), moving(0, 5), {**SILENT}, moving(0, 5)]
    reports = [report(found) for found in seen]
    told = [list(moves.note(*pair, 4.0 * at)) for at, pair in enumerate(itertools.pairwise(reports))]
    assert told == [[{"event": "moves.began", "slices": 3}], [], [], [], [], []]
    # Who is silent may have slices on their way.
    assert not list(moves.note(reports[-1], report({**SILENT}), 90.0))
    ended = {"event": "moves.ended", "slices": 5, "seconds": 12.0}
    assert list(moves.note(reports[-1], reports[-1], 100.0)) == [ended]
    assert not list(moves.note(reports[-1], reports[-1], 200.0))


def test_what_moved_between_two_looks_was_a_move_too() -> None:
    found = list(Moves().note(report(moving(0, 1)), report(moving(0, 4)), 0.0))
    assert [event["event"] for event in found] == ["moves.began"]


def test_nodes_come_and_go_and_the_cluster_changes() -> None:
    two = report(worker(), worker())
    assert names(report(worker()), two) == ["node.added"]
    assert names(two, report(worker())) == ["node.removed"]
    found = names(report(worker()), report(worker(), coordinator="", replicas=5, service="2001:db8:1::/64"))
    assert found == ["coordinator.changed", "service.changed", "replicas.changed"]
    assert began(two)["nodes"] == ["n1", "n2"]
