"""The check at a listening socket, where no filter in the network makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from ssastore.keyspace import FRONT_PLANE, plane_of
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord
from ssastore.rules.verdict import Verdict

_IID_MASK = (1 << 64) - 1


class Guard:
    """Judges connections by their two addresses, and counts its verdicts."""

    def __init__(
        self,
        record: ServiceRecord,
        keys: ServiceKeys,
        networks: Callable[[], Iterable[IPv6Network]],
        *,
        is_monitor: bool = False,
        is_front: bool = False,
    ) -> None:
        """``networks``: the service's prefixes at the moment, two while it is renumbered.

        ``is_monitor``: what breaks the rule is counted, and let in.  ``is_front``: what serves here is for
        the front plane alone, and other planes are no way around its rule.
        """
        self.record = record
        self._keys = keys
        self._networks = networks
        self._is_monitor = is_monitor
        self._is_front = is_front
        self.verdicts: Counter[Verdict] = Counter()

    def lets_in(self, peer: Any, own: Any, now_ms: int) -> bool:
        """Whether a connection may go on; arguments as of ``judge``."""
        return not self.judge(peer, own, now_ms).is_break or self._is_monitor

    def judge(self, peer: Any, own: Any, now_ms: int) -> Verdict:
        """The verdict on a connection, by ``getpeername`` and ``getsockname``; ``now_ms`` is Unix time.

        What came by IPv4, or by the loopback address, has no source that a rule could bind.
        """
        verdict = Verdict.OPEN
        # None: it was gone before anybody looked.
        if peer is not None and ":" in peer[0]:
            source, reached = (IPv6Address(name[0].partition("%")[0]) for name in (peer, own))
            # A socket on [::] has IPv4 clients by mapped addresses.
            if not source.is_loopback and source.ipv4_mapped is None:
                verdict = self._verdict(int(source) >> 64, reached, now_ms)
        self.verdicts[verdict] += 1
        return verdict

    def _verdict(self, source: int, reached: IPv6Address, now_ms: int) -> Verdict:
        if not any(reached in network for network in self._networks()):
            return Verdict.PLANE  # An address of the host itself is no way around the rule.
        iid = int(reached) & _IID_MASK
        if self._is_front and plane_of(iid) != FRONT_PLANE:
            return Verdict.PLANE
        return self.record.check(source, iid, unix_s=now_ms / 1000, keys=self._keys)
