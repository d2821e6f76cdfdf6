"""Arithmetic of a report: medians, ratios pair by pair, table, lines of JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from bench.calibrate import Loop
from bench.machine import describe, field_of, file_system_of, is_in_memory, lines
from bench.report import FIGURES, SCHEMA, Case, Report, RoundResult, Spread, bytes_text, ratio, spread
from ssastore.load import Measured, Op

MACHINE: dict[str, Any] = {
    "started": "2026-01-02T03:04:05Z",
    "commit": "0123456789ab",
    "cpu": "Some CPU",
    "cores": 2,
    "memory_mib": 1024,
    "kernel": "6.1",
    "file_system": "ext4",
    "load_average": 0.1,
    "python": "3.11.7",
    "uvloop": "0.21",
}
WORKLOAD = {"sizes_bytes": [4096], "inflight": [64], "seconds": 2.0, "rounds": 3}
LOOP = Loop(100_000, 75_000, 25_000)
GET, PUT = Case("native", "get", 4096, 64), Case("native", "put", 4096, 64)


def result(
    target: str, number: int, *, ops: int = 1000, server_us: float = 10.0, op: Op = "get"
) -> RoundResult:
    measured = Measured(ops, 2.0, p50_ms=1.0, p99_ms=5.0, p999_ms=9.0, client_us=20.0)
    case = Case("native", op, 4096, 64)
    return RoundResult(case, target, number, measured, server_us, 12.5, LOOP, 100.0, 80.0)


def report_of(*rounds: RoundResult) -> Report:
    report = Report(MACHINE, WORKLOAD, rounds=list(rounds))
    for one in rounds:
        report.targets[one.target] = {"about": f"about {one.target}", "version": "1.0"}
    return report


def test_throughput_is_by_the_time_that_passed() -> None:
    assert result("x", 0, ops=5000).ops_per_s == 2500


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3, 3, 3)), ([5.0, 1.0, 2.0], (2, 1, 5)), ([4.0, 1.0, 2.0, 3.0], (2.5, 1, 4))],
)
def test_spread_is_median_smallest_and_largest(values: list[float], expected: tuple[float, ...]) -> None:
    assert spread(values) == expected


def test_ratio_is_taken_in_each_round_before_the_median() -> None:
    """A machine that slows down threefold: each pair says 2x, but the ratio of medians would not."""
    ours = [result("ssastore", n, ops=ops) for n, ops in enumerate((6000, 2000, 600))]
    peer = [result("redis", n, ops=ops) for n, ops in enumerate((3000, 1000, 300))]
    assert ratio(ours, peer, FIGURES["ops_per_s"]) == Spread(2, 2, 2)
    shuffled = [peer[2], peer[0], peer[1]]
    assert ratio(ours, shuffled, FIGURES["ops_per_s"]) == Spread(2, 2, 2), "pairs are by round, not by place"


def test_round_without_a_partner_has_no_ratio() -> None:
    ours = [result("ssastore", 0, ops=4000), result("ssastore", 1, ops=900)]
    assert ratio(ours, [result("redis", 0, ops=1000)], FIGURES["ops_per_s"]) == Spread(4, 4, 4)


def test_ratio_to_nothing_is_infinite() -> None:
    ours, peer = [result("ssastore", 0)], [result("nginx", 0, server_us=0.0)]
    assert ratio(ours, peer, FIGURES["server_cpu_us_per_op"]).median == float("inf")


def test_ratios_are_ours_over_each_peer_of_the_same_operation() -> None:
    report = report_of(
        result("ssastore", 0, ops=6000, server_us=10),
        result("redis", 0, ops=2000, server_us=20),
        result("nginx", 0, ops=1000, server_us=5),
        result("ssastore", 0, ops=100, op="put"),
        result("redis-always", 0, ops=50, op="put"),
    )
    found = report.ratios(GET)
    redis, nginx = ("ssastore", "redis"), ("ssastore", "nginx")
    assert list(found) == [redis, nginx]
    assert found[redis]["ops_per_s"].median == 3
    assert found[redis]["server_cpu_us_per_op"].median == 0.5
    assert found[nginx]["server_cpu_us_per_op"].median == 2
    assert list(report.ratios(PUT)) == [("ssastore", "redis-always")]


def test_each_of_ours_is_compared_with_peers_and_what_replicas_cost_is_said() -> None:
    report = report_of(
        result("ssastore", 0, server_us=10),
        result("ssastore R=3", 0, server_us=40),
        result("redis", 0, server_us=20),
    )
    found = {pair: figures["server_cpu_us_per_op"].median for pair, figures in report.ratios(GET).items()}
    assert found == {
        ("ssastore", "redis"): 0.5,
        ("ssastore R=3", "redis"): 2,
        ("ssastore", "ssastore R=3"): 0.25,
    }


def test_sizes_and_numbers_of_callers_are_cases_of_their_own() -> None:
    report = report_of(result("ssastore", 0))
    other = Case("s3", "get", 1 << 20, 1)
    report.rounds.append(
        RoundResult(other, "ssastore", 0, report.rounds[0].measured, 99.0, 0.0, LOOP, 100.0, 80.0)
    )
    assert report.cases == [GET, other]
    assert [one.server_us for one in report.results(other)["ssastore"]] == [99.0]
    assert "S3 GET, 1 MiB, 1 in flight" in report.table()


@pytest.mark.parametrize(
    ("count", "text"),
    [(100, "100 B"), (4096, "4 KiB"), (1 << 20, "1 MiB"), (1500, "1500 B"), (3 << 19, "1536 KiB")],
)
def test_sizes_are_said_in_the_largest_unit_that_is_exact(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_servers_that_are_not_known_have_no_figures() -> None:
    """Of an endpoint whose processes nobody named: a gap in the table, and null in JSON, which has no NaN."""
    report = report_of(result("ssastore", 0), result("url", 0, server_us=nan))
    report.rounds[1] = replace(report.rounds[1], memory_mib=nan, others_percent=nan)
    assert "nan" not in report.table()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in report.json_lines()]
    assert rows[2]["server_cpu_us_per_op"]["median"] is rows[4]["memory_mib"] is None
    assert rows[-1]["server_cpu_us_per_op"]["median"] is None


def test_what_was_written_is_said_where_it_was_measured() -> None:
    report = report_of(result("ssastore", 0, op="put"), result("ssastore", 0))
    report.written[PUT, "ssastore"] = 2.34
    rows = [json.loads(line) for line in report.json_lines()]
    assert [row["written_bytes_per_byte"] for row in rows if row["kind"] == "summary"] == [2.34, None]
    assert [line.endswith("2.34") for line in report.table().splitlines() if line.startswith("  ss")] == [
        *(True, False)
    ]


def test_without_ours_there_is_no_ratio() -> None:
    assert report_of(result("redis", 0)).ratios(GET) == {}


def test_lines_of_json_are_complete() -> None:
    report = report_of(result("ssastore", 0, ops=6000), result("redis", 0, ops=2000))
    report.left_out["nginx"] = "nginx is not installed"
    rows = [json.loads(line) for line in report.json_lines()]
    assert [row["kind"] for row in rows] == ["run", "summary", "summary", "round", "round", "ratio"]
    head, _, _, one, _, last = rows
    assert head["schema"] == SCHEMA
    assert head["machine"]["commit"] == "0123456789ab"
    assert head["left_out"] == {"nginx": "nginx is not installed"}
    assert one["loop_us"] == 200_000
    assert (one["target"], one["round"], one["ops_per_s"], one["server_cpu_us_per_op"]) == (
        "ssastore",
        0,
        3000,
        10,
    )
    assert (one["protocol"], one["op"], one["size"], one["inflight"]) == ("native", "get", 4096, 64)
    assert rows[1]["server_nominal_us_per_op"]["median"] == 0.5
    assert rows[1]["client_nominal_us_per_op"]["median"] == 1
    assert (last["target"], last["peer"], last["ops_per_s"]["median"]) == ("ssastore", "redis", 3)


def test_table_names_hardware_commit_and_figures() -> None:
    table = report_of(
        result("ssastore", 0, ops=6000), result("redis", 0, ops=2000), result("redis", 1, ops=4000)
    ).table()
    assert "commit 0123456789ab" in table
    assert "Some CPU" in table
    assert "calibration loop 200 ms (200 to 200)" in table
    rows = {line.split("  ")[1].strip(): line for line in table.splitlines() if line.startswith("  ")}
    assert "3000 (3000 to 3000)" in rows["ssastore"]
    assert "1500 (1000 to 2000)" in rows["redis"]
    assert "3x (3 to 3)" in rows["ssastore / redis"]
    assert "left out" not in table


def test_columns_are_under_their_headings() -> None:
    lines_ = report_of(result("ssastore", 0), result("redis", 0)).table().splitlines()
    heading = next(line for line in lines_ if "ops/s" in line and "p50" in line)
    row = next(line for line in lines_ if line.startswith("  redis "))
    assert row[: heading.index("p50 ms") + len("p50 ms")].endswith(" 1")
    assert row[: heading.index("p99 ms") + len("p99 ms")].endswith(" 5")


def test_what_was_left_out_is_counted_with_its_reason() -> None:
    report = report_of(result("ssastore", 0))
    report.left_out |= {"nginx": "nginx is not installed", "redis": "redis-server is not installed"}
    table = report.table()
    assert "left out: 2 of 3 targets" in table
    assert "nginx: nginx is not installed" in table


def test_data_in_memory_is_warned_of() -> None:
    assert not any("WARNING" in line for line in lines(MACHINE))
    assert any("WARNING" in line for line in lines(MACHINE | {"file_system": "tmpfs"}))


MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /tmp/disk xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/tmp/y", "tmpfs"),
        ("/tmp/disk/z", "xfs"),
        ("/tmpfoo", "ext4"),
        ("/tmp", "tmpfs"),
    ],
)
def test_file_system_is_that_of_the_longest_mount_point(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind
    assert is_in_memory(kind) is (kind == "tmpfs")


def test_fields_of_proc_files() -> None:
    text = "processor\t: 0\nmodel name\t: A: B\nmodel name\t: other\n"
    assert field_of(text, "model name") == "A: B"
    assert field_of(text, "model") == "unknown"


def test_description_of_this_machine_has_all_that_the_report_shows(tmp_path: Path) -> None:
    found = describe(tmp_path)
    assert found.keys() == MACHINE.keys()
    assert found["cores"] >= 1
    assert found["memory_mib"] > 0
    assert json.dumps(found)
