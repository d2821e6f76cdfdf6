"""The group with all the load is split, one half goes elsewhere, and they are merged again: no call fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from ssastore.core.numbers import part_piece
from ssastore.core.recut import halves_of
from ssastore.keyspace import Slice, iid_of_address, position_of, service_network
from ssastore.rebalance import read_cluster
from tests.lab.shared import module_lab
from tests.lab.test_moving import COUNT, HELD, LOAD, PLANE, ask, leads_to, owners
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(
        tmp_path_factory, "splitting", "--nodes", "4", "--replicas", "3", "--workers", "1"
    ) as found:
        yield found


def routes_inside(lab: RunningLab, group: int) -> list[str]:
    """Prefixes at the router that are longer than a slice's /80."""
    lines = lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "show", "table", "all").stdout
    hextet = f":{PLANE:x}{group:03x}:"
    return [line.split()[0] for line in lines.splitlines() if "/81" in line.split()[0] and hextet in line]


def apply(lab: RunningLab, path: Path, *arguments: str) -> None:
    lab.cli("plan", *arguments, "--out", str(path))
    done = json.loads(lab.cli("apply", str(path), "--json", timeout=120).stdout)
    assert done["done"] == done["moves"] == 1


def test_the_hottest_group_is_split_moved_by_halves_and_merged_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop, path = tmp_path / "stop", tmp_path / "plan.json"
    load = lab.start(PYTHON, "-c", LOAD, str(COUNT), str(stop))
    assert load.stdout is not None
    where = json.loads(load.stdout.readline())
    group, address = int(where["group"], 16), where["addresses"][PLANE]
    before = owners(lab, group)
    (target,) = {"n1", "n2", "n3", "n4"} - set(before)
    network = service_network(ask(lab, read_cluster).record.service)
    position = position_of(iid_of_address(network, IPv6Address(address)))
    hot = next(part for part in halves_of(group, 17) if position in part_piece(part))
    piece = Slice(part_piece(hot).first | PLANE << 60, 17)

    lab.cli("split", f"{group:03x}")
    assert len(ask(lab, read_cluster).groups[group].parts) == 2
    apply(lab, path, "--move", f"{piece}={target}")
    record = ask(lab, read_cluster).groups[group]
    assert sorted(view.owners[PLANE] for view in record.views()) == sorted([before[PLANE], target])
    found = leads_to(lab, "router", address)
    nodes = {node.name: node.address for node in ask(lab, read_cluster).nodes}
    assert nodes[target] in found, found
    assert str(piece.network(network)) in routes_inside(lab, group)
    assert int(lab.python(HELD, str(PLANE), str(COUNT))) == COUNT

    # The part that stayed comes after the other one, or that one goes back: to the first part's owners.
    apply(lab, path, "--merge", f"{group:03x}")
    record = ask(lab, read_cluster).groups[group]
    assert record.split is None and record.cfg == 2
    stop.touch()
    out, _ = load.communicate(timeout=60)
    said = json.loads(out.splitlines()[-1])
    with capsys.disabled():
        print(f"\nsplit, moved and merged under load: {said}")
    assert said["failed"] == [] and said["calls"] > 100
