"""Runs beside their baseline: what is lost, what may not be compared; and the loop that measures them."""

from __future__ import annotations

import copy
import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench import baseline, calibrate, check
from bench.baseline import TOLERANCE_MIN, Baseline, Verdict
from bench.calibrate import Calibration, Loop, middle
from bench.errors import BenchError
from bench.report import SCHEMA
from ssastore.load import OPS

WORKLOAD = {"sizes_bytes": [4096], "inflight": [64], "seconds": 1.0, "rounds": 5, "loop": 1}


def run_of(*, server: float = 50.0, client: float = 80.0, target: str = "ssastore") -> list[dict[str, Any]]:
    """A run with one case."""
    figures = {
        "server_nominal_us_per_op": {"median": server, "low": 0.0, "high": 999.0},
        "client_nominal_us_per_op": {"median": client, "low": 0.0, "high": 999.0},
        "ops_per_s": {"median": 1.0, "low": 1.0, "high": 1.0},
    }
    about = {"protocol": "native", "op": "get", "size": 4096, "inflight": 64, "target": target}
    return [
        {"schema": SCHEMA, "kind": "run", "machine": {"cpu": "Some CPU"}, "workload": copy.copy(WORKLOAD)},
        {"kind": "summary", **about, **figures},
    ]


def verdict_of(*, known: list[float], now: float) -> Verdict:
    """Of the servers' figure."""
    lines = [line for server in known for line in run_of(server=server)]
    return Baseline(lines).compare(run_of(server=now))[0]


def test_figure_is_compared_with_the_median_of_the_runs() -> None:
    found = verdict_of(known=[50, 51, 49], now=102)
    assert (found.base, found.now, found.ratio) == (50, 102, 2.04)


@pytest.mark.parametrize(
    ("now", "is_lost", "is_won"),
    [
        (50, False, False),
        (57.4, False, False),
        (57.6, True, False),
        (43.5, False, False),
        (43.4, False, True),
    ],
)
def test_figure_is_lost_when_it_is_worse_by_more_than_the_bound(
    now: float, is_lost: bool, is_won: bool
) -> None:
    found = verdict_of(known=[50], now=now)
    assert found.tolerance == TOLERANCE_MIN == 0.15
    assert (found.is_lost, found.is_won) == (is_lost, is_won)


def test_bound_follows_how_far_the_baselines_runs_lay_apart() -> None:
    """Runs 20 % apart cannot tell a loss of 25 %, and can tell one of 35 %."""
    assert verdict_of(known=[45, 50, 55], now=62).tolerance == pytest.approx(0.30)
    assert not verdict_of(known=[45, 50, 55], now=64).is_lost
    assert verdict_of(known=[45, 50, 55], now=66).is_lost


def test_servers_and_clients_are_judged_alone() -> None:
    found = Baseline(run_of()).compare(run_of(client=100.0))
    assert [one.is_lost for one in found] == [False, True]
    text = baseline.table(found)
    assert [line.endswith("LOST") for line in text.splitlines()] == [False, False, True]


def test_other_workload_is_refused() -> None:
    other = run_of()
    other[0]["workload"]["seconds"] = 3.0
    with pytest.raises(BenchError, match=r"its workload is .*1\.0.*, and not .*3\.0"):
        Baseline(run_of()).compare(other)
    with pytest.raises(BenchError, match="its workload is"):
        Baseline([*run_of(), *other])


def test_more_rounds_are_the_same_workload() -> None:
    more = run_of()
    more[0]["workload"]["rounds"] = 9
    assert Baseline(run_of()).compare(more)


def test_loop_that_was_changed_makes_a_baseline_void() -> None:
    other = run_of()
    other[0]["workload"]["loop"] = 2
    with pytest.raises(BenchError, match="its workload is"):
        Baseline(run_of()).compare(other)


@pytest.mark.parametrize(("known", "now"), [("ssastore", "ssastore R=3"), ("ssastore R=3", "ssastore")])
def test_figure_that_one_side_lacks_is_an_error_and_no_success(known: str, now: str) -> None:
    with pytest.raises(BenchError, match=r"has no server_nominal_us_per_op of|has no client_nominal"):
        Baseline(run_of(target=known)).compare(run_of(target=now))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing in it"),
        ("{", "Expecting"),
        ('{"kind": "round"}\n', "no line of a baseline"),
        ('{"kind": "summary"}\n', "no line of a baseline"),
        ('{"kind": "run", "schema": "ssastore.bench/1"}\n', "its schema is ssastore.bench/1"),
        (json.dumps(run_of()[0]) + '\n{"kind": "summary", "protocol": "native"}\n', "op"),
    ],
)
def test_file_that_is_no_baseline_is_refused_with_its_name(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(BenchError, match=rf"x\.jsonl: .*{reason}.*make bench-baseline"):
        baseline.read(path)


def test_baseline_that_is_missing_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"there is no .*make bench-baseline"):
        baseline.read(tmp_path / "x.jsonl")


def test_what_is_written_is_read_and_grows_by_append(tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "x.jsonl"
    baseline.write(path, [run_of(server=40), run_of(server=50)])
    baseline.write(path, [run_of(server=60)], append=True)
    found = baseline.read(path)
    assert len(found.runs) == 3
    assert found.compare(run_of())[0].base == 50
    baseline.write(path, [run_of(server=70)])
    assert len(baseline.read(path).runs) == 1


def test_baselines_of_the_repository_fit_what_is_measured() -> None:
    """Whoever changes workload or loop writes new ones."""
    for path in check.FOLDER.glob("*.jsonl"):
        known = baseline.read(path)
        assert known.runs[0]["workload"]["loop"] == calibrate.VERSION
        assert known.runs[0]["workload"]["seconds"] == check.OPTIONS.seconds
        assert all("+changes" not in run["machine"]["commit"] for run in known.runs)


@pytest.mark.parametrize(
    ("now", "code", "said"),
    [(run_of(), 0, ""), (run_of(server=80), 1, "LOST"), (run_of(target="other"), 2, "")],
)
def test_exit_code_says_whether_something_was_lost(
    now: list[dict[str, Any]],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.jsonl"
    monkeypatch.setattr(check, "lines", lambda machine: [machine["cpu"]])
    baseline.write(path, [run_of()])
    monkeypatch.setattr(check, "measured", lambda: now)
    monkeypatch.setattr("sys.argv", ["check", "--baseline", str(path)])
    assert check.main() == code
    assert ("LOST" in capsys.readouterr().out) == (said == "LOST")


def test_what_is_watched_are_our_own_reads_and_writes() -> None:
    plan = check.plan()
    assert all(target.product == "ssastore" for one in plan for target in one.targets)
    assert {one.op for one in plan} < set(OPS)
    assert {target.name for one in plan for target in one.targets} == {
        *("ssastore", "ssastore R=3", "ssastore S3")
    }


def test_nominal_figure_follows_the_machine() -> None:
    """An operation that takes twice as long on a machine whose loop does too is as dear as before."""
    fast, slow = Loop(4_000, 4_000, 2_000), Loop(8_000, 8_000, 4_000)
    assert fast.nominal(30) == slow.nominal(60) == 30
    assert middle([fast, slow, slow]) == slow
    assert middle([fast, slow]) == (6_000, 6_000, 3_000)


def test_loop_runs_beside_as_long_as_it_is_asked(tmp_path: Path) -> None:
    with ExitStack() as cleanup:
        calibration = Calibration(tmp_path, cleanup)
        with calibration.beside() as turns:
            time.sleep(0.3)
        count = len(turns)
        assert count >= 2
        assert min(min(turn) for turn in turns) > 0
        assert turns[0].us == sum(turns[0])
        time.sleep(0.2)
        assert len(turns) == count
    assert not list(tmp_path.iterdir())


def test_loop_beside_ends_with_what_went_wrong(tmp_path: Path) -> None:
    with ExitStack() as cleanup, pytest.raises(BenchError), Calibration(tmp_path, cleanup).beside():
        raise BenchError("a server ended")
    assert not any(thread.name == "calibration" for thread in threading.enumerate())
