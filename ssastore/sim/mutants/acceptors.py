"""Acceptors and disks that forget what they promised."""

from __future__ import annotations

from ssastore.core.records import BOOKKEEPING_FIRST
from ssastore.core.register import Ballot, Slot
from ssastore.sim.disk import Disk
from ssastore.sim.mutants import Mutant, Put


def _accept_not_durable(put: Put) -> None:
    make = Disk.__init__

    def lie(self: Disk, **options: object) -> None:
        make(self, **options)  # type: ignore[arg-type]
        self.is_lying = True

    put(Disk, "__init__", lie)


def _restarts_empty(put: Put) -> None:
    crash = Disk.crash

    def forget(self: Disk) -> None:
        crash(self)
        for key in list(self._records.keys):
            if key < BOOKKEEPING_FIRST:  # A disk without its own id is noticed at the start.
                self._records.set(key, None)

    put(Disk, "crash", forget)


def _promises_forgotten(put: Put) -> None:
    def prepare(self: Slot, ballot: Ballot) -> bool:
        if ballot <= self.accepted:
            return False
        self.promise = ballot
        return True

    put(Slot, "prepare", prepare)


def _promises_ignored(put: Put) -> None:
    def accept(self: Slot, ballot: Ballot, value: bytes, reserved: Ballot) -> bool:
        if ballot <= self.accepted:
            return ballot == self.accepted
        self.accepted, self.value = ballot, value
        self.promise = max(self.promise, ballot, reserved)
        return True

    put(Slot, "accept", accept)


MUTANTS = [
    Mutant(
        "accept-not-durable",
        "a crash takes back the last commits that were acknowledged",
        _accept_not_durable,
        # In "fight" too, but there most nodes are soon rebuilt over and over: 60 s until it is seen.
        "safety",
    ),
    Mutant("restarts-empty", "an acceptor that restarts has forgotten everything and votes", _restarts_empty),
    Mutant("promises-forgotten", "a lower ballot is promised after a higher one", _promises_forgotten),
    Mutant("promises-ignored", "a value is accepted below the promise", _promises_ignored),
]
