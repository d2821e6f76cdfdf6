"""Ethernet frames for measurements and tests of the filter, byte by byte."""

from __future__ import annotations

from ipaddress import IPv6Network
from struct import pack

SERVICE = IPv6Network("2001:db8:5a:1::/64")
SYN, RST, SYN_ACK, ACK = 0x02, 0x04, 0x12, 0x10
CLIENT_LOW = 9
"The low half of the clients' addresses."
CLIENT_PORT, SERVICE_PORT = 1234, 7480


def tcp(flags: int = SYN, *, seq: int = 0, ack: int = 0, ports: tuple[int, int] | None = None) -> bytes:
    return pack(">HHIIBBHHH", *(ports or (CLIENT_PORT, SERVICE_PORT)), seq, ack, 0x50, flags, 1000, 0, 0)


def ipv6(source: tuple[int, int], target: tuple[int, int], payload: bytes, kind: int = 6) -> bytes:
    """A packet from the upper and lower half of one address to those of another."""
    return pack(">IHBB4Q", 0x60000000, len(payload), kind, 64, *source, *target) + payload


def ethernet(packet: bytes, ether: int = 0x86DD) -> bytes:
    return b"\2" * 12 + pack(">H", ether) + packet


def upper(service: IPv6Network) -> int:
    return int(service.network_address) >> 64


def frame(
    source: int,
    iid: int,
    payload: bytes = b"",
    *,
    kind: int = 6,
    service: IPv6Network = SERVICE,
    ether: int = 0x86DD,
) -> bytes:
    """What a client in the /64 ``source`` sends to an IID of the service; a SYN if nothing is said."""
    packet = ipv6((source, CLIENT_LOW), (upper(service), iid), payload or tcp(), kind)
    return ethernet(packet, ether)


def answer(source: int, iid: int, flags: int, *, seq: int = 0, data: bytes = b"") -> bytes:
    """What the service sends to that client."""
    segment = tcp(flags, seq=seq, ports=(SERVICE_PORT, CLIENT_PORT)) + data
    return ethernet(ipv6((upper(SERVICE), iid), (source, CLIENT_LOW), segment))


def error_about(source: int, iid: int, *, type_number: int = 2, quoted_iid: int | None = None) -> bytes:
    """An ICMPv6 error (Packet Too Big) to an address, about what it sent to the client at ``source``."""
    sent = answer(source, iid if quoted_iid is None else quoted_iid, ACK)[14:]
    return frame(0x20010DB800FF0000, iid, pack(">BBHI", type_number, 0, 0, 1280) + sent, kind=58)


def extension(next_kind: int, length: int = 0) -> bytes:
    return bytes([next_kind, length]) + bytes(6 + 8 * length)


def fragment(next_kind: int = 6, *, place: int = 0, has_more: bool = False) -> bytes:
    """A fragment header; ``place`` in units of eight bytes."""
    return pack(">BBHI", next_kind, 0, place << 3 | has_more, 5)


def tagged(packet: bytes, count: int) -> bytes:
    """With so many VLAN tags of id 0, which a host takes off by itself."""
    return packet[:12] + bytes.fromhex("81000000") * count + packet[12:]
