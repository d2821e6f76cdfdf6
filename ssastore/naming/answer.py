"""What the records of a name say: prefixes from APL (RFC 3123) or TXT, and the rules.

A positive item of APL is a site, a /64.  A negated one is a hole in it: addresses that nobody has at
the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from ssastore.errors import ConfigError
from ssastore.keyspace import service_network
from ssastore.rules.record import PREFIXES_MAX, VERSION, ServiceRecord, record_from_text

ITEMS_MAX = 256
TTL_S_MIN = 1
TTL_S_MAX = 3600
_FAMILY_IPV6 = 2


DEFAULT_RECORD = ServiceRecord()
"Of a name without one."


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a service is: ``sites`` in the order of the answer, what is left out of them, and its record.

    ``ttl_s``: for how many seconds that may be believed.  ``step``: what said so: ``apl`` or ``txt``.
    """

    sites: tuple[IPv6Network, ...]
    holes: tuple[IPv6Network, ...] = ()
    record: ServiceRecord = DEFAULT_RECORD
    ttl_s: int = TTL_S_MAX
    step: str = "apl"

    def holds(self, address: IPv6Address) -> bool:
        """Whether an address is in a site and in no hole."""
        return any(address in site for site in self.sites) and not any(address in hole for hole in self.holes)


def bounded_ttl(*ttls: int) -> int:
    """The least, within bounds: 0 would ask for every call, and 2^31 never again."""
    return max(TTL_S_MIN, min(TTL_S_MAX, *ttls))


def prefixes_of(items: Sequence[Any]) -> tuple[tuple[IPv6Network, ...], tuple[IPv6Network, ...]]:
    """(sites, holes) of the items of an APL record set, as dnspython gives them.

    Items of families that are not IPv6 are ignored (RFC 3123, section 4).  The same site twice is one.
    A hole that leaves nothing of a site takes the site away, and a hole outside all sites says nothing.

    Raises:
        ConfigError: too many items, a prefix that cannot be one of a service, or no site is left.
    """
    if len(items) > ITEMS_MAX:
        raise ConfigError(f"the APL record has {len(items)} items, more than {ITEMS_MAX}")
    sites: dict[IPv6Network, None] = {}
    holes: dict[IPv6Network, None] = {}
    for item in items:
        if item.family != _FAMILY_IPV6:
            continue
        prefix = _network(f"{item.address}/{item.prefix}")
        (holes if item.negation else sites)[prefix if item.negation else _site(prefix)] = None
    left = [site for site in sites if not any(site.subnet_of(hole) for hole in holes)]
    if not left:
        raise ConfigError("the APL record has no IPv6 prefix" + (" that is not negated" if holes else ""))
    if len(left) > PREFIXES_MAX:
        raise ConfigError(f"the APL record has {len(left)} prefixes, more than {PREFIXES_MAX}")
    return tuple(left), tuple(hole for hole in holes if any(hole.subnet_of(site) for site in left))


def _network(text: str) -> IPv6Network:
    try:
        # Bits below the prefix are zero by RFC 3123; who sets them means the prefix all the same.
        return IPv6Network(text, strict=False)
    except ValueError as error:
        raise ConfigError(f"the APL record has a wrong prefix: {error}") from None


def _site(prefix: IPv6Network) -> IPv6Network:
    try:
        return service_network(str(prefix))
    except ValueError as error:
        raise ConfigError(f"the APL record: {error}") from None


def record_of(texts: Iterable[Sequence[bytes]]) -> ServiceRecord | None:
    """The service record among the TXT records at ``_ssa.NAME``, each a sequence of strings; or None.

    Raises:
        ConfigError: there are two, one that is wrong, or only one of another version.
    """
    found, others = [], []
    for strings in texts:
        text = b"".join(strings).decode("ascii", "replace")
        version = text.partition(";")[0].replace(" ", "").lower()
        if version == f"v={VERSION}".lower():
            found.append(record_from_text(text))
        elif version.startswith("v=ssa"):
            others.append(version)
    if len(found) > 1:
        raise ConfigError(f"there are {len(found)} service records where one is wanted")
    if others and not found:
        raise ConfigError(f"the service record is {others[0]}, and this client knows v={VERSION}")
    return found[0] if found else None
