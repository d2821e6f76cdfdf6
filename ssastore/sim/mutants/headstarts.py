"""First values of names that are sent without asking, with one of the things missing that make it right."""

from __future__ import annotations

from typing import Any

from ssastore.core import planes, proposer
from ssastore.core.headstart import HeadStart
from ssastore.core.planes import First, Outrun, Planes
from ssastore.core.register import NO_BALLOT, Ballot
from ssastore.core.votes import Votes
from ssastore.errors import SsaStoreError
from ssastore.sim.mutants import Mutant, Put


def _no_promise(put: Put) -> None:
    put(HeadStart, "over", lambda self, iid, floor: floor)


def _taken_over_a_value(put: Put) -> None:
    accept = Votes.accept

    def accept_any(self: Votes, request: Any, *rest: Any) -> Any:
        request.is_first = False
        return accept(self, request, *rest)

    put(Votes, "accept", accept_any)


def _own_plane_at_once(put: Put) -> None:
    async def first_to_all(asked: Planes, ballot: Ballot, value: bytes, reserved: Ballot) -> First:
        try:
            await planes.majority(
                asked.count, lambda plane: asked.accept_first(plane, ballot, value, reserved)
            )
        except Outrun as error:
            return First(False, True, error.seen)
        except SsaStoreError:
            return First(False, True, NO_BALLOT)
        return First(True, True, NO_BALLOT)

    put(proposer, "first_to_all", first_to_all)


MUTANTS = [
    Mutant("head-start-is-no-promise", "absent names have not promised the head start", _no_promise),
    Mutant("first-value-over-another", "a first value is taken where there is one", _taken_over_a_value),
    Mutant("own-plane-at-once", "plane 0 takes a first value before another has", _own_plane_at_once),
]
