"""What a node announces by itself, against a real BIRD and a real FRR as its router."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.env import Route
from ssastore.judge.verdicts import share_of_success
from ssastore.lab.birdconfig import Speaker, find_bird, router_config
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import in_namespace
from ssastore.routes.bgpsession import State
from ssastore.routes.bgpspeaker import BgpRoutes, Neighbour
from ssastore.system import run
from tests.birds import ask_bird, bgpd, birdc, need_bird, need_frr, prefixes_in
from tests.faults import load_on
from tests.lab.shared import module_lab, wait_until
from tests.lab.test_front import gateways, is_settled, process_of, under_load

pytestmark = pytest.mark.lab

SERVICE = IPv6Network("fd5a:0:0:1::/64")
MANY = 4096
DOCUMENT = (Path(__file__).parents[2] / "docs" / "how-to" / "bgp.md").read_text(encoding="utf-8")


class Router:
    """BIRD on the router of a fabric, and a node with a speaker."""

    def __init__(self, fabric: Fabric, folder: Path) -> None:
        self._socket = folder / "bird"
        self._config = folder / "bird.conf"
        router = Speaker("router", fabric.router)
        self.node = Speaker("n1", fabric.address_of("n1"))
        self.address = router.address
        self.neighbour = Neighbour(router.address, router.number)
        self._config.write_text(router_config(router, [self.node], [SERVICE]))
        self._log = open(folder / "log", "wb")  # noqa: SIM115  # closed with the process
        argv = [find_bird(), "-f", "-c", str(self._config), "-s", str(self._socket)]
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log)

    def ask(self, *command: str) -> str:
        return ask_bird(self._socket, *command)

    def routes(self) -> set[str]:
        """Those that it has learnt."""
        return prefixes_in(self.ask("show", "route"))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()


async def until(claim: Callable[[], bool], wait_s: float = 10) -> None:
    deadline = time.monotonic() + wait_s
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def beside_bird(
    inside: Callable[..., Any], folder: Path, work: Callable[[Router, BgpRoutes], Awaitable[Any]]
) -> Any:
    """Run ``work`` on the event loop of a node whose router is BIRD; its result."""

    @contextmanager
    def speaking(router: Router) -> Iterator[BgpRoutes]:
        routes = BgpRoutes([router.neighbour], number=router.node.number, source=router.node.address)
        try:
            yield routes
        finally:
            routes.close()

    async def on_node(router: Router) -> Any:
        with speaking(router) as routes:
            return await work(router, routes)

    def on_router() -> Any:
        fabric = Fabric.build(SERVICE, ["n1"])
        router = Router(fabric, folder)
        try:
            with in_namespace(fabric.namespace_fd("n1")):
                return run(on_node(router))
        finally:
            router.close()

    need_bird()
    return inside(on_router)


def in_router(router: Router, wanted: set[str]) -> Callable[[], bool]:
    return lambda: router.routes() == wanted


def test_bird_hears_what_is_announced_and_withdrawn(tmp_path: Path, inside: Any) -> None:
    """Before the session and in it; the next hop is the node. At the end BIRD forgets all of it at once."""
    wide, narrow, other = "fd5a:0:0:1:1000::/68", "fd5a:0:0:1:1a3f::/80", "fd5a:0:0:1:3000::/68"

    async def work(router: Router, routes: BgpRoutes) -> str:
        for prefix in (wide, narrow):
            routes.add(Route(prefix))
        await until(in_router(router, {wide, narrow}))
        assert routes.installed() == {Route(wide), Route(narrow)}
        assert routes.states() == {router.address: State.ESTABLISHED}
        routes.add(Route(other))
        routes.remove(Route(wide))
        await until(in_router(router, {narrow, other}))
        shown = router.ask("show", "route", "all", "for", narrow)
        assert f"BGP.as_path: {router.node.number}" in shown and f"via {router.node.address}" in shown
        # Asked for everything again, it says the same.
        router.ask("reload", "in", "n1")
        await asyncio.sleep(0.2)
        assert router.routes() == {narrow, other} and routes.states() == {router.address: State.ESTABLISHED}
        # The router ends the session; it is begun again, and all is told anew.
        router.ask("restart", "n1")
        await until(lambda: routes.states() == {router.address: State.CLOSED})
        await until(in_router(router, {narrow, other}))
        routes.close()
        await until(in_router(router, set()), 1)
        return router.ask("show", "protocols", "all", "n1")

    assert "Administrative shutdown" in beside_bird(inside, tmp_path, work)


def test_a_whole_table_is_told_at_once(
    tmp_path: Path, inside: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prefixes = {str(found) for found in IPv6Network("fd5a:0:0:1:2000::/68").subnets(new_prefix=80)}
    assert len(prefixes) == MANY

    async def work(router: Router, routes: BgpRoutes) -> tuple[int, float]:
        await until(lambda: routes.states() == {router.address: State.ESTABLISHED})
        began = time.monotonic()
        for prefix in prefixes:
            routes.add(Route(prefix))
        await until(in_router(router, prefixes))
        return len(routes.installed()), time.monotonic() - began

    count, took_s = beside_bird(inside, tmp_path, work)
    with capsys.disabled():
        print(f"\n  {count} prefixes in {took_s:.2f} s ")
    assert count == MANY


def test_frr_hears_the_same(tmp_path: Path, inside: Any) -> None:
    """With its filters, as docs/how-to/bgp.md shows them; bgpd runs alone, so its kernel is not told."""
    wide, narrow, foreign = "fd5a:0:0:1:1000::/68", "fd5a:0:0:1:1a3f::/80", "2001:db8::/32"
    need_frr()
    configuration = re.search(r"^```\n(router bgp 4200000001\n.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert configuration is not None
    text = configuration[1].replace("2001:db8:99::11", "fd5a::11").replace("2001:db8:5a:1::/64", str(SERVICE))
    (tmp_path / "bgpd.conf").write_text(text)

    async def work(fabric: Fabric, known: Callable[[], set[str]]) -> None:
        neighbour = Neighbour(fabric.router, 4_200_000_001)
        routes = BgpRoutes([neighbour], number=4_200_000_017, source=fabric.address_of("n1"))
        for prefix in (wide, narrow, foreign):
            routes.add(Route(prefix))
        await until(lambda: known() == {wide, narrow})
        routes.remove(Route(wide))
        await until(lambda: known() == {narrow})
        routes.close()
        await until(lambda: known() == set())

    def on_router() -> None:
        fabric = Fabric.build(SERVICE, ["n1"])
        with bgpd(tmp_path) as known, in_namespace(fabric.namespace_fd("n1")):
            run(work(fabric, known))

    inside(on_router)


def test_a_lab_without_daemons_on_nodes_leads_to_them_and_away(tmp_path_factory: Any, tmp_path: Path) -> None:
    """What is killed is withdrawn at once, and announced when it is there again; clients work on."""
    need_bird()
    options = (
        "--nodes",
        "4",
        "--replicas",
        "3",
        "--workers",
        "1",
        "--gateways",
        "2",
        "--topology",
        "bgp-built-in",
    )
    with module_lab(tmp_path_factory, "speaker", *options) as lab:

        def led() -> set[str]:
            return prefixes_in(birdc(lab, "router", "show", "route", "where", "source", "=", "RTS_BGP"))

        wait_until(lambda: is_settled(lab, ["gw", "gw2"]), "the front plane is shared out", 20)
        owners = [*lab.status()["nodes"], *gateways(lab).values()]
        covers = {owner["name"]: set(owner["prefixes"]) for owner in owners}
        everything = set().union(*covers.values())
        wait_until(lambda: led() == everything, "all of it is led to nodes")
        with load_on(lab, tmp_path, name="speakers") as load:
            lab.cli("node", "kill", "n2")
            wait_until(lambda: led() == everything - covers["n2"], "the dead node's goes", 5)
            lab.cli("node", "start", "n2")
            wait_until(lambda: led() == everything, "it is back")
            found = load.stop()
        assert share_of_success(found) == 1.0, found
        with under_load(lab, "fronts", 5) as told:
            os.kill(process_of(lab, "gw2"), signal.SIGKILL)
            wait_until(lambda: led() == everything - covers["gw2"], "the dead gateway's goes", 5)
            wait_until(lambda: is_settled(lab, ["gw"]), "another one has its part", 20)
            of_nodes = set().union(*[covers[node["name"]] for node in lab.status()["nodes"]])
            wait_until(
                lambda: led() == of_nodes | set(gateways(lab)["gw"]["prefixes"]), "and it is led there"
            )
        assert told["failed"] == [] and told["done"] > 50
