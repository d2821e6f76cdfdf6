"""Who is let in, and how a connection ends whose address is another gateway's now."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv6Network

import pytest

from ssastore.env import spawn
from ssastore.s3 import connections
from ssastore.s3.connections import Connections
from tests.s3.gateways import Gateway

HERE, ELSEWHERE = IPv6Network("::1/128"), IPv6Network("2001:db8::/32")
REQUEST = b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(nodes=1) as running:
        yield running


@contextmanager
def served(gateway: Gateway, lets_in: bool | None = None) -> Iterator[tuple[Connections, int]]:
    """One more server of the gateway, at ``::1``; its connections and port."""

    async def begin() -> tuple[Connections, int]:
        check = None if lets_in is None else lambda peer, own: bool(peer and own and lets_in)
        made = gateway.server.http_server(check)
        listener = await gateway._loop.create_server(made, "::1", 0)
        closing.append(listener)
        return made, int(listener.sockets[0].getsockname()[1])

    closing: list[object] = []
    made, port = gateway.run(begin())

    async def end() -> None:
        for listener in closing:
            listener.close()  # type: ignore[attr-defined]
        await made.shutdown(0.2)

    try:
        yield made, port
    finally:
        gateway.run(end())


def retire(gateway: Gateway, made: Connections, *networks: IPv6Network) -> set[IPv6Network]:
    async def work() -> set[IPv6Network]:
        return await made.retire(networks)

    return gateway.run(work())


def answer(wire: socket.socket) -> bytes:
    """The head of the next answer; its body is read too."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = wire.recv(65536)
        assert piece, "it ended without an answer"
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
    ]
    while len(body) < length:
        body += wire.recv(65536)
    return head


def dial(port: int) -> socket.socket:
    return socket.create_connection(("::1", port), timeout=5)


def test_who_is_not_let_in_gets_no_answer(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with served(gateway, lets_in=False) as (made, port):
        for _ in range(5):
            with dial(port) as wire:
                try:
                    wire.sendall(REQUEST)
                    assert wire.recv(100) == b""
                except ConnectionError:
                    pass
        deadline = time.monotonic() + 5
        while made.connections:
            assert time.monotonic() < deadline, "and is not kept in mind"
            time.sleep(0.01)
    assert not caplog.records
    with served(gateway, lets_in=True) as (_, port), dial(port) as wire:
        wire.sendall(REQUEST)
        assert answer(wire).startswith(b"HTTP/1.1 4")


def test_the_next_answer_says_that_there_will_be_no_other(gateway: Gateway) -> None:
    with served(gateway) as (made, port), dial(port) as wire, dial(port) as idle:
        wire.sendall(REQUEST)
        assert b"Connection: close" not in answer(wire)
        assert retire(gateway, made, ELSEWHERE) == set()
        assert retire(gateway, made, HERE, ELSEWHERE) == {HERE}
        wire.sendall(REQUEST)
        assert b"Connection: close" in answer(wire)
        assert wire.recv(1) == b""
        assert retire(gateway, made, HERE) == {HERE}, "the one that asks nothing is still there"
        idle.sendall(REQUEST)
        assert b"Connection: close" in answer(idle)
        assert idle.recv(1) == b""
        deadline = time.monotonic() + 5
        while retire(gateway, made, HERE):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_who_asks_nothing_more_is_ended_after_a_while(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_RETIRED_IDLE_S", 0.2)
    with served(gateway) as (made, port), dial(port) as wire:
        wire.sendall(REQUEST)
        answer(wire)
        retire(gateway, made, HERE)
        time.sleep(0.3)
        retire(gateway, made, HERE)
        assert wire.recv(1) == b""


def test_of_many_connections_some_are_looked_at_at_a_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered meanwhile."""
    monkeypatch.setattr(connections, "_AT_A_TIME", 2)
    with served(gateway) as (made, port), ExitStack() as stack:
        wires = [stack.enter_context(dial(port)) for _ in range(10)]
        for wire in wires:
            wire.sendall(REQUEST)
            answer(wire)

        async def work() -> tuple[set[IPv6Network], int]:
            looking, turns = spawn("look", made.retire([HERE])), 0
            while not looking.done():
                await asyncio.sleep(0)
                turns += 1
            return looking.result(), turns

        found, turns = gateway.run(work())
        assert found == {HERE} and turns > 10 / 2


def test_who_is_to_stay_after_all_stays(gateway: Gateway) -> None:
    """The other gateway has died before it took over."""
    with served(gateway) as (made, port), dial(port) as wire:
        wire.sendall(REQUEST)
        answer(wire)
        retire(gateway, made, HERE)
        retire(gateway, made)
        for _ in range(2):
            wire.sendall(REQUEST)
            assert b"Connection: close" not in answer(wire)
