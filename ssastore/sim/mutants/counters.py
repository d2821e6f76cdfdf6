"""Quotas that are kept by less than it takes."""

from __future__ import annotations

from typing import Any

from ssastore.core import shuts
from ssastore.core.ledger import Ledger
from ssastore.core.quota import Quota
from ssastore.core.twins import Twins
from ssastore.sim.mutants import Mutant, Put


def _holds_ignored(put: Put) -> None:
    put(shuts, "check_held", lambda kind, hold, held, state: None)


def _share_counts_as_free(put: Put) -> None:
    begin = Ledger.__post_init__

    def begun(self: Ledger) -> None:
        begin(self)
        self.is_counted = True
        self.used = self.begun = self.used - self.used

    put(Ledger, "__post_init__", begun)


def _shares_beyond_the_limit(put: Put) -> None:
    def grant(self: Quota, shard: int, wanted: Any, spare: Any) -> Quota:
        return self.reserve(shard, wanted)

    put(Quota, "grant", grant)


def _pairs_spent_twice(put: Put) -> None:
    put(Twins, "base", lambda self, change: change.before)


MUTANTS = (
    Mutant("holds-ignored", "planes take values that nobody counted", _holds_ignored, "quota"),
    Mutant("not-counted", "who takes a shard over takes it for empty", _share_counts_as_free, "quota"),
    Mutant("shares-without-limit", "shares grow beyond the limit", _shares_beyond_the_limit, "quota"),
    Mutant("pairs-spent-twice", "a version of two records makes room twice", _pairs_spent_twice, "quota"),
)
