"""The ceiling: no ballot with a higher counter was ever promised or accepted in this environment. Pure.

A record that is found rotten has lost its promise.  Who repairs it needs a ballot
above whatever that promise was, and the record cannot say; the ceiling can
(``core.repair``, ADR 0009).

It runs ahead of the clock, raised by a job, so that a vote finds its ballot below it
and pays nothing; a vote that does not raises it in its own transaction.  What is
compared is only what is known to be durable, since a transaction may be run again.
"""

from __future__ import annotations

from ssastore.core.records import CEILING_KEY
from ssastore.core.register import Ballot, counter_of
from ssastore.env import ReadTxn, Store, WriteTxn
from ssastore.errors import CorruptObject, DataDirError

AHEAD_US = 30_000_000
"How far the ceiling is set above what needs it."

RAISE_EVERY_S = 10
"How often the job raises it: well within AHEAD_US."


class Ceiling:
    """The ceiling of one environment while it runs."""

    def __init__(self) -> None:
        self.top = 0
        "At least what is stored: what was read at the start, and everything that was written since."
        self._durable = 0
        "At most what is stored and synced."
        self._is_used = False

    def open(self, store: Store) -> None:
        """Take up what is stored.

        Raises:
            DataDirError: it is lost, in an environment that may have voted: what that has promised is not
                known any more.
        """
        with store.read() as txn:
            try:
                stored = _read(txn)
            except CorruptObject as error:
                raise DataDirError(f"the ceiling of promised ballots is damaged: {error}") from error
            if stored is None:
                raise DataDirError("the ceiling of promised ballots is missing: what was promised is unknown")
            self.top = self._durable = stored

    def cover(self, txn: WriteTxn, ballot: Ballot, now_ms: int) -> None:
        """Before a vote is stored: see to it that the ceiling is not below ``ballot``.

        It runs ahead of the clock and not of the ballot, else every repair would push it further.
        """
        counter = counter_of(ballot)
        self._is_used = True
        if counter > self._durable and counter > self._stored(txn):
            self._write(txn, max(counter, now_ms * 1000 + AHEAD_US))

    async def keep_ahead(self, store: Store, now_ms: int) -> None:
        """The job: raise the ceiling above the clock when votes were given since the last time."""
        if not self._is_used:
            return
        self._is_used = False
        counter = now_ms * 1000 + AHEAD_US

        def change(txn: WriteTxn) -> int:
            stored = self._stored(txn)
            if counter > stored:
                self._write(txn, counter)
            return max(counter, stored)

        self._durable = max(self._durable, await store.submit(change))

    def restore(self, txn: WriteTxn) -> None:
        """Write it again: the stored one was found rotten."""
        self._write(txn, self.top)

    def _stored(self, txn: ReadTxn) -> int:
        try:
            return _read(txn) or 0
        except CorruptObject:
            return 0  # It is written again, not below what it was.

    def _write(self, txn: WriteTxn, counter: int) -> None:
        self.top = max(self.top, counter)
        txn.put(CEILING_KEY, self.top.to_bytes(8, "big"), use_reserve=True)


def start_ceiling(txn: WriteTxn) -> None:
    """Write the ceiling of a new environment: from then on one without a ceiling has lost it."""
    txn.put(CEILING_KEY, bytes(8), use_reserve=True)


def _read(txn: ReadTxn) -> int | None:
    stored = txn.get(CEILING_KEY)
    return None if stored is None else int.from_bytes(stored, "big")
