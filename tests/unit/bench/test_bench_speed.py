"""The page of figures: it is made of what is kept, and says which goals are missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.goals import GOALS, goals, number
from bench.report import SCHEMA, Case
from bench.speed import DOCS, FIGURES, comparison, growth_plot, keep, main, origins, pages
from tests.unit.bench.test_bench_growth import MACHINE

SPREAD = {"median": 20.0, "low": 10.0, "high": 30.0}
WORK = {"rounds": 5, "seconds": 1.5, "workers": 1}
RUN: dict[str, Any] = {
    "schema": SCHEMA,
    "kind": "run",
    "machine": MACHINE,
    "workload": WORK,
    "targets": {"ssastore": {"about": "ours", "form": "compiled"}, "redis": {"about": "theirs"}},
    "left_out": {"Swift": "not installed"},
}
GET = Case("native", "get", 4096, 64)


def summary(target: str, case: Case = GET, us: float = 20.0) -> dict[str, Any]:
    figures = dict.fromkeys(("p50_ms", "p99_ms", "client_cpu_us_per_op", "busiest_percent"), SPREAD)
    more = {"memory_mib": SPREAD, "others_cpu_percent": SPREAD, "written_bytes_per_byte": None}
    us_spread = {**SPREAD, "median": us}
    about = {"kind": "summary", **case._asdict(), "target": target}
    return {**about, "ops_per_s": SPREAD, "server_cpu_us_per_op": us_spread, **figures, **more}


def ratio(case: Case, target: str, peer: str, ops: float, cpu: float = 1.0) -> dict[str, Any]:
    spreads = {
        name: {"median": value, "low": value / 2, "high": value * 2}
        for name, value in (("ops_per_s", ops), ("server_cpu_us_per_op", cpu))
    }
    return {"kind": "ratio", **case._asdict(), "target": target, "peer": peer, **spreads}


def growth(get_us: float) -> dict[str, Any]:
    point: dict[str, Any] = {
        "objects": 1000,
        "server_us": dict.fromkeys(("get", "overwrite", "list", "put"), 10),
    }
    last = {"objects": 3_000_000, "server_us": {**point["server_us"], "get": get_us}}
    return {"machine": MACHINE, "nodes": 1, "replicas": 1, "size": 512, "points": [point, last]}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (0, "0")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_page_in_the_docs_is_made_of_what_is_kept() -> None:
    """`make bench-docs` was called after the last change of figures or text."""
    made = pages(FIGURES)
    assert {name: (DOCS / name).read_text() for name in made} == made


def test_a_row_for_each_target() -> None:
    table = comparison({"native": [RUN, summary("ssastore"), summary("redis", us=7.0)]})
    ours, theirs = table.splitlines()[2:]
    assert ours.startswith("| **native GET, 4 KiB, 64 callers** | ssastore | 20 (10 to 30) | 20 |")
    assert theirs.startswith("|  | redis |") and theirs.endswith("| 7 | 20 | 20 | 20 |  | 20 | native |")


def test_a_run_says_in_which_form_ours_was() -> None:
    row = origins({"native": [RUN]}).splitlines()[2]
    assert row.endswith(f", uvloop {MACHINE['uvloop']}, compiled |") and row.startswith("| native |")


def test_goals_that_are_missed_are_said_to_be() -> None:
    large, small_r3 = GOALS[-1].case, Case("s3", "put", 4096, 64)
    rows = [
        RUN,
        ratio(GET, "ssastore", "redis", 3.9),
        ratio(GET, "ssastore R=3", "redis", 2.6),
        ratio(large, "ssastore S3", "nginx", 0.1, cpu=1.6),
        summary("ssastore S3", small_r3, us=299.0),
        summary("ssastore S3 R=3", small_r3, us=701.0),
    ]
    found = goals({"native": rows}, {"growth": [growth(16.0)]})
    assert [row[1:] for row in found] == [
        ("at least 4", "3.9 (1.95 to 7.8)", "**no**", "native"),
        ("at least 2.5", "2.6 (1.3 to 5.2)", "yes", "native"),
        ("at most 300 us", "299 (10 to 30)", "yes", "native"),
        ("at most 700 us", "701 (10 to 30)", "**no**", "native"),
        ("at least 0.5", "0.625 (0.312 to 1.25)", "yes", "native"),  # more CPU is less
        ("at most 1.5", "1.6", "**no**", "growth"),
        *[("at most 1.5", "1", "yes", "growth")] * 3,
    ]
    assert found[2][0] == "S3 durable PUT of 4 KiB" and found[3][0] == "S3 durable PUT of 4 KiB, R=3"
    assert found[5][0].startswith("CPU of `get` at 3,000,000") and found[7][0].startswith("CPU of an entry")


def test_results_are_kept_without_their_rounds(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (RUN, {"kind": "round"}, summary("ssastore"))))
    keep("native", path, tmp_path / "figures")
    kept = (tmp_path / "figures" / "native.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in kept] == ["run", "summary"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no results"),
        ("no json", "Expecting value"),
        ('{"kind": "run", "schema": "ssastore.bench/1"}', "not of schema"),
    ],
)
def test_what_holds_no_results_is_refused(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    options = ["--figures", str(tmp_path / "figures"), "--write", str(tmp_path)]
    assert main([f"native={path}", *options]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_the_growth_is_drawn() -> None:
    root = ElementTree.fromstring(growth_plot(growth(12.0)))
    words = "".join(root.itertext())
    assert "objects" in words and "3,000,000" in words and "overwrite" in words
