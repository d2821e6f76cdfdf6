"""The lines that tell a name server of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv6Address, IPv6Network
from shlex import quote

import dns.rdata
import dns.rdataclass
import dns.rdatatype

from ssastore.errors import ConfigError
from ssastore.keyspace import FRONT_PLANE, TAIL_BITS, address_of, iid_of
from ssastore.naming.resolve import parsed_name
from ssastore.rules.address import UNBOUND_END
from ssastore.rules.record import ServiceRecord

FORMATS = ("knot", "bind", "nsd", "powerdns", "generic")
_STRING_MAX = 255
"Bytes of one string of a TXT record (RFC 1035, section 3.3.14)."


def apl_text(sites: Sequence[IPv6Network], holes: Sequence[IPv6Network] = ()) -> str:
    """The data of an APL record as zone files have it."""
    return " ".join([f"2:{site}" for site in sites] + [f"!2:{hole}" for hole in holes])


def txt_text(record: ServiceRecord) -> str:
    """The data of the TXT record, cut into strings that are short enough."""
    text = str(record)
    return " ".join(f'"{text[at : at + _STRING_MAX]}"' for at in range(0, len(text), _STRING_MAX))


def front_addresses(
    sites: Iterable[IPv6Network], count: int, below: Callable[[int], int]
) -> list[IPv6Address]:
    """Of each site so many addresses for clients that know no rule, one in each of as many equal parts.

    They are in the unbound part of the front plane, ``f0xx``: so each has a gateway, and all gateways get
    their share.  ``below(bound)`` draws from 0 to bound - 1.
    """
    step = (UNBOUND_END << TAIL_BITS) // max(count, 1)
    return [
        address_of(site, iid_of(number * step + below(step - 1) + 1, FRONT_PLANE))
        for site in sites
        for number in range(count)
    ]


def zone_lines(
    name: str,
    sites: Sequence[IPv6Network],
    *,
    holes: Sequence[IPv6Network] = (),
    record: ServiceRecord,
    addresses: Sequence[IPv6Address] = (),
    ttl_s: int,
    form: str,
) -> Iterator[str]:
    """Lines for one of FORMATS; ``addresses`` are for clients that know no rule (AAAA).

    Knot, BIND and NSD read one form of zone files.  For PowerDNS they are commands of ``pdnsutil``.
    ``generic`` has the APL record as ``TYPE42`` (RFC 3597), for editors that do not know it, and the
    prefixes in the TXT record as well.

    Raises:
        ConfigError: no such format, or nothing to say.
    """
    if form not in FORMATS:
        raise ConfigError(f"no such format: {form}; known are {', '.join(FORMATS)}")
    if not sites:
        raise ConfigError("a service has at least one prefix")
    owner = parsed_name(name).to_text()
    apl = apl_text(sites, holes)
    records = [(owner, "APL", apl), (f"_ssa.{owner}", "TXT", txt_text(record))]
    records += [(owner, "AAAA", str(address)) for address in addresses]
    for where, kind, data in records:
        if form == "powerdns":
            zone = owner.partition(".")[2].rstrip(".")
            # What is left of the zone's name, as pdnsutil wants it; data with quotes goes through the shell.
            words = (zone or ".", where.removesuffix(f".{zone}."), kind, str(ttl_s), data)
            yield f"pdnsutil add-record {' '.join(map(quote, words))}"
        elif form == "generic" and kind == "APL":
            yield f"{where} {ttl_s} IN TYPE42 {_unknown(data)}"
        else:
            yield f"{where} {ttl_s} IN {kind} {data}"


def _unknown(data: str) -> str:
    wire = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.APL, data).to_wire()
    assert wire is not None
    return f"\\# {len(wire)} {wire.hex()}"
