"""A Caller without a network: messages go through the codec to one acceptor on a memory store.

For tests of what conversations mean. ``hook`` sees every message before it is handled and may do
other things first, or raise: that is how races and failures are put at an exact place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ssastore.core.acceptor import WRITES, Acceptor
from ssastore.core.caller import STATUS_ERRORS
from ssastore.core.coordinator import Coordinator
from ssastore.core.objects import Objects
from ssastore.core.place import Place, expected_position
from ssastore.core.proposer import Proposer
from ssastore.core.register import Ballots
from ssastore.core.replies import Refusal
from ssastore.core.settle import Settler
from ssastore.core.shards import position_of_part
from ssastore.core.tools import Tools, UpkeepRules
from ssastore.keyspace import iid_of
from ssastore.messages import Message, Status, decode_request
from ssastore.store.memory import MemoryStore
from ssastore.wire import Body, FrameDecoder, Header, encode

Hook = Callable[[Any], Awaitable[None]]


def iid_of_record(place: Place, key: bytes, plane: int = 0) -> int:
    """The IID of a record in one plane."""
    return iid_of(expected_position(place.bucket, place.shards, key), plane)


def iid_of_part(place: Place, part: int, plane: int = 0) -> int:
    """An IID for requests that are for a whole shard, or for a group of a hashed bucket."""
    return iid_of(position_of_part(place, part), plane)


class StillClock:
    """A clock that stands until the test moves it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


class SeededRandomness:
    """The same identifiers in every run."""

    def __init__(self, seed: int = 1) -> None:
        self._random = Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)


class DirectCaller:
    """Implements ``core.caller.Caller`` on an acceptor that owns all of plane 0."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.acceptor = Acceptor(replicas=1, worker=0, workers=1, ballots=Ballots(1, 1))
        self.acceptor.activate(set(range(4096)))
        self.clock = StillClock()
        self.hook: Hook | None = None
        self.calls: list[str] = []
        "Names of the messages that were handled, in order."

    deadline_ms = 1000
    replicas = 1

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return False

    def begin(self, message: Message, iid: int, body: Body = b"") -> None:
        """Nothing is connected: every call takes the long way."""

    async def call(
        self, message: Message, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> tuple[Header, Body]:
        if self.hook is not None:
            await self.hook(message)
        self.calls.append(type(message).__name__)
        header, sent = through_wire(message.header(7), body)
        request = decode_request(header)
        assert request.iid == iid
        try:
            fields, data = await self._handle(request, sent)
        except Refusal as refusal:
            raise STATUS_ERRORS[refusal.status](refusal.text) from None
        return through_wire([int(Status.OK), 7, *fields], data)

    async def _handle(self, request: Any, body: Body) -> tuple[list[Any], Body]:
        if request.TYPE in WRITES:
            now_ms = self.clock.now_ms()
            return await self.store.submit(lambda txn: self.acceptor.write(request, txn, body, now_ms))
        with self.store.read() as txn:
            return self.acceptor.read(request, txn)


def through_wire(header: Header, body: Body) -> tuple[Header, Body]:
    """A frame as the other side gets it."""
    (frame,) = FrameDecoder().feed(b"".join(encode(header, body)))
    return frame


def tools_of(caller: DirectCaller, objects: Objects, rules: UpkeepRules) -> Tools:
    """What background work of the caller's one node goes with."""
    ballots = Ballots(1, 2)
    proposer = Proposer(ballots, caller.clock, SeededRandomness(2))
    return Tools(
        store=caller.store,
        acceptor=caller.acceptor,
        clock=caller.clock,
        caller=caller,
        registers=objects.registers,
        coordinator=Coordinator(caller.acceptor, proposer, caller.store, caller, caller.clock),
        settler=Settler(proposer, ballots, caller.clock),
        rules=rules,
        buckets=objects.buckets,
    )
