"""Dashboard and alert rules name what is declared, with labels that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssastore.metrics.alerts import ALERTS, rule_file, rules
from ssastore.metrics.dashboard import dashboard, expressions
from ssastore.metrics.declared import METRICS, S3_DURATION
from ssastore.metrics.text import Kind

TEXT = (Path(__file__).parents[3] / "docs" / "how-to" / "monitoring.md").read_text(encoding="utf-8")
BY_NAME = {metric.name: metric for metric in METRICS}
EXPRESSIONS = [*expressions(), *[alert.expr for alert in ALERTS]]
FOREIGN_LABELS = {"le", "instance", "job"}
"Of a bucket, and of every scrape."


def names(expr: str) -> list[str]:
    return re.findall(r"\b(?:ssastore|process)_[a-z0-9_]+", expr)


def base(name: str) -> str:
    """Of a histogram's series the metric."""
    if name in BY_NAME:
        return name
    shorter = re.sub(r"_(bucket|sum|count)$", "", name)
    assert BY_NAME[shorter].kind is Kind.HISTOGRAM, name
    return shorter


def complaints(expr: str) -> Iterator[str]:
    found = names(expr)
    if not found and "up{" not in expr:
        yield "names nothing"
    labels = set(FOREIGN_LABELS)
    for name in found:
        metric = BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name), BY_NAME.get(name))
        if metric is None:
            yield f"{name} is not declared"
        else:
            labels |= set(metric.labels)
    for listed in re.findall(r"by \(([^)]*)\)", expr):
        yield from (f"no label {label}" for label in listed.split(", ") if label not in labels)
    for listed in re.findall(r"\{([^}]*)\}", expr):
        yield from (f"no label {label}" for label in re.findall(r"(\w+)[=!]", listed) if label not in labels)
    if expr.count("(") != expr.count(")"):
        yield "brackets"


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_queries_name_what_is_there(expr: str) -> None:
    assert not list(complaints(expr))


@pytest.mark.parametrize(
    "expr",
    [
        "sum(ssastore_no_such_total)",
        "sum by (node)(ssastore_s3_requests_total)",
        'ssastore_s3_requests_total{status="200"}',
        "sum(up",
        "sum(ssastore_node_up",
    ],
)
def test_a_wrong_query_is_noticed(expr: str) -> None:
    assert list(complaints(expr))


def test_a_counter_is_read_by_its_rate_alone() -> None:
    for expr in EXPRESSIONS:
        for name in names(expr):
            metric = BY_NAME[base(name)]
            is_rated = re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", expr) is not None
            assert is_rated == (metric.kind is not Kind.GAUGE), (expr, name)


def test_what_all_gateways_say_alike_is_never_summed() -> None:
    """Two gateways would make two clusters of one."""
    for expr in EXPRESSIONS:
        for name in names(expr):
            metric = BY_NAME[base(name)]
            if metric.name.startswith(("ssastore_worker", "ssastore_node", "ssastore_cluster")):
                before = expr[: expr.index(name)]
                aggregate = re.findall(r"\b(max|min|sum|count|avg)\b", before)
                assert aggregate and aggregate[-1] in ("max", "min"), expr


def test_rule_file_is_yaml_of_the_rules() -> None:
    assert yaml.safe_load(rule_file()) == rules()
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    assert {alert.severity for alert in ALERTS} == {"critical", "warning"}


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert sum(len(panel.get("targets", [])) for panel in panels) == len(expressions())


def test_most_of_what_is_measured_is_shown_or_watched() -> None:
    used = {base(name) for expr in EXPRESSIONS for name in names(expr)}
    unused = set(BY_NAME) - used
    assert S3_DURATION.name in used and len(unused) <= 14, unused


def rows_below(heading: str) -> list[str]:
    """Rows of the first table under a heading of the document, without its head."""
    table = re.search(r"(?:^\|.*\n)+", TEXT.split(f"### {heading}\n", 1)[1], re.MULTILINE)
    assert table
    return table[0].splitlines()[2:]


def test_document_lists_the_metrics() -> None:
    wanted = [
        f"| `{metric}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |" for metric in METRICS
    ]
    assert rows_below("Metrics") == wanted


def test_document_lists_the_alerts() -> None:
    wanted = [f"| `{alert.name}` | {alert.severity} | {alert.for_} | {alert.action} |" for alert in ALERTS]
    assert rows_below("Alerts") == wanted
