"""A cluster of several hosts: its secrets, its forming, who joins it, and commands on it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssastore.config import load_secrets
from ssastore.control.embedded import EmbeddedControlServer
from ssastore.core.cluster import NodeRecord
from ssastore.hosting.plan import Site
from tests.cli.conftest import Done

Run = Callable[..., Done]

SERVICE = "fd5a:1:2:3::/64"
NODES = [f"n{n}=fd00::{n}" for n in (1, 2, 3)]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """The socket of a control store that is served in a thread, and empty."""
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        server = await EmbeddedControlServer.start(tmp_path / "control", tmp_path / "control.sock")
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.02)
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    yield str(tmp_path / "control.sock")
    over.set()
    thread.join(20)


@pytest.fixture
def node(control: str, secrets_file: Path, tmp_path: Path) -> str:
    """Settings of a node."""
    path = tmp_path / "n1.toml"
    lines = [
        'name = "n1"',
        f'control = "{control}"',
        'data_dir = "/nowhere"',
        f'secrets_file = "{secrets_file}"',
    ]
    path.write_text("\n".join(lines))
    return str(path)


def gateway(control: str, secrets_file: Path, *lines: str) -> str:
    """Settings of a gateway."""
    path = secrets_file.parent / "gateway.toml"
    path.write_text("\n".join([f'control = "{control}"', f'secrets_file = "{secrets_file}"', *lines]))
    return str(path)


def form(ssastore: Run, node: str, *nodes: str, service: str = SERVICE) -> Done:
    return ssastore("control", "form", "--config", node, "--service", service, *nodes)


def test_a_cluster_is_formed_once_and_grows(
    ssastore: Run, node: str, control: str, secrets_file: Path
) -> None:
    formed = form(ssastore, node, *NODES)
    assert formed.code == 0 and f"{SERVICE}, 3 replicas on 3 nodes" in formed.out
    joined = ssastore("control", "join", "--config", node, "n4=fd00::4,zone=b,weight=2,workers=4,port=7490")
    assert joined.code == 0 and joined.out.startswith("n4 is a node")
    assert (
        ssastore("control", "join", "--config", node, "n4=fd00::4,zone=b,weight=2,workers=4,port=7490")
        == joined
    )
    again = form(ssastore, node, *NODES)
    assert again.code == 0 and "nodes n1, n2, n3, n4" in again.out
    # What was asked for the second time is not what there is, and nothing of it is done.
    assert "fd5a:1:2:3::/64" in form(ssastore, node, "x=fd00::9", service="fd5a:9:9:9::/64").out
    left = ssastore("control", "leave", "--config", node, "n1")
    assert left.code == 2 and "n1 owns 4096 slices" in left.err
    # Commands find it by the settings of a gateway.
    site = gateway(control, secrets_file, 'admin_listen = "[::]:7481"')
    shown = json.loads(ssastore("--context", site, "workers", "show", "--json").out)
    assert {name: row["workers"] for name, row in shown.items()} == {"n1": 1, "n2": 1, "n3": 1, "n4": 4}
    assert ssastore("control", "leave", "--config", node, "n4").code == 0
    assert "no node n4" in ssastore("control", "leave", "--config", node, "n4").err


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (["n1"], "written as NAME=ADDRESS"),
        (["n1=10.0.0.1"], "written as NAME=ADDRESS"),
        (["n1=fd00::1,zone"], "'zone' is none of"),
        (["n1=fd00::1,weight=x"], "'weight=x' is none of"),
        (["n1=fd00::1,colour=red"], "'colour=red' is none of"),
        (["n1=fd00::1,zone=a,zone=b"], "is there twice"),
        (["n1=fd00::1,port=0"], "port"),
        ([*NODES, "n4=fd00::1"], "the same address and port"),
        ([*NODES, "n4=fd5a:1:2:3::1"], "lies inside the service"),
        (NODES[:2], "replicas"),
    ],
)
def test_what_makes_no_cluster_is_refused(ssastore: Run, node: str, nodes: list[str], text: str) -> None:
    done = form(ssastore, node, *nodes)
    assert done.code == 2 and text in done.err, done.err
    assert "no cluster" in ssastore("control", "join", "--config", node, "n1=fd00::1").err


def test_a_service_is_a_64(ssastore: Run, node: str) -> None:
    done = form(ssastore, node, *NODES, service="fd5a:1:2::/48")
    assert done.code == 2 and "must be a /64" in done.err


@pytest.mark.parametrize(
    ("joins", "text"),
    [
        ("n1=fd00::9", "the cluster has a node n1 already"),
        ("n9=fd00::1", "two nodes have the same address and port"),
        ("n9=fd5a:1:2:3::9", "lies inside the service"),
    ],
)
def test_who_cannot_join_is_told(ssastore: Run, node: str, joins: str, text: str) -> None:
    form(ssastore, node, *NODES)
    done = ssastore("control", "join", "--config", node, joins)
    assert done.code == 2 and text in done.err


def test_a_lab_s_commands_leave_a_site_alone(
    ssastore: Run, node: str, control: str, secrets_file: Path
) -> None:
    form(ssastore, node, *NODES)
    site = gateway(control, secrets_file, 'admin_listen = "127.0.0.1:7481"')
    for command in (["down"], ["node", "add", "n4"], ["node", "kill", "n1"], ["node", "remove", "n1"]):
        done = ssastore("--context", site, *command)
        assert done.code == 2 and "is no lab's" in done.err, command


@pytest.mark.parametrize("listen", ["[::1]:7481", "[fd00::1]:7481", ""])
def test_a_gateway_that_commands_cannot_ask_is_said(
    ssastore: Run, node: str, control: str, secrets_file: Path, listen: str
) -> None:
    form(ssastore, node, *NODES)
    done = ssastore("--context", gateway(control, secrets_file, f'admin_listen = "{listen}"'), "status")
    assert done.code == 2 and "admin_listen must include" in done.err


def test_secrets_are_made_once(ssastore: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    made = ssastore("key", "init", str(path))
    assert made.code == 0 and path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    found = load_secrets(str(path))
    assert list(found.access_keys) == [made.out.strip()] and len(found.cluster_secret) == 32
    assert ssastore("key", "init", str(path)) == made and path.read_bytes() == content
    os.chmod(path, 0o644)
    assert "chmod 600" in ssastore("key", "init", str(path)).err


@pytest.mark.parametrize("more", [NODES[:1], ["--service", SERVICE], ["--replicas", "1"]])
def test_a_site_says_all_that_forms_it(ssastore: Run, node: str, tmp_path: Path, more: list[str]) -> None:
    """What is said beside it would be ignored, and somebody counts on it."""
    site = tmp_path / "site.json"
    form = ("control", "form", "--config", node, "--site", str(site))
    assert "No such file" in ssastore(*form).err
    nodes = tuple(NodeRecord(name, address) for name, _, address in (text.partition("=") for text in NODES))
    site.write_text(Site("store.example", SERVICE, 3, nodes).encode())
    refused = ssastore(*form, *more)
    assert refused.code == 2 and "--site says nodes, service and replicas" in refused.err
    assert "3 replicas on 3 nodes" in ssastore(*form).out
