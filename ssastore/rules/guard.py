"""The check at a listening socket, where no filter in the network makes it."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address
from typing import Any

from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord
from ssastore.rules.verdict import Verdict

_IID_MASK = (1 << 64) - 1


class Guard:
    """Judges connections by their two addresses, and counts its verdicts."""

    def __init__(self, record: ServiceRecord, keys: ServiceKeys) -> None:
        self.record = record
        self._keys = keys
        self.verdicts: Counter[Verdict] = Counter()

    def judge(self, peer: Any, own: Any, now_ms: int) -> Verdict:
        """The verdict on a connection, by ``getpeername`` and ``getsockname``; ``now_ms`` is Unix time.

        What came by IPv4, or by the loopback address, has no source that a rule could bind.
        """
        verdict = Verdict.OPEN
        # None: it was gone before anybody looked.
        if (
            peer is not None
            and ":" in peer[0]
            and not (source := IPv6Address(peer[0].partition("%")[0])).is_loopback
        ):
            iid = int(IPv6Address(own[0].partition("%")[0])) & _IID_MASK
            verdict = self.record.check(int(source) >> 64, iid, unix_s=now_ms / 1000, keys=self._keys)
        self.verdicts[verdict] += 1
        return verdict
