"""What BIRD is told in a lab is what docs/how-to/bgp.md says, and BIRD takes it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from ssastore.lab.birdconfig import Peer, Speaker, find_bird, node_config, router_config, wide_config
from tests.birds import need_bird

DOCUMENT = (Path(__file__).parents[3] / "docs" / "how-to" / "bgp.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```\n(router id.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)

ROUTER = Speaker("router", IPv6Address("2001:db8:99::1"))
NODE = Speaker("n1", IPv6Address("2001:db8:99::11"))
ODD = Speaker("a.b-c", IPv6Address("2001:db8:99::1234"))
SERVICE, OTHER = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:5::/64")

SITE = Speaker("s1", IPv6Address("2001:db8:98::1"), 1)
PEER = Peer(ROUTER, IPv6Address("2001:db8:99::12"), ROUTER.address, exported="whole_out")
WIDE = wide_config(
    SITE,
    [replace(PEER, speaker=replace(ROUTER, name="core"))],
    services=[SERVICE, OTHER],
    links=[IPv6Network("2001:db8:98::/64"), IPv6Network("2001:db8:99::/64")],
    own=SERVICE,
)
GENERATED = [
    node_config(NODE, ROUTER),
    router_config(ROUTER, [NODE, ODD], [SERVICE, OTHER]),
    router_config(SITE, [], [SERVICE, OTHER]) + WIDE,
]


def plain(text: str) -> list[str]:
    """Lines without what a lab has besides."""
    return [line for line in text.replace("'", "").splitlines() if line and not line.startswith("log ")]


def test_the_document_shows_a_node_as_labs_have_it() -> None:
    assert plain(SHOWN[0]) == plain(GENERATED[0])


def test_the_document_shows_a_router_as_labs_have_it_with_the_edge_besides() -> None:
    edge = r"protocol static edge \{.*?\n\}\n"
    shown = re.sub(edge, "", SHOWN[1], flags=re.DOTALL).replace(' || proto = "edge"', "")
    assert plain(shown) == plain(router_config(ROUTER, [NODE], [SERVICE]))


@pytest.mark.parametrize(
    "text", [*GENERATED, *SHOWN], ids=["node", "router", "site", "shown node", "shown router"]
)
def test_bird_takes_it(text: str, tmp_path: Path) -> None:
    need_bird()
    (tmp_path / "bird.conf").write_text(text)
    done = subprocess.run(
        [find_bird(), "-p", "-c", str(tmp_path / "bird.conf")], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
