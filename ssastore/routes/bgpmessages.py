"""BGP-4 messages of a speaker that announces IPv6 prefixes and believes nothing: bytes, both ways. Pure.

    16 octets of ones | length, 2 octets | type | payload               RFC 4271, section 4.1

Integers are big-endian.  Written: OPEN with the capabilities of RFC 5492 that are needed (IPv6 unicast,
RFC 4760; route refresh, RFC 2918; AS numbers of four octets, RFC 6793), UPDATE with MP_REACH_NLRI or
MP_UNREACH_NLRI and a global next hop (RFC 2545), KEEPALIVE, NOTIFICATION.  Read: all of them and
ROUTE-REFRESH, an UPDATE only as far as its frame: what a router announces to us is not asked for.

What breaks the protocol is ``BadMessage`` with what a NOTIFICATION says about it.  A frame that is cut
anywhere is waited for; none is longer than 4096 octets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from ssastore.errors import PeerError

VERSION = 4
MESSAGE_BYTES_MAX = 4096
AS_TRANS = 23456
"In the field of two octets, of whoever has a longer number (RFC 6793)."
HOLD_S_MIN = 3
"Or 0, which is for ever: a peer that offers 1 or 2 is refused (RFC 4271, section 4.2)."

OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH = 1, 2, 3, 4, 5

HEADER_ERROR, OPEN_ERROR, HOLD_EXPIRED, STATE_ERROR, CEASE = 1, 2, 4, 5, 6
"Codes of NOTIFICATION (section 4.5; UPDATE errors cannot happen here)."
NOT_SYNCHRONISED, BAD_LENGTH, BAD_TYPE = 1, 2, 3
"Subcodes of HEADER_ERROR."
BAD_VERSION, BAD_PEER_AS, BAD_IDENTIFIER, BAD_HOLD_TIME, NO_CAPABILITY = 1, 2, 3, 6, 7
"Subcodes of OPEN_ERROR; the last is RFC 5492's."
SHUTDOWN = 2
"Subcode of CEASE (RFC 4486)."

_MARKER = b"\xff" * 16
_HEADER = struct.Struct("!16sHB")
_OPEN = struct.Struct("!BHHIB")
_LENGTHS = {OPEN: 29, UPDATE: 23, NOTIFICATION: 21, KEEPALIVE: 19, ROUTE_REFRESH: 23}
"The shortest message of each type."
_FIXED = (KEEPALIVE, ROUTE_REFRESH)
"Which have no other length."

_AFI, _SAFI = 2, 1
"IPv6, unicast."
_CAPABILITIES = 2
"An optional parameter of OPEN (RFC 5492)."
_EXTENDED = 255
"Type and length of what follows a longer form of optional parameters (RFC 9072)."
_MULTIPROTOCOL, _REFRESH, _FOUR_OCTETS = 1, 2, 65
_ORIGIN, _AS_PATH, _LOCAL_PREF, _MP_REACH, _MP_UNREACH = 1, 2, 5, 14, 15
_TRANSITIVE, _OPTIONAL, _LONG = 0x40, 0x80, 0x10
_AS_SEQUENCE = 2
_NLRI_BYTES_MAX = 3900
"Of one UPDATE: with the header and all attributes it stays below MESSAGE_BYTES_MAX."
_PREFIX_BYTES_MAX = 17

assert _NLRI_BYTES_MAX + _PREFIX_BYTES_MAX + 128 <= MESSAGE_BYTES_MAX


class BadMessage(PeerError):
    """The peer broke the protocol; the session ends with a NOTIFICATION of this code, subcode and data."""

    def __init__(self, code: int, subcode: int, why: str, data: bytes = b"") -> None:
        super().__init__(why)
        self.code = code
        self.subcode = subcode
        self.data = data


@dataclass(frozen=True, slots=True)
class PeerOpen:
    """What a peer says of itself."""

    number: int
    "Of its autonomous system."
    hold_s: int
    identifier: int
    is_refreshable: bool
    "Whether it knows of route refresh."
    families: frozenset[tuple[int, int]]
    "(AFI, SAFI)."
    has_four_octets: bool

    @property
    def takes_ipv6(self) -> bool:
        """Whether it can be told of IPv6 prefixes."""
        return (_AFI, _SAFI) in self.families


# -- written ----------------------------------------------------------------------------------------


def _message(kind: int, payload: bytes = b"") -> bytes:
    length = _HEADER.size + len(payload)
    assert length <= MESSAGE_BYTES_MAX
    return _HEADER.pack(_MARKER, length, kind) + payload


def encode_open(number: int, hold_s: int, identifier: int) -> bytes:
    """OPEN of autonomous system ``number``; ``identifier`` is 32 bits that no other speaker there has."""
    capabilities = [
        bytes((_MULTIPROTOCOL, 4)) + struct.pack("!HBB", _AFI, 0, _SAFI),
        bytes((_REFRESH, 0)),
        bytes((_FOUR_OCTETS, 4)) + struct.pack("!I", number),
    ]
    listed = b"".join(capabilities)
    parameters = bytes((_CAPABILITIES, len(listed))) + listed
    short = number if number < 1 << 16 else AS_TRANS
    return _message(OPEN, _OPEN.pack(VERSION, short, hold_s, identifier, len(parameters)) + parameters)


def encode_keepalive() -> bytes:
    return _message(KEEPALIVE)


def encode_notification(code: int, subcode: int, data: bytes = b"") -> bytes:
    """The last message of a session."""
    return _message(NOTIFICATION, bytes((code, subcode)) + data[:64])


def encode_announcements(
    prefixes: Iterable[IPv6Network], *, next_hop: IPv6Address, number: int, is_internal: bool
) -> Iterator[bytes]:
    """UPDATEs that announce these, as many to a message as it takes.

    ``is_internal``: the peer is of the same autonomous system, ``number``, and is told a LOCAL_PREF.
    """
    path = b"" if is_internal else struct.pack("!BBI", _AS_SEQUENCE, 1, number)
    common = _attribute(_TRANSITIVE, _ORIGIN, b"\0") + _attribute(_TRANSITIVE, _AS_PATH, path)
    if is_internal:
        common += _attribute(_TRANSITIVE, _LOCAL_PREF, struct.pack("!I", 100))
    reach = struct.pack("!HBB", _AFI, _SAFI, 16) + next_hop.packed + b"\0"
    for listed in _packed(prefixes):
        # First, as RFC 7606 asks, so that one who finds a later attribute broken knows what it is about.
        yield _update(_attribute(_OPTIONAL, _MP_REACH, reach + listed) + common)


def encode_withdrawals(prefixes: Iterable[IPv6Network]) -> Iterator[bytes]:
    """UPDATEs that take these back."""
    for listed in _packed(prefixes):
        yield _update(_attribute(_OPTIONAL, _MP_UNREACH, struct.pack("!HB", _AFI, _SAFI) + listed))


def encode_end() -> bytes:
    """End-of-RIB (RFC 4724): all that there is has been announced."""
    return _update(_attribute(_OPTIONAL, _MP_UNREACH, struct.pack("!HB", _AFI, _SAFI)))


def _update(attributes: bytes) -> bytes:
    return _message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes)


def _attribute(flags: int, kind: int, value: bytes) -> bytes:
    if len(value) > 255:
        return struct.pack("!BBH", flags | _LONG, kind, len(value)) + value
    return struct.pack("!BBB", flags, kind, len(value)) + value


def _packed(prefixes: Iterable[IPv6Network]) -> Iterator[bytes]:
    """Prefixes as they are listed, in pieces that fit into one message."""
    listed = bytearray()
    for prefix in prefixes:
        used = (prefix.prefixlen + 7) // 8
        listed += bytes((prefix.prefixlen,)) + prefix.network_address.packed[:used]
        if len(listed) >= _NLRI_BYTES_MAX:
            yield bytes(listed)
            listed.clear()
    if listed:
        yield bytes(listed)


# -- read -------------------------------------------------------------------------------------------


class Frames:
    """Cuts a stream of octets into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, payload) of each message that is whole now. Raises BadMessage: it is none."""
        self._held += data
        while len(self._held) >= _HEADER.size:
            marker, length, kind = _HEADER.unpack_from(self._held)
            if marker != _MARKER:
                raise BadMessage(HEADER_ERROR, NOT_SYNCHRONISED, "what comes is no BGP message")
            if kind not in _LENGTHS:
                raise BadMessage(HEADER_ERROR, BAD_TYPE, f"a message of type {kind}", bytes((kind,)))
            least = _LENGTHS[kind]
            is_good = length == least if kind in _FIXED else least <= length <= MESSAGE_BYTES_MAX
            if not is_good:
                said = struct.pack("!H", length)
                raise BadMessage(HEADER_ERROR, BAD_LENGTH, f"type {kind} of {length} octets", said)
            if len(self._held) < length:
                return
            payload = bytes(self._held[_HEADER.size : length])
            del self._held[:length]
            yield kind, payload


def decode_open(payload: bytes) -> PeerOpen:
    """Raises BadMessage: it is no OPEN that can be answered."""
    version, number, hold_s, identifier, size = _OPEN.unpack_from(payload)
    if version != VERSION:
        raise BadMessage(OPEN_ERROR, BAD_VERSION, f"BGP version {version}", struct.pack("!H", VERSION))
    if 0 < hold_s < HOLD_S_MIN:
        raise BadMessage(OPEN_ERROR, BAD_HOLD_TIME, f"a hold time of {hold_s} s")
    if identifier == 0:
        raise BadMessage(OPEN_ERROR, BAD_IDENTIFIER, "an identifier of zero")
    families: set[tuple[int, int]] = set()
    is_refreshable = has_four_octets = False
    for kind, value in _capabilities(payload[_OPEN.size :], size):
        if kind == _MULTIPROTOCOL and len(value) == 4:
            afi, _, safi = struct.unpack("!HBB", value)
            families.add((afi, safi))
        elif kind == _FOUR_OCTETS and len(value) == 4:
            (number,) = struct.unpack("!I", value)
            has_four_octets = True
        elif kind == _REFRESH:
            is_refreshable = True
    return PeerOpen(number, hold_s, identifier, is_refreshable, frozenset(families), has_four_octets)


def _capabilities(rest: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Those of all optional parameters."""
    width = 1
    if size == _EXTENDED and rest[:1] == bytes((_EXTENDED,)):
        if len(rest) < 3:
            raise _unspecific()
        (size,) = struct.unpack_from("!H", rest, 1)
        rest, width = rest[3:], 2
    if size != len(rest):
        raise _unspecific()
    for kind, value in _listed(rest, width):
        if kind == _CAPABILITIES:
            yield from _listed(value, 1)


def _listed(rest: bytes, width: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of what is listed as type, length (of so many octets), value."""
    at = 0
    while at < len(rest):
        start = at + 1 + width
        end = start + int.from_bytes(rest[at + 1 : start])
        if start > len(rest) or end > len(rest):
            raise _unspecific()
        yield rest[at], rest[start:end]
        at = end


def _unspecific() -> BadMessage:
    return BadMessage(OPEN_ERROR, 0, "an OPEN whose parts do not fit into it")


_CODES: Sequence[str] = (
    "", "message header error", "OPEN refused", "UPDATE refused", "hold timer expired", "unexpected message",
    "cease", "route refresh refused",
)  # fmt: skip


def describe_notification(payload: bytes) -> str:
    """A peer's last words, for people."""
    code, subcode = payload[0], payload[1]
    words = _CODES[code] if code < len(_CODES) else f"code {code}"
    return f"{words} ({code}, {subcode})"
