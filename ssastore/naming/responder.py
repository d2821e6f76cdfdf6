"""A small authoritative name server of one service's name, for labs and demos: UDP and TCP, no recursion.

It answers APL, TXT at ``_ssa.NAME``, AAAA for clients that know no rule, and SOA and NS of itself.
Addresses of the front plane are others in each answer, so that no gateway gets more than its share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from struct import pack
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ssastore.naming.answer import Whereabouts
from ssastore.naming.resolve import parsed_name
from ssastore.naming.zone import apl_text, front_addresses, txt_text

log = logging.getLogger(__name__)

_UDP_BYTES = 1232
"Fits any path without fragments (DNS flag day 2020); a client that offers less gets less."
_PLAIN_UDP_BYTES = 512
_TCP_IDLE_S = 10.0
_CONNECTIONS_MAX = 64
_GOLDEN = 0x9E3779B97F4A7C15
"2^64 divided by the golden ratio."


class Turns:
    """What each answer begins with: never the same twice in a row, and everything equally often.

    Multiples of the golden ratio, of which any number that follow one another lie evenly (Knuth, *The Art of
    Computer Programming*, section 6.4).
    """

    def __init__(self) -> None:
        self._at = 0

    def below(self, bound: int) -> int:
        """The next one, from 0 to ``bound`` - 1."""
        self._at = (self._at + _GOLDEN) % (1 << 64)
        return self._at * bound >> 64


@dataclass(frozen=True)
class Zone:
    """What is answered: one service's name.

    Clients that know no rule (AAAA) get ``addresses``, and ``front`` ones of each site's front plane.
    """

    name: dns.name.Name
    whereabouts: Whereabouts
    addresses: Sequence[IPv6Address]
    front: int = 0

    turns: Turns = field(default_factory=Turns)

    def rrset(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        """The records of a name and type, or None."""
        data: list[str] = []
        if name == self.name:
            if kind == dns.rdatatype.APL:
                data = [apl_text(self.whereabouts.sites, self.whereabouts.holes)]
            elif kind == dns.rdatatype.AAAA:
                found = [
                    *self.addresses,
                    *front_addresses(self.whereabouts.sites, self.front, self.turns.below),
                ]
                first = self.turns.below(len(found)) if found else 0
                data = [str(address) for address in found[first:] + found[:first]]
            elif kind == dns.rdatatype.SOA:
                data = [f"{self.name} hostmaster.{self.name} 1 3600 600 86400 {self.whereabouts.ttl_s}"]
            elif kind == dns.rdatatype.NS:
                data = [str(self.name)]
        elif name == dns.name.from_text("_ssa", None) + self.name and kind == dns.rdatatype.TXT:
            data = [txt_text(self.whereabouts.record)]
        if not data:
            return None
        return dns.rrset.from_text_list(name, self.whereabouts.ttl_s, dns.rdataclass.IN, kind, data)

    def has(self, name: dns.name.Name) -> bool:
        """Whether there is anything at a name."""
        return name in (self.name, dns.name.from_text("_ssa", None) + self.name)


def zone_of(
    name: str, whereabouts: Whereabouts, addresses: Sequence[IPv6Address] = (), *, front: int = 0
) -> Zone:
    """The zone of a name. Raises ConfigError: it is no name in DNS."""
    return Zone(parsed_name(name), whereabouts, addresses, front)


def answer(zone: Zone, wire: bytes, size: int) -> bytes | None:
    """The reply to a message of at most ``size`` bytes; None for replies and for noise."""
    try:
        query = dns.message.from_wire(wire, ignore_trailing=False)
    except (dns.exception.DNSException, ValueError):
        return _form_error(wire)
    if query.flags & dns.flags.QR:
        return None  # Two servers that answer one another's replies would never end.
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    if query.opcode() != dns.opcode.QUERY:
        reply.set_rcode(dns.rcode.NOTIMP)
    elif len(query.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
    else:
        _fill(zone, query, reply)
    return _cut(reply, size)


def _fill(zone: Zone, query: dns.message.Message, reply: dns.message.Message) -> None:
    name, kind = query.question[0].name, query.question[0].rdtype
    if not name.is_subdomain(zone.name) or query.question[0].rdclass != dns.rdataclass.IN:
        reply.set_rcode(dns.rcode.REFUSED)
        reply.flags &= ~dns.flags.AA
        return
    found = zone.rrset(name, kind)
    if found is not None:
        reply.answer.append(found)
        return
    if not zone.has(name):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    soa = zone.rrset(zone.name, dns.rdatatype.SOA)
    assert soa is not None
    reply.authority.append(soa)


def _cut(reply: dns.message.Message, size: int) -> bytes:
    wire = reply.to_wire(max_size=65535)
    if len(wire) <= size:
        return wire
    reply.answer.clear()
    reply.authority.clear()
    reply.flags |= dns.flags.TC
    return reply.to_wire(max_size=65535)


def _form_error(wire: bytes) -> bytes | None:
    """The header alone, as much as can be said of what is no message."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + pack(">HHHHH", 0x8000 | dns.rcode.FORMERR, 0, 0, 0, 0)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: Callable[[], Zone]) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python's own transport of datagrams does not derive from this class.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(self._zone(), data, _offered(data))
        if reply is not None:
            self._transport.sendto(reply, addr)


def _offered(wire: bytes) -> int:
    """How long a reply by UDP may be: 512 bytes, or what EDNS says (RFC 6891), within a packet."""
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return _PLAIN_UDP_BYTES
    return max(_PLAIN_UDP_BYTES, min(_UDP_BYTES, query.payload)) if query.edns >= 0 else _PLAIN_UDP_BYTES


class Responder:
    """Serves a zone at one address and port until it is closed."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        "What is answered from now on; another one may take its place."
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError: the address or port cannot be had."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, host, port)
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(lambda: self.zone), local_addr=(host, self.port)
        )

    @property
    def port(self) -> int:
        """The port, also when 0 was asked for."""
        assert self._tcp is not None
        return int(self._tcp.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            while self._open <= _CONNECTIONS_MAX:
                async with asyncio.timeout(_TCP_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    reply = answer(self.zone, await reader.readexactly(size), 65535)
                    if reply is None:
                        break
                    # Within the time as well: who does not read would hold its place for ever.
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
                # A thousand questions in one piece must not keep others waiting.
                await asyncio.sleep(0)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open -= 1
            writer.close()
