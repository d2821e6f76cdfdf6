"""What a site's hosts are told: settings that nodes, gateways and etcd take, and the same site on each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssastore.cli import cli
from ssastore.config import GatewayConfig, NodeConfig, load
from ssastore.control.address import parse_control
from ssastore.core.cluster import NodeRecord
from ssastore.errors import ConfigError
from ssastore.hosting.files import make_first, read_site
from ssastore.hosting.plan import Places, Site, decode_site, etcd_settings, names_of, node_settings
from ssastore.hosting.tokens import Token

NODES = tuple(NodeRecord(f"n{n}", f"fd00::{n}", zone=f"z{n}") for n in range(1, 5))
SITE = Site("store.example", "fd5a:0:0:1::/64", 3, NODES, {"announce": "kernel"}, "ab")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "etc", tmp_path / "data")


def test_a_site_comes_back() -> None:
    assert decode_site(SITE.encode()) == SITE


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "ssastore.site/2"},
        {"name": "Store"},
        {"service": "fd5a::/48"},
        {"replicas": 2},
        {"replicas": 5},
        {"nodes": []},
        {"nodes": [{"name": "n1"}]},
        {"nodes": {}},
        {"more": 1},
        {"settings": []},
    ],
)
def test_what_is_no_site(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        decode_site(json.dumps(json.loads(SITE.encode()) | change))
    for text in ("", "[]", "null", "{"):
        with pytest.raises(ConfigError):
            decode_site(text)


@pytest.mark.parametrize(("count", "members"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_an_etcd_has_an_odd_number_of_members(count: int, members: int, places: Places) -> None:
    site = Site("store.example", SITE.service, 3 if count > 2 else 1, NODES[:count])
    assert len(site.members) == members
    told = [etcd_settings(site, node, places) for node in site.nodes]
    assert [found is not None for found in told] == [at < members for at in range(count)]
    assert told[0] is not None and told[0]["initial-cluster"].count("https://[") == members
    assert told[0]["client-transport-security"]["client-cert-auth"] is True


def test_what_follows_from_a_site_cannot_be_set(places: Places) -> None:
    """It would be the same on every host, or another one than the record of the cluster says."""
    bare = Site("store.example", SITE.service, 3, NODES)
    for name, value in node_settings(bare, NODES[0], places).items():
        with pytest.raises(ConfigError, match=f"^{name}: follows from the site"):
            Site("store.example", SITE.service, 3, NODES, {"announce": "kernel", name: value})


def test_the_first_host_s_files_are_settings(places: Places) -> None:
    make_first(SITE, places)
    node = load(str(places.node), NodeConfig)
    gateway = load(str(places.settings / "gateway.toml"), GatewayConfig)
    assert (node.name, node.announce, node.tls_name) == ("n1", "kernel", "store.example")
    assert gateway.control == node.control and gateway.s3_domain == "store.example"
    address = parse_control(node.control)
    assert address is not None and address.endpoints == tuple(f"https://[fd00::{n}]:2379" for n in (1, 2, 3))
    assert (address.ca, address.cert) == (str(places.tls / "ca.pem"), str(places.tls / "host.pem"))
    assert read_site(places) == SITE
    assert {path.stat().st_mode & 0o077 for path in places.settings.rglob("*")} == {0}
    assert names_of(SITE, NODES[1])[:3] == ["store.example", "*.store.example", "fd00::2"]
    with pytest.raises(ConfigError, match=r"this host is one of store\.example already"):
        make_first(SITE, places)
    places.site.unlink()
    with pytest.raises(ConfigError, match="move away what is not of this site"):
        make_first(SITE, places)


def test_a_user_that_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """Else the tokens would be lost, or the host's own used up, and neither command could be given again."""
    where = ["--settings", str(tmp_path / "etc"), "--data", str(tmp_path / "data"), "--user", "nobody-at-all"]
    token = Token("::1", 1, "store.example", "0" * 64, "secret").encode()
    init = ["init", "--name", "store.example", "--service", "fd5a:1:2:3::/64", "n1=fd00::1", "n2=fd00::2"]
    for command in (init, ["node", "join", token, "--wait", "0"]):
        with pytest.raises(ConfigError, match="--user nobody-at-all: no such user"):
            cli.main([*command, *where], standalone_mode=False)
        assert not list(tmp_path.iterdir())
