"""``ssastore sidecar``: what it is told, and where it looks; at work: tests/integration/test_filter.py."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest
from click.testing import CliRunner

from ssastore.cli import cli
from ssastore.cli.sidecar import parse_target, sites_of
from ssastore.errors import ConfigError
from ssastore.naming.answer import Whereabouts
from ssastore.naming.responder import Responder, zone_of
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.rule import rule_from_text
from ssastore.sidecar import Sidecar
from ssastore.transport.ruled import RuledLinks
from tests.direct import SeededRandomness, StillClock

A, B = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:1::/64")


def links_of(record: ServiceRecord) -> RuledLinks:
    unused: Any = None
    return RuledLinks(unused, record, StillClock(), SeededRandomness(), source=lambda address: 7)


@pytest.mark.parametrize(
    "target", ["", "store.example", "store.example:", ":80", "store.example:0", "x.y:65536", "x.y:8o"]
)
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ConfigError, match="TARGET is NAME:PORT"):
        parse_target(target)
    assert parse_target("store.example:80") == ("store.example", 80)
    assert parse_target("[2001:db8:5a:1::]:80") == ("[2001:db8:5a:1::]", 80)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["[2001:db8:5a:1::1]:80"], "TARGET"),
        (["[fe80::]:80"], "must be unicast"),
        (["[2001:db8:5a:1::]:80", "--rules", "v=SSA1; front=content"], "no name of an object to follow"),
        (["[2001:db8:5a:1::]:80", "--rules", "v=SSA1; front=telepathy"], "no such word"),
        (["[2001:db8:5a:1::]:80", "--listen", "here"], "must be HOST:PORT"),
    ],
)
def test_wrong_usage_says_what_is_wrong(words: list[str], complaint: str) -> None:
    wrong = CliRunner().invoke(cli, ["sidecar", *words])
    assert isinstance(wrong.exception, ConfigError) and complaint in str(wrong.exception)


async def test_a_name_says_sites_and_rule() -> None:
    record = record_from_text("v=SSA1; front=source; hop=30")
    responder = Responder(zone_of("store.example", Whereabouts((A, B), (), record, 60)))
    await responder.start("127.0.0.1", 0)
    links = links_of(ServiceRecord())
    sites = sites_of("store.example", links, f"127.0.0.1:{responder.port}")
    assert await sites() == (A, B)
    assert links.record.front == rule_from_text("source+hop:30")
    await responder.close()
    assert await sites() == (A, B), "kept for as long as it may be"


async def test_each_dial_may_go_to_another_site_and_the_last_ones_error_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled: list[IPv6Address] = []

    async def refuse(host: str, port: int, **options: Any) -> Any:
        dialled.append(IPv6Address(host))
        raise OSError("refused")

    async def both() -> tuple[IPv6Network, IPv6Network]:
        return A, B

    sidecar = Sidecar(both, 80, links_of(record_from_text("v=SSA1; front=source; choices=4")))
    listening = await sidecar.listen("127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    monkeypatch.setattr("ssastore.sidecar.asyncio.open_connection", refuse)
    loop = asyncio.get_running_loop()
    with socket.socket() as program:
        program.setblocking(False)
        await loop.sock_connect(program, ("127.0.0.1", port))
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(program, 1)
    listening.close()
    await sidecar.close()
    assert [address in site for address, site in zip(dialled, (A, B, A), strict=True)] == [True] * 3
    assert all(int(address) >> 60 & 15 == 15 for address in dialled)
    assert (sidecar.counts.opened, sidecar.counts.failed) == (0, 1)
