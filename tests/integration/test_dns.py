"""A service found by its name: at Knot, NSD, the responder for labs, and servers that misbehave."""

from __future__ import annotations

import asyncio
import errno
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from click.testing import CliRunner

from ssastore.cli import cli
from ssastore.client import AsyncClient
from ssastore.errors import ConfigError, Unavailable
from ssastore.naming import resolve
from ssastore.naming.answer import Whereabouts
from ssastore.naming.resolve import NameServer, Story, look_up, name_server_from
from ssastore.naming.responder import Responder, answer, zone_of
from ssastore.naming.zone import zone_lines
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import record_from_text
from ssastore.rules.verdict import Verdict
from tests.nameservers import SERVERS, name_server

A, B = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:1::/64")
HOLE = IPv6Network("2001:db8:5a:1:e000::/68")
GATEWAY = IPv6Address("2001:db8::80")
RECORD = record_from_text("v=SSA1; replicas=3; front=source; hop=30")
WHERE = Whereabouts((A, B), (HOLE,), RECORD, 60)
NAME = "store.example"


def lines(form: str = "bind", name: str = NAME) -> list[str]:
    sites = {"holes": WHERE.holes, "record": RECORD, "ttl_s": 60, "form": form, "addresses": [GATEWAY]}
    return list(zone_lines(name, WHERE.sites, **sites))  # type: ignore[arg-type]


@asynccontextmanager
async def responder(where: Whereabouts = WHERE) -> AsyncIterator[NameServer]:
    serving = Responder(zone_of(NAME, where, [GATEWAY]))
    await serving.start("127.0.0.1", 0)
    try:
        yield NameServer("127.0.0.1", serving.port)
    finally:
        await serving.close()


def tools(port: int) -> dict[str, str]:
    """What dig and kdig read of the APL record, those that are installed."""
    found = {}
    for program in ("dig", "kdig"):
        if shutil.which(program):
            command = [program, "+short", "@127.0.0.1", "-p", str(port), NAME, "APL"]
            found[program] = subprocess.run(
                command, capture_output=True, text=True, timeout=10
            ).stdout.strip()
    return found


@pytest.mark.parametrize("program", SERVERS)
async def test_real_name_servers_say_what_the_zone_lines_say(program: str, tmp_path: Path) -> None:
    with name_server(program, tmp_path, lines()) as port:
        assert await look_up(NAME, server=NameServer("127.0.0.1", port)) == WHERE
        read = await asyncio.to_thread(tools, port)
    assert set(read.values()) == {f"2:{A} 2:{B} !2:{HOLE}"} and len(read) == 2


async def test_the_responder_says_the_same_to_every_reader() -> None:
    async with responder() as server:
        assert await look_up(NAME, server=server) == WHERE
        read = await asyncio.to_thread(tools, server.port)
    assert set(read.values()) == {f"2:{A} 2:{B} !2:{HOLE}"} and len(read) == 2


@pytest.mark.parametrize("program", SERVERS)
async def test_the_generic_form_is_the_same_record(program: str, tmp_path: Path) -> None:
    with name_server(program, tmp_path, lines("generic")) as port:
        assert (await look_up(NAME, server=NameServer("127.0.0.1", port))) == WHERE


async def test_an_alias_of_the_name_is_followed(tmp_path: Path) -> None:
    alias = ["s.example. 60 IN CNAME store.example.", "_ssa.s.example. 20 IN CNAME _ssa.store.example."]
    with name_server("knotd", tmp_path, lines() + alias) as port:
        found = await look_up("s.example", server=NameServer("127.0.0.1", port))
    assert found == replace(WHERE, ttl_s=20), "an alias may not be believed for longer than it says"


async def test_without_apl_the_prefixes_of_the_text_count(tmp_path: Path) -> None:
    text = f'_ssa.{NAME}. 60 IN TXT "v=SSA1; replicas=3; prefix={A}"'
    with name_server("knotd", tmp_path, [text]) as port:
        where = await look_up(NAME, server=NameServer("127.0.0.1", port))
    assert (where.step, where.sites, where.record.replicas) == ("txt", (A,), 3)


@pytest.mark.parametrize(
    ("zone", "complaint"),
    [
        ([], "there is no name store.example"),
        ([f"{NAME}. 60 IN AAAA {GATEWAY}"], "only S3 clients can use it"),
        ([f'{NAME}. 60 IN TXT "x"'], "has no APL record, and no TXT record with prefix="),
        ([f"{NAME}. 60 IN APL 1:192.0.2.0/24"], "no IPv6 prefix"),
        ([f"{NAME}. 60 IN APL 2:2001:db8::/48"], "must be a /64"),
        ([*lines(), f'_ssa.{NAME}. 60 IN TXT "v=SSA1"'], "2 service records"),
        ([lines()[0], f'_ssa.{NAME}. 60 IN TXT "v=SSA1; front=telepathy"'], "no such word"),
    ],
)
async def test_names_that_are_no_service_say_why(zone: list[str], complaint: str, tmp_path: Path) -> None:
    with name_server("knotd", tmp_path, zone) as port, pytest.raises(ConfigError) as refused:
        await look_up(NAME, server=NameServer("127.0.0.1", port))
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "name", ["", "a..b", "x" * 64 + ".example", "x" * 10_000, ".".join(["x" * 61] * 4) + ".x", "a.\x00\udcff"]
)
async def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError):
        await look_up(name, server=NameServer("127.0.0.1", 1))


class Misbehaving(asyncio.DatagramProtocol):
    """A name server that answers as ``reply`` says, or not at all."""

    def __init__(self, reply: Callable[[dns.message.Message], bytes | None]) -> None:
        self._reply = reply

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = self._reply(dns.message.from_wire(data))
        if reply is not None:
            self._transport.sendto(reply, addr)


def failing(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def without_text(query: dns.message.Message) -> bytes:
    """It knows the prefixes, and fails to say the rule."""
    if query.question[0].rdtype.name == "TXT":
        return failing(query)
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "APL", f"2:{A}"))
    return reply.to_wire()


def of_another_name(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    kind = query.question[0].rdtype
    data = f"2:{A}" if kind.name == "APL" else '"v=SSA1"'
    reply.answer.append(dns.rrset.from_text("elsewhere.example.", 60, "IN", kind, data))
    return reply.to_wire()


def chain(query: dns.message.Message) -> bytes:
    """A CNAME to a name that is one label longer, for ever."""
    reply = dns.message.make_response(query)
    name = query.question[0].name
    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", name.to_text()))
    return reply.to_wire()


def broken_apl(query: dns.message.Message) -> bytes:
    """AFDLENGTH is longer than the record."""
    reply = dns.message.make_response(query)
    # Under a type that nobody checks, which is then changed to the one that was asked for.
    reply.answer.append(
        dns.rrset.from_text(query.question[0].name, 60, "IN", "TYPE65400", r"\# 5 000240087f")
    )
    wire = reply.to_wire()
    return wire.replace((65400).to_bytes(2, "big"), int(query.question[0].rdtype).to_bytes(2, "big"))


@pytest.mark.parametrize(
    "reply",
    [lambda query: None, failing, without_text, of_another_name, chain, broken_apl, lambda query: b"\0" * 40],
)
async def test_name_servers_that_misbehave_are_an_error_in_time(
    reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "LOOKUP_S", 1.0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Misbehaving(reply), local_addr=("127.0.0.1", 0)
    )
    began = time.monotonic()
    with pytest.raises((Unavailable, ConfigError)):
        await look_up(NAME, server=NameServer("127.0.0.1", transport.get_extra_info("sockname")[1]))
    assert time.monotonic() - began < 2
    transport.close()


async def test_long_answers_come_by_tcp() -> None:
    sites = tuple(IPv6Network(f"2001:db8:{n:x}::/64") for n in range(1, 17))
    holes = tuple(IPv6Network(f"2001:db8:1:0:{n:x}000::/68") for n in range(16))
    holes += tuple(IPv6Network(f"2001:db8:2:0:{n:x}::/80") for n in range(0x100, 0x180))
    where = Whereabouts(sites, holes, RECORD, 60)
    async with responder(where) as server:
        found = await look_up(NAME, server=server)
    assert (found.sites, found.holes) == (sites, holes)


def ask(name: str, kind: str, **flags: Any) -> dns.message.Message:
    made = answer(zone_of(NAME, WHERE, [GATEWAY]), dns.message.make_query(name, kind).to_wire(), 1232)
    assert made is not None
    return dns.message.from_wire(made)


def test_what_the_responder_says_of_other_questions() -> None:
    assert ask("other.example", "APL").rcode() == dns.rcode.REFUSED
    assert ask(f"x.{NAME}", "APL").rcode() == dns.rcode.NXDOMAIN
    assert ask(NAME, "MX").rcode() == dns.rcode.NOERROR and not ask(NAME, "MX").answer
    assert ask(NAME.upper(), "AAAA").answer[0][0].to_text() == str(GATEWAY)
    assert ask(NAME, "SOA").answer and ask(NAME, "NS").answer


def test_what_does_not_fit_is_cut_and_said_to_be() -> None:
    where = Whereabouts(tuple(IPv6Network(f"2001:db8:{n:x}::/64") for n in range(1, 17)), (), RECORD, 60)
    for size, is_cut in ((512, False), (100, True)):
        made = answer(zone_of(NAME, where), dns.message.make_query(NAME, "APL").to_wire(), size)
        assert made is not None and len(made) <= size
        reply = dns.message.from_wire(made)
        assert bool(reply.flags & dns.flags.TC) is is_cut and bool(reply.answer) is not is_cut
        assert reply.flags & dns.flags.AA


def test_replies_and_noise_get_no_answer() -> None:
    zone = zone_of(NAME, WHERE)
    reply = answer(zone, dns.message.make_query(NAME, "APL").to_wire(), 1232)
    assert reply is not None and answer(zone, reply, 1232) is None
    for noise in (b"", b"x", b"\0" * 11, b"\x80" * 50):
        assert answer(zone, noise, 512) is None
    broken = dns.message.make_query(NAME, "APL").to_wire()[:-1]
    said = answer(zone, broken, 512)
    assert said is not None and len(said) == 12 and said[3] & 15 == dns.rcode.FORMERR


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("::1", NameServer("::1", 53)),
        ("[::1]:5353", NameServer("::1", 5353)),
        ("127.0.0.1:54", NameServer("127.0.0.1", 54)),
        ("127.0.0.1", NameServer("127.0.0.1", 53)),
        ("[::1]", NameServer("::1", 53)),
    ],
)
def test_name_server_as_text(text: str, server: NameServer) -> None:
    assert name_server_from(text) == server


@pytest.mark.parametrize("text", ["", "x", "::1:x", "[::1]:0", "[::1]:65536", "127.0.0.1:", "[::1"])
def test_what_is_no_name_server(text: str) -> None:
    with pytest.raises(ConfigError):
        name_server_from(text)


class NoRoute:
    """Links that only note what they are to dial: nothing leaves this host."""

    def __init__(self) -> None:
        self.addresses: list[IPv6Address] = []

    async def dial(self, address: IPv6Address, port: int, protocol: Any) -> Any:
        self.addresses.append(address)
        raise OSError(errno.ENETUNREACH, "no route")


async def test_a_client_goes_where_the_name_says() -> None:
    links = NoRoute()
    record = record_from_text("v=SSA1; port=99")
    async with responder(Whereabouts((A,), (), record, 60)) as server:
        at = f"127.0.0.1:{server.port}"
        client = AsyncClient.from_url(f"ssa://{NAME}/photos", name_server=at, deadline_ms=300, links=links)
        with pytest.raises(ConfigError, match="not looked up yet"):
            _ = client.service
        with pytest.raises(Unavailable):
            await client.bucket("photos").get("a")
        assert client.service == A and links.addresses[0] in A and client.pool.port == 99
        await client.close()


async def test_a_client_keeps_the_rule_that_it_finds_with_the_name() -> None:
    record = record_from_text("v=SSA1; data=content+source; key=" + "ab" * 16)
    links = NoRoute()
    async with responder(Whereabouts((IPv6Network("fd5a::/64"),), (), record, 60)) as server:
        at = f"127.0.0.1:{server.port}"
        async with AsyncClient(NAME, name_server=at, links=links, deadline_ms=300) as client:
            client._ruled._source = lambda address: 7
            with pytest.raises(Unavailable):
                await client.bucket("photos").get("a")
    iid = int(links.addresses[0]) & (1 << 64) - 1
    assert record.check(7, iid, unix_s=0, keys=ServiceKeys((record.public,))) is Verdict.KEPT
    assert record.check(8, iid, unix_s=0, keys=ServiceKeys((record.public,))) is Verdict.TAIL


async def test_check_shows_each_step() -> None:
    async with responder() as server:
        words = ["dns", "check", NAME, "--server", f"127.0.0.1:{server.port}"]
        shown = await asyncio.to_thread(CliRunner().invoke, cli, words)
        missing = await asyncio.to_thread(
            CliRunner().invoke, cli, ["dns", "check", "x.store.example", *words[3:]]
        )
    assert shown.exit_code == 0, shown.output
    assert f"asked     APL {NAME}.: 2:{A} 2:{B} !2:{HOLE} (TTL 60 s, from 127.0.0.1)" in shown.output
    assert "found by  APL, for 60 s" in shown.output
    assert f"without   {HOLE}" in shown.output
    assert "asked     APL x.store.example.: no such name" in missing.output
    assert "there is no name x.store.example" in str(missing.exception)


async def test_the_story_of_a_look_up_that_fails_is_told() -> None:
    story = Story()
    async with responder() as server:
        with pytest.raises(Unavailable):
            await look_up("other.example", server=server, story=story)
    assert len(story.lines) == 2 and "REFUSED" in story.lines[0]
