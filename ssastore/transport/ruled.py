"""Links that keep the rule of a service: they dial what the rule gives for the address that is wanted.

Plane and locator of what is asked for stay, so it is the same node and worker; the tail proves something
of who dials, from where, and when.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import TypeVar

from ssastore.env import Clock, Links, Randomness
from ssastore.keyspace import position_of
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.record import ServiceRecord
from ssastore.rules.rule import Rule

P = TypeVar("P", bound=asyncio.BaseProtocol)

_WORK_BITS_ON_LOOP = 8
"Some 256 hashes take a fifth of a millisecond; more are searched for on a thread."
_IID_MASK = (1 << 64) - 1


def source_of(destination: IPv6Address) -> int:
    """The first 64 bits of the address that the kernel would dial ``destination`` from; nothing is sent.

    Raises:
        OSError: there is no route.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((str(destination), 9))
        return int(IPv6Address(probe.getsockname()[0].partition("%")[0])) >> 64


class RuledLinks:
    """Implements ``env.Links`` over other links."""

    def __init__(
        self,
        links: Links,
        record: ServiceRecord,
        clock: Clock,
        randomness: Randomness,
        *,
        token: bytes = b"",
        secret: bytes = b"",
        source: Callable[[IPv6Address], int] = source_of,
    ) -> None:
        """For keyed rules a client has the ``token`` of its /64; a node has the ``secret``."""
        self.record = record
        "Of the service; another one when its name says so."
        self._links = links
        self._token = token
        self._secret = secret
        self._clock = clock
        self._randomness = randomness
        self._source = source

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``."""
        if self._rule_of(address).is_hashed:
            address = await self.ruled_for(address)
        return await self._links.dial(address, port, protocol)

    async def ruled_for(self, address: IPv6Address) -> IPv6Address:
        """``address_for``, without holding others up while it works for a nonce."""
        if self._rule_of(address).work_bits > _WORK_BITS_ON_LOOP:
            return await asyncio.to_thread(self.address_for, address)
        return self.address_for(address)

    def address_for(self, address: IPv6Address) -> IPv6Address:
        """The address that the rule gives, now, for what is at ``address``.

        Raises:
            ConfigError: the rule is keyed, and there is no token.
            OSError: there is no route.
        """
        iid, rule = int(address) & _IID_MASK, self._rule_of(address)
        source = self._source(address)
        ruled = address_under(
            rule,
            iid >> 60,
            source,
            free=int.from_bytes(self._randomness.bytes(8), "big"),
            position=position_of(iid),
            epoch=rule.epoch_at(self._clock.now_ms() / 1000),
            keys=ClientKeys(
                self.record.public, token_of(self._secret, source) if self._secret else self._token
            ),
        )
        return IPv6Address(int(address) >> 64 << 64 | ruled)

    def _rule_of(self, address: IPv6Address) -> Rule:
        """Of any plane of data: there may be more of them by now than the record says."""
        iid = int(address) & _IID_MASK
        return self.record.rule_of(iid) or self.record.data


def ruled(
    links: Links, rules: tuple[ServiceRecord, ServiceKeys] | None, clock: Clock, randomness: Randomness
) -> Links:
    """Links of a part of the cluster itself, which has the secrets; as they are where no rule is set."""
    if rules is None:
        return links
    record, keys = rules
    return RuledLinks(links, record, clock, randomness, secret=keys.secrets[0] if keys.secrets else b"")
