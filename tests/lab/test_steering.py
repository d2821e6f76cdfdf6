"""The address leads to the worker: lanes and listeners on the real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.env import Route
from ssastore.keyspace import LANES, address_of, lane_of, slice_of
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import in_namespace
from ssastore.transport.steering import attach_lane_steering

pytestmark = pytest.mark.lab

Inside = Callable[..., Any]

SERVICE = IPv6Network("fd5a:0:0:1::/64")
PORT = 7480


def open_listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("::", PORT))
    listener.listen(64)
    listener.setblocking(False)
    return listener


class Node:
    """A node with W listeners, dialled from another host."""

    def __init__(self, workers: int) -> None:
        self.fabric = Fabric.build(SERVICE, ["n1", "client"])
        self.fabric.router_routes().add(Route(str(SERVICE), str(self.fabric.address_of("n1"))))
        self.fabric.host_routes("n1").add(Route(str(SERVICE)))
        self.workers = workers
        self.listeners = [self.open_listener() for _ in range(workers)]
        attach_lane_steering(self.listeners[0], workers)

    def open_listener(self) -> socket.socket:
        with in_namespace(self.fabric.namespace_fd("n1")):
            return open_listener()

    def reached(self, iid: int) -> int:
        """Number of the listener at which a connection to ``iid`` arrives."""
        with in_namespace(self.fabric.namespace_fd("client")):
            client = socket.socket(socket.AF_INET6)
        with client:
            client.settimeout(30)
            client.connect((str(address_of(SERVICE, iid)), PORT))
            for number, listener in enumerate(self.listeners):
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    continue
                return number
        raise AssertionError("nobody accepted")

    def steered(self) -> list[int]:
        """For each lane the listener reached, in slices of several planes and groups."""
        found = []
        for lane in range(LANES):
            plane, group = lane % 3, 0x5A0 + 16 * lane + lane
            iid = slice_of(plane, group).first + 0x1234_5678_9ABC
            assert lane_of(iid) == lane
            found.append(self.reached(iid))
        return found

    def wanted(self) -> list[int]:
        return [lane % self.workers for lane in range(LANES)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 16])
def test_every_lane_reaches_its_worker(inside: Inside, workers: int) -> None:
    def work() -> None:
        node = Node(workers)
        assert node.steered() == node.wanted()

    inside(work)


def test_order_outlives_a_worker_whose_socket_is_kept(inside: Inside) -> None:
    """A worker that dies closes its copy of the socket, not the supervisor's."""

    def work() -> None:
        node = Node(4)
        for _ in range(2):
            if (worker := os.fork()) == 0:
                node.listeners[1].close()
                os._exit(0)
            os.waitpid(worker, 0)
        assert node.steered() == node.wanted()

    inside(work)


def test_what_waits_for_a_dead_worker_is_served_by_the_next(inside: Inside) -> None:
    def work() -> None:
        node = Node(2)
        with in_namespace(node.fabric.namespace_fd("client")):
            client = socket.socket(socket.AF_INET6)
        client.connect((str(address_of(SERVICE, slice_of(0, 1).first + 5)), PORT))
        if (worker := os.fork()) == 0:
            os._exit(0)
        os.waitpid(worker, 0)
        served, _ = node.listeners[1].accept()
        assert served.getpeername() == client.getsockname()

    inside(work)


def test_socket_opened_anew_takes_another_place(inside: Inside) -> None:
    """Why a supervisor holds the sockets: the last one has moved into the gap."""

    def work() -> None:
        node = Node(4)
        node.listeners[1].close()
        node.listeners[1] = node.open_listener()
        assert node.steered()[:4] == [0, 3, 2, 1]

    inside(work)
