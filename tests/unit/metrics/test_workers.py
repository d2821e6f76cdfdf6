"""What becomes of a status report: samples of the cluster, its nodes, its workers."""

from __future__ import annotations

from typing import Any

from ssastore.core.blobcache import BlobCache
from ssastore.core.majorities import Majorities
from ssastore.metrics import declared as m
from ssastore.metrics.declared import METRICS
from ssastore.metrics.page import metrics_page
from ssastore.metrics.process import process_samples
from ssastore.metrics.requests import RequestCounts
from ssastore.metrics.workers import cluster_samples
from ssastore.rules.verdict import Verdict


def worker(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "worker": 0,
        "ok": True,
        "uptime_s": 2.5,
        "cpu_s": 0.5,
        "slices": 3072,
        "silent": {"QUARANTINED": 2, "UNKNOWN": 1},
        "connections": 4,
        "accepted": 9,
        "denied": 1,
        "peer_errors": 0,
        "records": 5,
        "used_bytes": 8192,
        "limit_bytes": 10**9,
        "disk_free_bytes": 10**10,
        "log": {"records": 3, "writes": 7, "write_s": 0.01, "checkpoints": 1, "direct": 2},
        "moves": {"coming": 1, "going": 2, "done": 3, "bytes": 4, "waiting": "", "paused": True},
        "recovery": {"left": 5, "done": 6, "bytes": 7, "waiting": ""},
        "scrub": {
            "health": "2 copies not good",
            "left": {"here": 2, "elsewhere": 1, "unheard": 0, "why": {}},
            "repaired": 8,
            "not_repaired": 9,
            "pass": None,
            "last": {"ended_ms": 1_700_000_000_500},
        },
        "requests": {"16": 11, 17: 12},
        "refusals": {4: 13},
        "verdicts": {"kept": 14},
    }
    return found | changed


def report(
    *workers: dict[str, Any], coordinator: str | None = "n1", alive: bool | None = True
) -> dict[str, Any]:
    nodes = [{"name": "n1", "slices": 3072, "alive": alive, "workers": list(workers)}]
    gates = {"gateways": [{"name": "gw", "share": 0.5}]}
    return {"coordinator": coordinator, "replicas": 3, "front": gates, "nodes": nodes}


def samples(found: dict[str, Any]) -> dict[tuple[Any, ...], float]:
    majorities = Majorities(4096, (1, 2), 3)
    return {(metric, *labels): value for metric, value, labels in cluster_samples(found, majorities)}


def test_what_a_worker_says_has_its_labels() -> None:
    found = samples(report(worker()))
    assert found[m.WORKER_UP, "n1", 0] and found[m.NODE_UP, "n1"] and found[m.COORDINATED,]
    assert found[m.SILENT, "n1", 0] == 3
    assert found[m.REQUESTS, "n1", 0, "Get"] == 11 and found[m.REQUESTS, "n1", 0, "Put"] == 12
    assert found[m.REFUSALS, "n1", 0, "NOT_MINE"] == 13
    assert found[m.VERDICTS, "n1", 0, "kept"] == 14
    assert found[m.BAD, "n1", 0, "here"] == 2
    assert found[m.SCRUBBED_AT, "n1", 0] == 1_700_000_000.5 and not found[m.SCRUB_HEALTHY, "n1", 0]
    assert found[m.LOG_WRITES, "n1", 0] == 7 and found[m.PAUSED, "n1", 0]
    assert (found[m.GROUPS_LOST,], found[m.GROUPS_DEGRADED,]) == (2, 3)
    assert found[m.FRONT_SHARE, "gw"] == 0.5


def test_who_is_silent_or_idle_has_no_figures() -> None:
    found = samples(report({"worker": 0, "ok": False, "error": "x"}, {"worker": 1, "ok": True, "idle": True}))
    assert not found[m.WORKER_UP, "n1", 0] and found[m.WORKER_UP, "n1", 1]
    assert (m.RECORDS, "n1", 0) not in found and (m.RECORDS, "n1", 1) not in found


def test_what_nobody_can_tell_has_no_sample() -> None:
    found = samples(report(worker(), coordinator=None, alive=None))
    assert not found[m.CONTROL_UP,]
    assert (m.COORDINATED,) not in found and (m.NODE_UP, "n1") not in found


def test_a_worker_of_another_version_lacks_some_figures_and_no_others() -> None:
    other = worker(requests={"16": 1, "250": 1}, scrub={})
    del other["log"]
    found = samples(report(other))
    assert (m.LOG_WRITES, "n1", 0) not in found and (m.BAD, "n1", 0, "here") not in found
    assert found[m.RECORDS, "n1", 0] == 5


def test_a_page_has_a_sample_of_every_metric() -> None:
    counts = RequestCounts()
    counts.in_flight += 1
    counts.answered("GetObject", 404)
    counts.failed("NoSuchKey")
    counts.ended("GetObject", 0.003)
    text = metrics_page(
        "1.2.3", counts, BlobCache(), {Verdict.KEPT: 2}, report(worker()), Majorities(4096, (), 0)
    )
    assert 'ssastore_build_info{version="1.2.3",form=' in text
    for metric in METRICS:
        assert (
            f"\n{metric.name}{{" in text or f"\n{metric.name} " in text or f"\n{metric.name}_sum" in text
        ), metric


def test_what_the_kernel_knows_of_this_process() -> None:
    found = dict(process_samples())
    assert 10 << 20 < found[m.RESIDENT] < 4 << 30
    assert 2 < found[m.DESCRIPTORS] < found[m.DESCRIPTORS_MAX]
    assert found[m.CPU] > 0.1 and found[m.STARTED] > 1_700_000_000
