"""Edge, filters, nodes: whole planes, then slices; and answers that go another way than the questions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from ssastore.judge.verdicts import share_of_success
from ssastore.lab.fabric import BRIDGE_MAC
from tests.birds import birdc, need_bird
from tests.faults import load_on
from tests.lab.shared import module_lab, wait_until
from tests.labs import RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SHAPE = ("--nodes", "3", "--replicas", "3", "--workers", "1", "--topology", "tiers")

# What its bridge passes from port to port is shown to these rules as well where br_netfilter is loaded; what
# it routes is addressed to itself.
COUNT = """
table ip6 seen {{
    chain forwarded {{
        type filter hook forward priority 0;
        ether daddr {mac} ip6 saddr {service} counter drop
        ether daddr {mac} ip6 daddr {service} counter
    }}
}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    need_bird()
    with module_lab(tmp_path_factory, "tiers", *SHAPE) as found:
        yield found


def bird_routes(lab: RunningLab, host: str) -> dict[str, str]:
    """Prefix to next hop, of what a host's kernel has from BIRD."""
    command = ("exec", "--host", host, "--", "ip", "-6", "-json", "route", "show", "proto", "bird")
    return {route["dst"]: route["gateway"] for route in json.loads(lab.cli(*command).stdout)}


def test_the_edge_knows_planes_and_filters_know_slices(lab: RunningLab) -> None:
    status = lab.status()
    planes = [str(plane) for plane in IPv6Network(status["service"]).subnets(new_prefix=68)]
    covers = {prefix for node in status["nodes"] for prefix in node["prefixes"]}
    edge = bird_routes(lab, "router")
    assert set(edge) == set(planes)
    assert len({edge[plane] for plane in planes[::2]}) == len({edge[plane] for plane in planes[1::2]}) == 1
    assert edge[planes[0]] != edge[planes[1]]
    for host in ("f1", "f2", "exit"):
        assert set(bird_routes(lab, host)) == covers


def test_answers_do_not_pass_the_edge(lab: RunningLab, tmp_path: Path) -> None:
    """The edge drops what comes from the service, and nobody misses it; the questions are counted."""
    service = lab.status()["service"]
    at_edge = ("exec", "--host", "router", "--", "nft")
    lab.cli(*at_edge, "-f", "-", input=COUNT.format(service=service, mac=BRIDGE_MAC))
    with load_on(lab, tmp_path, name="tiers") as load:
        # One filter is lost meanwhile: the other has all planes.
        birdc(lab, "f1", "disable", "edge")
        wait_until(lambda: len(set(bird_routes(lab, "router").values())) == 1, "the other one takes over")
        found = load.stop()
    birdc(lab, "f1", "enable", "edge")
    assert share_of_success(found) == 1.0, found
    dropped, asked = map(
        int, re.findall(r"counter packets (\d+)", lab.cli(*at_edge, "list", "ruleset").stdout)
    )
    assert dropped == 0 and asked > 100
