"""What one shard of a bucket with a quota holds, as the worker that holds it reckons. Pure; in memory only.

``used`` is never below what the shard's records have in bytes and objects together, nor below what
they have if any value becomes agreed that was ever sent under this hold:

    charge    before a value is sent: by how much it is larger than the one that it replaces
    settle    it was chosen, over that one: by how much it is smaller
    release   it was not sent, and never will be

What becomes of a value is not always known.  Then it stays charged, and is *missed*: so
much may be won by counting anew.  Until all that the planes hold has been read nothing is credited and a new
value counts in full, as nobody knows what it replaces.

Parts of an upload count while it is open.  When its object is made they are *lent* to that: it is
charged for what it has beyond them, and they are not credited when they go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ssastore.core.amounts import ZERO, Amount
from ssastore.core.twins import Twins


@dataclass(slots=True)
class Charge:
    """One value that was or may have been sent."""

    old: Amount
    "What it replaces; nothing, if that was not certain."
    new: Amount
    taken: Amount
    "What was added to ``used`` for it."
    lent: int
    "Bytes of parts that it stands for."
    is_credited: bool
    "Whether what it replaces counts."
    upload: bytes = b""
    "Stored name of the upload that the record is a part of, or that its object is made by."


@dataclass(slots=True)
class Ledger:
    """See above. ``share`` is what of the quota is the shard's; None: the quota is not in force yet."""

    hold: bytes
    cfg: int
    planes: frozenset[int]
    "Those that are under the hold; once counted, those that were."
    share: Amount | None
    used: Amount
    spare: Amount = ZERO
    "What ``share`` may be larger than ``used`` without being asked for back; twice that is given back."
    is_counted: bool = False
    is_paused: bool = False
    "Nothing is to be charged just now."
    missed: Amount = ZERO
    differing: list[tuple[int, bytes]] = field(default_factory=list)
    "(kind, key) of records that planes did not hold alike when they were counted: the largest counts."
    twins: Twins = field(default_factory=Twins)
    begun: Amount = ZERO
    "``used`` when the hold began."
    _lendable: Counter[bytes] = field(default_factory=Counter)
    _owed: Counter[bytes] = field(default_factory=Counter)
    "By upload: bytes of parts that may be lent; and of those that were, and give nothing when they go."

    _shrunk: dict[bytes, int] = field(default_factory=dict)
    "By upload whose parts are being listed, what was credited of them meanwhile."

    def __post_init__(self) -> None:
        self.begun = self.used

    def charge(
        self, old: Amount, new: Amount, upload: bytes = b"", *, is_part: bool = False
    ) -> Charge | None:
        """Let a value count; None when ``share`` is too small for it."""
        base = old if self.is_counted else ZERO
        grown = new.beyond(base)
        lent = 0 if is_part else min(grown.size, self._lendable[upload]) if upload else 0
        taken = grown - Amount(lent, 0)
        if taken != ZERO and self.share is not None and not (self.used + taken).fits(self.share):
            return None
        self.used += taken
        if lent:
            self._lendable[upload] -= lent
            self._owed[upload] += lent
        if not self.is_counted:
            self.missed += old.most(taken + Amount(lent, 0))
        return Charge(base, new, taken, lent, self.is_counted, upload)

    def lacks(self, old: Amount, new: Amount, upload: bytes = b"", *, is_part: bool = False) -> Amount:
        """How much larger ``share`` must be for that."""
        if self.share is None:
            return ZERO
        grown = new.beyond(old if self.is_counted else ZERO)
        lent = 0 if is_part else min(grown.size, self._lendable[upload]) if upload else 0
        return (self.used + grown - Amount(lent, 0)).beyond(self.share)

    def settle(self, charge: Charge, *, is_part: bool = False) -> None:
        """The value was chosen over the old one."""
        if not charge.is_credited:
            return
        back = charge.old.beyond(charge.new)
        if is_part and back.size and (kept := min(back.size, self._owed[charge.upload])):
            self._owed[charge.upload] -= kept
            if not self._owed[charge.upload]:
                del self._owed[charge.upload]
            back -= Amount(kept, 0)
        if is_part and back.size:
            # Of parts that shrink while an object is made of them it stands for so much less.
            if charge.upload in self._lendable:
                self._lendable[charge.upload] = max(0, self._lendable[charge.upload] - back.size)
            if charge.upload in self._shrunk:
                self._shrunk[charge.upload] += back.size
        self.used -= back

    def release(self, charge: Charge) -> None:
        """Nothing was sent, or nothing will come of it."""
        self.used -= charge.taken
        if charge.lent:
            self._owed[charge.upload] -= charge.lent
            self._lendable[charge.upload] += charge.lent

    def miss(self, charge: Charge) -> None:
        """Nobody knows what became of it."""
        self.missed += (charge.taken + Amount(charge.lent, 0)).most(charge.old.beyond(charge.new))

    def begin_lending(self, upload: bytes) -> None:
        """The parts of an upload are about to be listed; what shrinks from now on may be seen as it was."""
        self._shrunk[upload] = 0

    def lend(self, upload: bytes, size: int) -> None:
        """An object is about to be made of the parts of an upload, which had so many bytes."""
        self._lendable[upload] = max(0, size - self._owed[upload] - self._shrunk.pop(upload, 0))

    def may_lend(self, upload: bytes) -> bool:
        """Whether that was said."""
        return upload in self._lendable

    def lend_no_more(self, upload: bytes) -> None:
        """The object was made, or was not."""
        del self._lendable[upload]

    @property
    def is_exact(self) -> bool:
        """Whether nothing is to be won by counting again."""
        return self.is_counted and self.missed == ZERO

    def count(self, found: Amount, owed: Counter[bytes], planes: frozenset[int]) -> None:
        """All that the planes hold was read, after the hold began: that counts now, and what came since.

        ``owed``: parts that were found and not reckoned, as their upload is not open any more.
        """
        self.used = found + self.used - self.begun
        self._owed.update(owed)
        self.planes = planes
        self.is_counted = True
