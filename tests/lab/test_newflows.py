"""New connections go to another host while those that are open stay: on the real kernel."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.env import Route
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import in_namespace
from ssastore.routes.newflows import NewFlows, open_at, rules

pytestmark = pytest.mark.lab

SERVICE = IPv6Network("fd5a:0:0:1::/64")
GIVEN, KEPT = IPv6Network("fd5a:0:0:1:f400::/72"), IPv6Network("fd5a:0:0:1:f500::/72")
PORT = 7482


class Net:
    """A router that sends everything to ``old``, which has given a part to ``new``."""

    def __init__(self) -> None:
        self.fabric = Fabric.build(SERVICE, ["old", "new", "client"])
        self.listeners = {}
        for host in ("old", "new"):
            self.fabric.host_routes(host).add(Route(str(GIVEN)))
            with in_namespace(self.fabric.namespace_fd(host)):
                self.listeners[host] = socket.create_server(("::", PORT), family=socket.AF_INET6)
            self.listeners[host].settimeout(5)
        self.fabric.host_routes("old").add(Route(str(KEPT)))
        for prefix in (GIVEN, KEPT):
            self.fabric.router_routes().add(Route(str(prefix), str(self.fabric.address_of("old"))))

    def dial(self, prefix: IPv6Network, host: str) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection that must arrive at a host."""
        with in_namespace(self.fabric.namespace_fd("client")):
            near = socket.create_connection((str(prefix[5]), PORT), timeout=5)
        return near, self.listeners[host].accept()[0]

    def send_on(self, sent_on: dict[IPv6Network, str]) -> None:
        with in_namespace(self.fabric.namespace_fd("old")):
            asyncio.run(NewFlows(PORT).send_on(sent_on))

    def open_at_old(self) -> set[IPv6Network]:
        with in_namespace(self.fabric.namespace_fd("old")):
            return asyncio.run(open_at(PORT, [GIVEN, KEPT]))


def echo(near: socket.socket, far: socket.socket, size: int = 100_000) -> None:
    """Bytes go both ways."""
    for one, other in ((near, far), (far, near)):
        one.sendall(b"x" * size)
        received = 0
        while received < size:
            received += len(other.recv(size))


def test_what_is_open_stays_and_what_is_new_goes_on(inside: Callable[..., Any]) -> None:
    def work() -> None:
        net = Net()
        open_before = net.dial(GIVEN, "old")
        echo(*open_before)
        net.send_on({GIVEN: str(net.fabric.address_of("new"))})
        new = net.dial(GIVEN, "new")
        for _ in range(3):
            echo(*open_before)
            echo(*new)
        echo(*net.dial(KEPT, "old"))
        net.send_on({})
        echo(*net.dial(GIVEN, "old"))
        echo(*open_before)

    inside(work)


ACK_IS_LATE = f"""table ip6 late {{
    chain out {{
        type filter hook output priority 0;
        tcp dport {PORT} tcp flags & (syn | ack | rst) == ack drop
    }}
}}"""


def nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def test_a_connection_that_is_half_open_stays(inside: Callable[..., Any]) -> None:
    """Its client has the answer, and the client's own is on its way when the rule is set."""

    def work() -> None:
        net = Net()
        with in_namespace(net.fabric.namespace_fd("client")):
            nft(ACK_IS_LATE)
            near = socket.create_connection((str(GIVEN[5]), PORT), timeout=5)
            net.send_on({GIVEN: str(net.fabric.address_of("new"))})
            nft("delete table ip6 late")
            near.sendall(b"GET")
        far = net.listeners["old"].accept()[0]
        assert far.recv(9) == b"GET"
        echo(*net.dial(GIVEN, "new"))

    inside(work)


def test_what_the_kernel_still_sends_is_open(inside: Callable[..., Any]) -> None:
    """The process has closed it; its last bytes are on their way, or its client would have them."""

    def work() -> None:
        net = Net()
        assert net.open_at_old() == set()
        near, far = net.dial(GIVEN, "old")
        assert net.open_at_old() == {GIVEN}
        far.setblocking(False)
        while True:
            try:
                far.send(b"x" * 100_000)
            except BlockingIOError:
                break
        far.close()
        assert net.open_at_old() == {GIVEN}
        while near.recv(1 << 20):
            pass
        near.close()
        deadline = time.monotonic() + 5
        while net.open_at_old():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    inside(work)


def test_where_there_is_no_nft_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    flows = NewFlows(PORT)
    asyncio.run(flows.send_on({GIVEN: "fd5a::12"}))
    asyncio.run(flows.send_on({}))
    assert [record.getMessage() for record in caplog.records] == ["flows.not_sent_on"]


def test_nothing_is_left_of_what_was_there_before() -> None:
    assert rules(PORT, {}) == "table ip6 ssastore_front {}\ndelete table ip6 ssastore_front\n"
    assert rules(PORT, {GIVEN: "fd5a::12"}).startswith(rules(PORT, {}))
