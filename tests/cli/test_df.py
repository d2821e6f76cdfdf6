"""What ``df`` makes of what the nodes say of themselves."""

from __future__ import annotations

from typing import Any

from ssastore.cli import df
from ssastore.core.cluster import Cluster, ClusterRecord, NodeRecord
from ssastore.core.groups import GroupRecord, PlaneOwner
from ssastore.keyspace import GROUPS

NODES = tuple(NodeRecord(f"n{number}", f"fd00::{number}", workers=2) for number in range(1, 4))


def cluster(planes: int) -> Cluster:
    """One that is to have three replicas, and has so many."""
    owners = tuple(PlaneOwner(node.name) for node in NODES[:planes])
    record = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 1)
    return Cluster(record, NODES, tuple(GroupRecord(group, owners) for group in range(GROUPS)))


def told(name: str, *workers: dict[str, Any]) -> dict[str, Any]:
    owned = [worker for worker in workers if not worker.get("idle")]
    asked = [{"worker": at, "ok": True, **worker} for at, worker in enumerate(workers)]
    return {"name": name, "slices": len(owned), "workers": asked}


def worker(objects: int) -> dict[str, Any]:
    figures = {"records": 2 * objects, "used_bytes": 1000 * objects, "limit_bytes": 1 << 30}
    return {**figures, "disk_free_bytes": 1 << 40, "scrub": {"last": {"objects": objects}}}


IDLE = {"idle": True}


def test_a_worker_that_owns_nothing_hides_nothing_of_its_node() -> None:
    """A node that was given one slice has workers that own none, and answers."""
    node = df._node(told("n1", worker(5), IDLE))
    assert (node["objects"], node["used_bytes"], node["workers"]) == (5, 5000, 2)
    assert "does not answer" not in df._row(node)
    assert "owns nothing" in df._row(df._node(told("n2", IDLE, IDLE)))
    silent = {"ok": False, "error": "no answer"}
    assert "does not answer" in df._row(df._node(told("n3", worker(5), silent)))


def test_objects_are_counted_once_while_replicas_are_added() -> None:
    """The cluster's record says three from the first moment on."""
    for planes in (1, 3):
        report = {"nodes": [told(node.name, worker(5), worker(7)) for node in NODES[:planes]]}
        nodes = [df._node(node) for node in report["nodes"]]
        assert df._objects(nodes, cluster(planes)) == 12
        room = df._usable(report, cluster(planes))
        assert room is not None and room.used_bytes == 12_000
    assert df._objects([df._node(told("n1", {"ok": False}))], cluster(1)) is None
