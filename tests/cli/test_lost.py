"""Who is there, of nodes that somebody calls lost."""

from __future__ import annotations

from typing import Any

from ssastore.cli.lost import who_is_there


def node(name: str, *workers: dict[str, Any], alive: bool | None, slices: int = 7) -> dict[str, Any]:
    return {"name": name, "alive": alive, "slices": slices, "workers": list(workers)}


GOOD: dict[str, Any] = {"ok": True}
SILENT: dict[str, Any] = {"ok": False}
IDLE: dict[str, Any] = {"ok": True, "idle": True}


def test_who_answers_or_has_a_lease_is_there() -> None:
    report = {
        "nodes": [
            node("serving", GOOD, alive=True),
            node("cut off", GOOD, GOOD, alive=False),
            node("half", SILENT, GOOD, alive=False),
            node("ended just now", SILENT, IDLE, alive=True),
            node("gone", SILENT, alive=False),
            node("nobody says", SILENT, alive=None),
            node("emptied", IDLE, alive=True, slices=0),
            node("not asked for", GOOD, alive=True),
        ]
    }
    names = {found["name"] for found in report["nodes"]} - {"not asked for"}
    assert who_is_there(report, names) == (["serving", "cut off", "half"], ["ended just now"])
