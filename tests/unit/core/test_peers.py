"""Which workers remember marks, and what silence means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssastore.core.marks import Watermark
from ssastore.core.peers import Peers, peer_iids
from ssastore.errors import BadFrame, Unavailable
from ssastore.keyspace import group_of, plane_of
from ssastore.messages import Mark

SLICES = frozenset([0x0A31, 0x0A32, 0x1B05])


def test_peers_are_mates_of_the_workers_first_slice() -> None:
    iids = peer_iids(SLICES, 3, 1, 2)
    assert [(plane_of(iid), group_of(iid)) for iid in iids] == [(1, 0xA31), (2, 0xA31)]
    assert [plane_of(iid) for iid in peer_iids(frozenset([0x1B05]), 5, 1, 2)] == [0, 2]
    assert peer_iids(SLICES, 1, 1, 2) == peer_iids(frozenset(), 3, 0, 1) == ()


class Told:
    """Implements ``core.caller.Caller`` as far as peers need it."""

    deadline_ms, replicas = 1000, 3

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.marks: list[Mark] = []

    def begin(self, message: Any, iid: int, body: Any = b"") -> None:
        """No connection is open."""

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return False

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def call(self, message: Any, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        await asyncio.sleep(0)
        self.marks.append(message)
        answer = self.answers[len(self.marks) - 1]
        if isinstance(answer, Exception):
            raise answer
        return [0, 1, *answer], b""


async def test_the_highest_of_what_they_say_counts() -> None:
    told = Told((3, 10), (2, 40))
    assert await Peers(told, [1, 2]).tell(7, Watermark(1, 5)) == Watermark(3, 40)
    assert told.marks == [Mark(1, 7, 1, 5), Mark(2, 7, 1, 5)]


async def test_who_does_not_answer_knows_nothing() -> None:
    assert await Peers(Told(Unavailable("gone"), OSError("gone")), [1, 2]).ask(7) == Watermark()
    assert await Peers(Told(), []).ask(7) == Watermark()


async def test_another_answer_is_an_error() -> None:
    with pytest.raises(BadFrame):
        await Peers(Told(("3", 10)), [1]).ask(7)
