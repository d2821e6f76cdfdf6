"""What the kernel lists of connections, in its own format; tests/lab/test_newflows.py has a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from sys import byteorder

import pytest

from ssastore.env import spawn
from ssastore.routes import newflows
from ssastore.routes.newflows import open_at

PORT = 7482
GIVEN, KEPT = IPv6Network("2001:db8:5a:1:f100::/72"), IPv6Network("2001:db8:5a:1:f200::/72")
HEAD = "  sl  local_address                         remote_address                        st tx_queue\n"
ESTABLISHED, TIME_WAIT, LISTEN = 1, 6, 10


def line(at: int, own: IPv6Address, port: int, state: int) -> str:
    """As net/ipv6/tcp_ipv6.c writes it: four words in the machine's order."""
    words = [own.packed[first : first + 4] for first in range(0, 16, 4)]
    shown = "".join(f"{int.from_bytes(word, byteorder):08X}" for word in words)
    return f"{at:4}: {shown}:{port:04X} {shown}:C001 {state:02X} 00000000:00000000 00:00000000 00000000 0\n"


@pytest.mark.parametrize(
    ("own", "port", "state", "is_open"),
    [
        (GIVEN[7], PORT, ESTABLISHED, True),
        (GIVEN[7], PORT, TIME_WAIT, False),
        (GIVEN[7], PORT, LISTEN, False),
        (GIVEN[7], PORT + 1, ESTABLISHED, False),
        (IPv6Address("2001:db8:5a:1:f300::1"), PORT, ESTABLISHED, False),
    ],
)
async def test_connections_that_may_lose_something_are_open(
    own: IPv6Address, port: int, state: int, is_open: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcp6").write_text(HEAD + line(0, own, port, state))
    monkeypatch.setattr(newflows, "_CONNECTIONS", tmp_path / "tcp6")
    assert await open_at(PORT, [KEPT, GIVEN]) == ({GIVEN} if is_open else set())
    assert await open_at(PORT, []) == set()


async def test_of_many_connections_some_are_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(at, GIVEN[at], PORT, ESTABLISHED) for at in range(10_000)]
    (tmp_path / "tcp6").write_text(HEAD + "".join(lines))
    monkeypatch.setattr(newflows, "_CONNECTIONS", tmp_path / "tcp6")

    async def at_once(read: Callable[[], str]) -> str:
        return read()

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    looking, turns = spawn("look", open_at(PORT, [GIVEN])), 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert looking.result() == {GIVEN} and turns >= 10_000 // newflows._AT_A_TIME
