"""Finds a service by its name: APL, else the prefixes of its TXT record, else an error that says why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import ip_address
from re import fullmatch
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

from ssastore.errors import ConfigError, Unavailable
from ssastore.naming.answer import DEFAULT_RECORD, Whereabouts, bounded_ttl, prefixes_of, record_of

LOOKUP_S = 5.0
"All questions of one look-up together."
_NAME_MAX = 253
_HINT_S = 1.0
"More than LOOKUP_S, for an error that helps."
_SSA = dns.name.from_text("_ssa", None)


@dataclass
class Story:
    """What was asked and answered, a line each: ``ssastore dns check`` prints it."""

    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        self.lines.append(line)


@dataclass(frozen=True, slots=True)
class NameServer:
    """A name server to ask instead of those of the system."""

    address: str
    port: int = 53


def name_server_from(text: str) -> NameServer:
    """Parse ADDRESS, [ADDRESS]:PORT or IPV4:PORT. Raises ConfigError."""
    match = fullmatch(r"\[([^\[\]]+)\](?::(\d{1,5}))?|([0-9.]+):(\d{1,5})|([^\[\]]+)", text)
    try:
        if match is None:
            raise ValueError("it is ADDRESS or [ADDRESS]:PORT")
        six, six_port, four, four_port, alone = match.groups()
        address, port = ip_address(six or four or alone), int(six_port or four_port or 53)
        if not 0 < port < 65536:
            raise ValueError("a port is 1 to 65535")
    except ValueError as error:
        raise ConfigError(f"no name server: {text!r}: {error}") from None
    return NameServer(str(address), port)


async def look_up(name: str, *, server: NameServer | None = None, story: Story | None = None) -> Whereabouts:
    """Where the service is that has this name, within LOOKUP_S.

    Raises:
        ConfigError: the name does not exist, has nothing that says where a service is, or says it wrongly.
        Unavailable: name servers did not answer, or failed.
    """
    wanted = parsed_name(name)
    resolver = _resolver(server)
    story = story or Story()
    # Side by side: most names have both, and a server that does not answer costs its time once.
    asked = (
        _ask(resolver, wanted, "APL", story),
        _ask(resolver, _SSA + wanted, "TXT", story),
    )
    try:
        async with asyncio.timeout(LOOKUP_S):
            apl, txt = await asyncio.gather(*asked)
    except TimeoutError:
        raise Unavailable(f"name servers did not say within {LOOKUP_S:g} s where {name} is") from None
    if txt.failure:
        # Not: as if there were none. Then a client would break a rule that it could have known.
        raise Unavailable(f"what is the rule of {name}? {txt.failure}")
    record = record_of(rdata.strings for rdata in txt.rrset or ())
    if apl.rrset is not None:
        sites, holes = prefixes_of([item for rdata in apl.rrset for item in rdata.items])
        ttl_s = bounded_ttl(apl.ttl_s, *([txt.ttl_s] if record else []))
        return Whereabouts(sites, holes, record or DEFAULT_RECORD, ttl_s, "apl")
    if record is not None and record.prefixes:
        return Whereabouts(record.prefixes, (), record, bounded_ttl(txt.ttl_s), "txt")
    if apl.failure:
        raise Unavailable(f"where is {name}? {apl.failure}")
    raise ConfigError(await _why_not(resolver, name, wanted, apl, story))


async def _why_not(resolver: Any, name: str, wanted: dns.name.Name, apl: _Answer, story: Story) -> str:
    if not apl.exists:
        return f"there is no name {name}"
    resolver.lifetime = _HINT_S
    aaaa = await _ask(resolver, wanted, "AAAA", story)
    if aaaa.rrset is not None:
        return (
            f"{name} has addresses and no prefix (APL, or prefix= in TXT at _ssa.{name}): "
            f"only S3 clients can use it, at http://{name}"
        )
    return f"{name} has no APL record, and no TXT record with prefix= at _ssa.{name}"


@dataclass(frozen=True, slots=True)
class _Answer:
    rrset: Any = None
    ttl_s: int = 0
    "The least of the records and the aliases that led to them."
    exists: bool = True
    failure: str = ""


async def _ask(resolver: Any, name: dns.name.Name, kind: str, story: Story) -> _Answer:
    try:
        answer = await resolver.resolve(name, kind, search=False)
    except dns.resolver.NXDOMAIN:
        story.tell(f"{kind} {name}: no such name")
        return _Answer(exists=False)
    except dns.resolver.NoAnswer:
        story.tell(f"{kind} {name}: none")
        return _Answer()
    except (dns.exception.DNSException, OSError) as error:
        # A chain of CNAMEs that never ends, a name server that fails, an answer that is no DNS message.
        failure = str(error).splitlines()[0]
        story.tell(f"{kind} {name}: {failure}")
        return _Answer(failure=failure)
    told = " | ".join(rdata.to_text() for rdata in answer.rrset)
    story.tell(f"{kind} {name}: {told} (TTL {answer.rrset.ttl} s, from {answer.nameserver})")
    return _Answer(answer.rrset, answer.chaining_result.minimum_ttl)


def parsed_name(name: str) -> dns.name.Name:
    """A name as DNS has it. Raises ConfigError: it is none."""
    try:
        # Before the codec of international names, which takes long for long ones.
        if len(name) > _NAME_MAX:
            raise ConfigError(f"a name has at most {_NAME_MAX} characters, got {len(name)}")
        parsed = dns.name.from_text(name)
        _ = _SSA + parsed  # Its record must have a name as well.
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ConfigError(f"{name!r} is no name in DNS: {error}") from None
    if parsed == dns.name.root:
        raise ConfigError("the name of a service is empty")
    return parsed


def _resolver(server: NameServer | None) -> Any:
    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
    except dns.resolver.NoResolverConfiguration as error:
        raise ConfigError(f"this host has no name servers: {error}") from None
    if server is not None:
        resolver.nameservers = [server.address]
        resolver.port = server.port
    resolver.lifetime = LOOKUP_S
    return resolver
