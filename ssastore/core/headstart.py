"""The head start: a ballot that is promised for every name of plane 0 that nothing is held of here. Pure.

A round's first phase asks a majority what it has accepted, and makes it promise.  Of a new
name there is nothing to tell.  So whoever proposes beside plane 0 of three promises one ballot
in advance, for all names that are absent here and with one sync for all of them, and then sends
the *first* value of a name at once:

    1  plane 0 has promised the head start and holds nothing of the name
    2  ACC(head start, value, "if you hold none") to planes 1 and 2: one that takes it had accepted
       nothing either, so with plane 0 it is a majority that had accepted nothing below this ballot
    3  when one of them has taken it, plane 0 takes it; not before, since until then a value that both
       others hold may be chosen, and what plane 0 would have taken would be above it

This is CASPaxos (ADR 0005) with the first phase folded into the second; ADR 0029 has the argument.  It
holds for three planes: of five, plane 0 and one other are no majority.

A ballot is used once for a name.  Names that were begun under the head start are remembered until plane 0
holds them, and a floor that has come up to it (``core.floors``: the name may have been collected) ends its
use in that slice.  Both, and every start, call for a new one.
"""

from __future__ import annotations

from ssastore.core.ceiling import Ceiling
from ssastore.core.records import HEAD_START_KEY
from ssastore.core.register import NO_BALLOT, Ballot, Ballots, make_ballot
from ssastore.env import Store, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.keyspace import plane_of
from ssastore.messages import BALLOT_BYTES

PLANES = 3
"The only number of planes for which the argument holds."

BEGUN_MAX = 10_000
"Names that are remembered; more than are ever under way, so they fill up only when plane 0 takes nothing."

_U32_MAX = 0xFFFF_FFFF


class HeadStart:
    """The head start of one environment while it runs."""

    def __init__(self, ballots: Ballots, ceiling: Ceiling) -> None:
        self._ballots = ballots
        self._ceiling = ceiling
        self.promised: Ballot = NO_BALLOT
        "At least what is stored. Absent names of plane 0 have promised it."
        self._ballot: Ballot = NO_BALLOT
        "Drawn since the start, stored and synced: what may be proposed under."
        self._begun: set[bytes] = set()
        self._is_due = True

    def open(self, store: Store) -> None:
        """Take up what was promised before this start; the ceiling is open already."""
        with store.read() as txn:
            try:
                stored = bytes(txn.get(HEAD_START_KEY) or NO_BALLOT)
            except CorruptObject:
                stored = b""
        # Nothing higher than the ceiling was ever promised.
        is_known = len(stored) == BALLOT_BYTES
        self.promised = stored if is_known else make_ballot(self._ceiling.top, _U32_MAX, _U32_MAX)

    async def renew(self, store: Store, now_ms: int) -> None:
        """The job: promise a new one where it is due. Raises StoreFull: then there is none."""
        if not self._is_due:
            return
        self._is_due = False
        self._ballot, self._begun = NO_BALLOT, set()
        ballot = self._ballots.next(self.promised, now_ms)
        # What is reserved with it is reserved for all names at once.
        self._ballots.after(ballot)

        def change(txn: WriteTxn) -> None:
            self._ceiling.cover(txn, ballot, now_ms)
            txn.put(HEAD_START_KEY, ballot, use_reserve=True)
            # From the next transaction on. That this one may fail yet makes it one promise too many.
            self.promised = max(self.promised, ballot)

        try:
            await store.submit(change)
        except BaseException:
            self._is_due = True
            raise
        self._ballot = ballot

    def restore(self, txn: WriteTxn) -> None:
        """Write it again: the stored one was found rotten."""
        txn.put(HEAD_START_KEY, self.promised, use_reserve=True)

    def over(self, iid: int, floor: Ballot) -> Ballot:
        """What the plane of an IID has promised for a name that it holds nothing of, above its floor."""
        return floor if plane_of(iid) else max(floor, self.promised)

    def begin(self, name: bytes, floor: Ballot) -> Ballot | None:
        """The ballot under which a name that is absent here may get its first value; None: a full round."""
        if name in self._begun:
            return None
        if floor >= self._ballot or len(self._begun) >= BEGUN_MAX:
            self._is_due = True
            return None
        self._begun.add(name)
        return self._ballot

    def end(self, name: bytes, ballot: Ballot) -> None:
        """Plane 0 holds the name now, durably, and it is not begun again; or nobody will ever hold it."""
        if ballot == self._ballot:
            self._begun.discard(name)
