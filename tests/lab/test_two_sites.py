"""One cluster at two sites: each /64 leads into its own, one has what the other is asked for, one is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.rebalance import read_cluster
from tests.birds import need_bird
from tests.lab.shared import ask, module_lab, wait_until
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SHAPE = ("--nodes", "3", "--replicas", "3", "--workers", "1", "--topology", "two-sites")
NAME = "store.example"
RECOVERED_S = 5.0

LOAD = """
import asyncio, json, os, sys, time
from ssastore import AsyncClient
from ssastore.system import run

async def main(url, stop, name):
    found = {"calls": 0, "failed": [], "gap_s": 0.0, "prefixes": []}
    async with AsyncClient.from_url(url) as client:
        bucket = client.bucket("kept")
        await bucket.put(name, b"0")
        print("begun", flush=True)
        turn, last = 0, time.monotonic()
        while not os.path.exists(stop):
            turn += 1
            key, value = f"{name}-{turn % 50}", b"%d" % turn * 20
            try:
                await bucket.put(key, value)
                if await bucket.get(key) != value:
                    found["failed"].append(f"{key} is wrong")
            except Exception as error:
                found["failed"].append(f"{key}: {type(error).__name__} {error}")
            found["calls"] += 2
            found["gap_s"] = max(found["gap_s"], time.monotonic() - last)
            last = time.monotonic()
            if str(client.service) not in found["prefixes"]:
                found["prefixes"].append(str(client.service))
            await asyncio.sleep(0.01)
    print(json.dumps(found), flush=True)

run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    need_bird()
    with module_lab(tmp_path_factory, "sites", *SHAPE) as found:
        found.cli("mb", "kept")
        yield found


def sites_of(lab: RunningLab) -> list[str]:
    found: list[str] = json.loads(lab.cli("sites", "show", "--json").stdout)["sites"]
    return found


def url_of(service: str) -> str:
    return f"ssa://[{service.removesuffix('/64')}]:7480/?replicas=3"


def ip(lab: RunningLab, host: str, *words: str) -> str:
    return lab.cli("exec", "--host", host, "--", "ip", *words).stdout


def owned_by(lab: RunningLab, node: str, service: str) -> str:
    """An address in a service prefix of something that a node owns."""
    group = next(record for record in ask(lab, read_cluster).groups if record.owners[0] == node)
    network = IPv6Network(service)
    return str(IPv6Address(int(network.network_address) | group.group << 48 | 0x1234))


@contextmanager
def load(lab: RunningLab, url: str, stop: Path, name: str) -> Iterator[dict[str, Any]]:
    said: dict[str, Any] = {}
    # ``exec`` names the lab's own name server, which does not know this name.
    server = "SSASTORE_NAME_SERVER=[::1]:53"
    process = lab.start("env", server, PYTHON, "-c", LOAD, url, str(stop), name)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    try:
        yield said
    finally:
        stop.touch()
        said |= json.loads(process.communicate(timeout=60)[0].splitlines()[-1])


@contextmanager
def name_server(lab: RunningLab) -> Iterator[None]:
    """On the clients' host, with both sites."""
    record = "v=SSA1; replicas=3"
    command = ("dns", "serve", NAME, *sites_of(lab), "--record", record, "--listen", "::1", "--port", "53")
    process = lab.start(PYTHON, "-m", "ssastore", *command)
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_each_prefix_leads_into_its_site_and_on_to_the_other_by_the_link_between(lab: RunningLab) -> None:
    """Spill: what one site announces and the other one has goes over the inter-site link, and is answered."""
    first, second = sites_of(lab)
    assert {node.name: node.zone for node in ask(lab, read_cluster).nodes} == {
        "n1": "s1",
        "n2": "s2",
        "n3": "third",
    }
    for service, own, other, far in ((first, "s1", "s2", "n2"), (second, "s2", "s1", "n1")):
        address = owned_by(lab, far, service)
        assert f"via {core_address(lab, own)} " in ip(lab, "router", "-6", "route", "get", address)
        assert f" dev {other} " in ip(lab, own, "-6", "route", "get", address)


def test_a_site_is_lost_and_clients_keep_their_url(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients have the lost site's prefix, the service's name, the other prefix. None fails or takes 5 s."""
    first, second = sites_of(lab)
    stop = tmp_path / "stop"
    with (
        name_server(lab),
        load(lab, url_of(first), stop, "literal") as literal,
        load(lab, f"ssa://{NAME}/", stop, "name") as named,
        load(lab, url_of(second), stop, "other") as other,
    ):
        time.sleep(1)
        assert f"via {core_address(lab, 's1')} " in ip(lab, "router", "-6", "route", "show", first)
        ip(lab, "router", "link", "set", "s1", "down")
        ip(lab, "s1", "link", "set", "s2", "down")
        began = time.monotonic()
        wait_until(
            lambda: f"via {core_address(lab, 's2')} " in ip(lab, "router", "-6", "route", "show", first),
            "the other site takes the whole /64 over",
        )
        taken_over_s = time.monotonic() - began
        time.sleep(2)
        ip(lab, "router", "link", "set", "s1", "up")
        ip(lab, "s1", "link", "set", "s2", "up")
        wait_until(
            lambda: f"via {core_address(lab, 's1')} " in ip(lab, "router", "-6", "route", "show", first),
            "it has it back",
        )
        time.sleep(1)
    with capsys.disabled():
        print(f"\n  taken over in {taken_over_s:.1f} s; {literal}; {named}; {other} ")
    for said in (literal, named, other):
        assert said["failed"] == [] and said["calls"] > 50 and said["gap_s"] < RECOVERED_S
    assert literal["prefixes"] == [first] and other["prefixes"] == [second]


def core_address(lab: RunningLab, router: str) -> str:
    """Of a site's router on the core's link."""
    shown = json.loads(ip(lab, router, "-6", "-json", "addr", "show", "eth0", "scope", "global"))
    found: str = shown[0]["addr_info"][0]["local"]
    return found
