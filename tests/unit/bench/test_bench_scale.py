from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.plot import Line, log_plot
from bench.scale import OURS, main, our_row, series, table
from bench.schemes import contiguous, jump, maglev, prefixes_of, redis_row, row_of, rows_at, scattered
from ssastore.core.goals import Policy


def test_the_figures_of_the_text() -> None:
    few = row_of("", contiguous(1024), 1000, has_prefixes=True)
    many = row_of("", contiguous(16384), 1000, has_prefixes=True)
    at_ten = row_of("", scattered(16384), 10, has_prefixes=True)
    assert round(few.max_over_mean, 2) == 1.95
    assert round(many.max_over_mean, 2) == 1.04
    assert at_ten.largest == 1639
    # Scattered, no two neighbours are one prefix.
    assert at_ten.prefixes_max == 1639
    mean = row_of("", contiguous(16384), 10, has_prefixes=True).prefixes_mean
    assert mean is not None and mean < 20


def test_scattered_moves_nearly_everything_and_contiguous_half() -> None:
    assert row_of("", scattered(16384), 10, has_prefixes=True).added > 9
    assert 4 < row_of("", contiguous(16384), 10, has_prefixes=True).added < 7


def test_redis_moves_what_it_must() -> None:
    row = redis_row(1000)
    assert round(row.max_over_mean, 2) == 1.04
    assert 0.9 < row.added <= 1
    assert row.prefixes_mean is None


def test_maglev_fills_its_table_evenly() -> None:
    table = maglev(7, 101)
    counts = [table.count(node) for node in range(7)]
    assert sum(counts) == 101
    assert max(counts) - min(counts) <= 1
    # The paper's promise: most entries stay.
    assert sum(old == new for old, new in zip(table, maglev(8, 101), strict=True)) > 60


def test_jump_hash_moves_only_to_the_new_node() -> None:
    before, after = jump(10, 2000), jump(11, 2000)
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {10}
    assert 120 < after.count(10) < 250
    assert set(before) == set(range(10))


@pytest.mark.parametrize(
    ("owners", "counts"), [([0] * 8, [1]), ([0, 0, 0, 1], [2, 1]), ([0, 1, 0, 1], [2, 2])]
)
def test_prefixes(owners: list[int], counts: list[int]) -> None:
    assert prefixes_of(owners) == counts


def test_our_row_and_a_series() -> None:
    ours = our_row(40)
    assert ours.row.scheme == OURS
    assert ours.row.max_over_mean <= 1.02
    assert ours.row.added <= 1.1
    assert ours.control_bytes > 4096 * 100
    found = series(40, Policy(), changes=6, seed=1)
    assert found.max_over_mean < 1.1
    assert found.prefixes_mean < 24
    assert 0.9 < found.moved < 1.2


def test_the_page_in_the_docs_is_of_this_planner() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "scale.md").read_text()
    made = table([our_row(100)], rows_at(100)).splitlines()
    rows = [line for line in made if line.startswith("| 100 |") and " s |" not in line]
    assert len(rows) == 8
    for row in rows:
        assert f"\n{row}\n" in page


def test_the_command_prints_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "10", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["nodes"] for line in lines} == {10}
    assert len(lines) == len(rows_at(10)) + 1


def test_the_plot_is_an_image_with_all_lines() -> None:
    text = log_plot("a < b", "y", [Line("one", ((10, 1.0), (100, 1.5))), Line("two", ((10, 1.1),))], top=2.0)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    words = "".join(root.itertext())
    assert "a < b" in words
    assert "one" in words
    assert "two" in words
