"""The page that Prometheus reads: format 0.0.4, names by its conventions, histograms that add up."""

from __future__ import annotations

import math
import re

import pytest

from ssastore.metrics.declared import METRICS, S3_DURATION, S3_ERRORS, WORKER_UP
from ssastore.metrics.histogram import BOUNDS, Histogram, quantile, summed
from ssastore.metrics.text import Kind, Metric, Page, number

SAMPLE = re.compile(r'([a-z0-9_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (\S+)')


def test_every_metric_has_its_head_and_samples_theirs() -> None:
    page = Page(METRICS)
    page.add(WORKER_UP, True, "n1", 0)
    page.add(S3_ERRORS, 3, "NoSuchKey")
    lines = page.text().splitlines()
    for metric in METRICS:
        at = lines.index(f"# TYPE {metric.name} {metric.kind}")
        assert lines[at - 1].startswith(f"# HELP {metric.name} ")
    assert 'ssastore_worker_up{node="n1",worker="0"} 1' in lines
    assert 'ssastore_s3_errors_total{error="NoSuchKey"} 3' in lines
    assert all(SAMPLE.fullmatch(line) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize(
    ("value", "written"),
    [('a"b', r"a\"b"), ("a\\b", r"a\\b"), ("a\nb", r"a\nb"), ("\\n", r"\\n"), ("ü}{,", "ü}{,")],
)
def test_labels_are_escaped(value: str, written: str) -> None:
    page = Page([S3_ERRORS])
    page.add(S3_ERRORS, 1, value)
    (line,) = [line for line in page.text().splitlines() if not line.startswith("#")]
    assert line == f'ssastore_s3_errors_total{{error="{written}"}} 1'
    assert SAMPLE.fullmatch(line)


def test_help_is_one_line() -> None:
    text = Page([Metric("ssastore_x", Kind.GAUGE, 'a\nb\\c"d')]).text()
    assert text.splitlines()[0] == r'# HELP ssastore_x a\nb\\c"d'


def test_labels_are_those_declared() -> None:
    page = Page([WORKER_UP])
    with pytest.raises(ValueError, match="zip"):
        page.add(WORKER_UP, 1, "n1")
    with pytest.raises(KeyError):
        page.add(S3_ERRORS, 1, "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (True, "1"), (3.0, "3"), (0.25, "0.25"), (1e-7, "1e-07"), (2**63, "9.223372036854776e+18")],
)
def test_numbers_are_go_floats(value: float, text: str) -> None:
    assert number(value) == text and float(text) == value


def test_buckets_sum_up() -> None:
    found = Histogram()
    for seconds in (0.0001, 0.0005, 0.00051, 0.02, 29.9, 31.0, 1000.0):
        found.note(seconds)
    page = Page([S3_DURATION])
    page.add_histogram(S3_DURATION, found, "GetObject")
    rows = [line for line in page.text().splitlines() if not line.startswith("#")]
    buckets = {line.split('le="')[1].split('"')[0]: int(line.split()[1]) for line in rows[:-2]}
    # An end belongs to its bucket.
    assert list(buckets) == [number(bound) for bound in (*BOUNDS, math.inf)]
    assert (buckets["0.0005"], buckets["0.001"], buckets["0.02"], buckets["30"], buckets["+Inf"]) == (
        2,
        3,
        4,
        5,
        7,
    )
    assert rows[-1] == 'ssastore_s3_request_duration_seconds_count{op="GetObject"} 7'
    assert float(rows[-2].split()[1]) == pytest.approx(1060.92111)


def test_quantiles_are_within_their_bucket() -> None:
    found = Histogram()
    assert quantile(found.counts, 0.5) is None
    for at in range(1000):
        found.note(at / 1000)
    assert quantile(found.counts, 0.5) == pytest.approx(0.5, abs=0.002)
    assert quantile(found.counts, 0.99) == pytest.approx(0.99, abs=0.01)
    found.note(100.0)
    assert quantile(found.counts, 1.0) == BOUNDS[-1]
    assert summed([found.counts, found.counts]) == [2 * count for count in found.counts]


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [
        ("other_x", Kind.GAUGE, ""),
        ("ssastore_X", Kind.GAUGE, ""),
        ("ssastore_x", Kind.COUNTER, ""),
        ("ssastore_x_total", Kind.GAUGE, ""),
        ("ssastore_x_bytes", Kind.GAUGE, ""),
        ("ssastore_x_total", Kind.COUNTER, "bytes"),
        ("ssastore_x_ms", Kind.GAUGE, "ms"),
    ],
)
def test_names_against_the_conventions_are_refused(name: str, kind: Kind, unit: str) -> None:
    with pytest.raises(AssertionError):
        Metric(name, kind, "", (), unit)
