"""A disk that fails as disks do: the store in memory, with a seed behind it.

cut       what is not acknowledged when the power goes is there afterwards, or not: a commit
          under way takes effect as a whole or not at all (LMDB writes its root last, so a torn
          commit is one that did not happen)
full      no room for anything but deletes
error     a commit fails with EIO; nothing of it is kept, nothing is acknowledged
stall     commits take long
rot       a stored record changes by one bit: reading it raises, never returns other bytes
lying     commits are said to be durable and are not: the last ones go with the power

Every change that is committed is shown to ``watch``, which judges (``invariants``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ssastore.core.boot import ENVIRONMENT_KEY
from ssastore.core.records import CEILING_KEY
from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem
from ssastore.sim.seeds import Stream
from ssastore.store.changes import Outcome, Submitted, answer, without_trace
from ssastore.store.memory import MemoryStore, MemoryWriteTxn, Records

Watch = Callable[[bytes, bytes | None, bytes | None], None]
"(key, sealed value before, sealed value after) of a change that is committed; None: no record."

_VITAL = (ENVIRONMENT_KEY, CEILING_KEY)
"Without these an environment does not start any more, and has to be recovered as a whole."

_FULL_BYTES = 1
"Room of a disk that is full."
_LYING_COMMITS = 4
"What a lying disk loses, at most."


class Disk(MemoryStore):
    """``env.Store`` of a simulated node.

    Args:
        draw: what a power cut leaves, and which record rots.
        commit_ms: how long a commit takes.
    """

    def __init__(self, *, draw: Stream | None = None, commit_ms: int = 0) -> None:
        super().__init__(commit_ms=commit_ms)
        self.draw = draw or Stream(0, "disk")
        self.watch: Watch | None = None
        self.commits = 0
        self.is_lying = False
        self._roomy_bytes = self._map_bytes
        self._quick_ms = commit_ms
        self._errors_left = 0
        self._undone: list[list[tuple[bytes, bytes | None]]] = []
        "With a lying disk: how to take the last commits back, oldest first."

    # -- faults -------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Have room for deletes only, until ``heal``."""
        self._map_bytes = self._records.used_bytes + _FULL_BYTES

    def stall(self, commit_ms: int) -> None:
        """Let commits take long, until ``heal``."""
        self._commit_ms = commit_ms

    def fail(self, count: int) -> None:
        """Let the next commits fail."""
        self._errors_left = count

    def image(self) -> Records:
        """A copy of all that is committed, as a backup is."""
        return self._records.copy()

    @property
    def contents(self) -> Records:
        """All that is committed, to look at now."""
        return self._records

    def restore(self, image: Records | None) -> None:
        """Hold exactly what a copy holds, or nothing: the disk was replaced. The process must be down."""
        self._records = image.copy() if image is not None else Records()
        self._undone.clear()

    def heal(self) -> None:
        """Undo ``fill``, ``stall`` and ``fail``; what is rotten stays so."""
        self._map_bytes, self._commit_ms, self._errors_left = self._roomy_bytes, self._quick_ms, 0

    @property
    def is_hurt(self) -> bool:
        """Whether ``heal`` has something to undo."""
        return (self._map_bytes, self._commit_ms, self._errors_left) != (self._roomy_bytes, self._quick_ms, 0)

    def lose(self, key: bytes) -> None:
        """Forget a record."""
        self._records.set(key, None)

    def rot(self, key: bytes | None = None) -> bytes | None:
        """Flip one bit of a record, of ``key`` or of any; its key, None when there is none."""
        keys = [known for known in self._records.keys if known not in _VITAL] if key is None else [key]
        if not keys:
            return None
        key = self.draw.choice(keys)
        sealed = bytearray(self._records.sealed[key])
        bit = self.draw.randrange(len(sealed) * 8)
        sealed[bit // 8] ^= 1 << bit % 8
        self.poke(key, bytes(sealed))
        return key

    def crash(self) -> None:
        """The power goes. Nobody was told of the commit under way; it may have got through all the same."""
        if self._batch and self.draw.chance(0.5):
            for submitted in self._batch:
                self._run(submitted)
        for undo in reversed(self._undone):
            for key, before in reversed(undo):
                self._records.set(key, before)
        self._undone.clear()
        self.heal()
        super().crash()

    # -- commits ------------------------------------------------------------------------------------

    def _commit(self) -> None:
        self.commits += 1
        if self._errors_left:
            self._errors_left -= 1
            batch, self._batch = self._batch, []
            for submitted in batch:
                answer(submitted, (None, EnvironmentProblem("the disk failed in a commit (EIO)")))
            self._timer = asyncio.get_running_loop().call_soon(self._start)
            return
        if self.is_lying:
            self._undone = [*self._undone[1 - _LYING_COMMITS :], []]
        super()._commit()

    def _run(self, submitted: Submitted) -> Outcome:
        txn = MemoryWriteTxn(self._records, self._map_bytes)
        change: Callable[[WriteTxn], Any] = submitted.change
        try:
            result = change(txn)
        except BaseException as error:
            txn.undo()
            return None, without_trace(error)
        if self.is_lying and self._undone:
            self._undone[-1] += txn.changes
        if self.watch is not None:
            for key, before in txn.changes:
                self.watch(key, before, self._records.sealed.get(key))
        return result, None
