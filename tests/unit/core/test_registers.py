"""A replicated read by its short way, on planes that answer at once, late, or otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from ssastore.core.listing import Page
from ssastore.core.metadata import Metadata, Version, listed
from ssastore.core.place import Place, expected_position
from ssastore.core.quorum import HEDGE_S
from ssastore.core.register import LIVE
from ssastore.core.registers import Once, Registers
from ssastore.core.suspects import FAILURES_MIN
from ssastore.errors import BucketNotFound, CorruptObject, OutcomeUnknown, PeerError, StoreFull, Unavailable
from ssastore.keyspace import iid_of, plane_of
from ssastore.messages import Get, Kind, Message, Scan, Status
from tests.registermodel import Seeded, run_virtually

PLACE = Place(7, 0)


class Planes:
    """Implements ``core.caller.Caller`` on three planes with one object; ``late`` ones never answer."""

    deadline_ms = 30_000
    replicas = 3

    def __init__(
        self, late: set[int], ballots: tuple[bytes, ...] = (b"1" * 16,) * 3, status: int = Status.OK
    ):
        self.late, self.ballots, self.status = late, ballots, status
        self.begun: list[tuple[int, bool]] = []
        self.called: list[int] = []
        self.broken: set[int] = set()
        "Their connections end before the answer."

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return False

    def _reply(self, plane: int) -> tuple[list[Any], bytes]:
        if self.status != Status.OK:
            return [int(self.status), 1, "refused"], b""
        return [0, 1, 1, self.ballots[plane], LIVE, 5, Metadata("e", 1).encode()], b"x"

    def begin(self, message: Message, iid: int, body: Any = b"") -> asyncio.Future[Any]:
        assert isinstance(message, Get)
        plane, future = plane_of(iid), asyncio.get_running_loop().create_future()
        self.begun.append((plane, message.head_only))
        if plane in self.broken:
            future.set_exception(OSError("connection lost"))
        elif plane not in self.late:
            future.set_result(self._reply(plane))
        return future

    async def call(self, message: Message, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        self.called.append(plane_of(iid))
        if plane_of(iid) in self.late:
            await asyncio.sleep(1000)
        return [0, 1, 1, self.ballots[0], LIVE, 5, Metadata("e", 1).encode()], b"x"


async def timed(registers: Registers) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    found = await registers.get(PLACE, Kind.OBJECT, b"k")
    assert found.data == b"x"
    return loop.time() - started


def test_planes_that_agree_are_asked_once_and_one_of_them_for_the_data() -> None:
    async def scenario() -> None:
        planes = Planes(set())
        assert await timed(Registers(planes, Seeded(1))) == 0
        assert planes.begun == [(0, False), (1, True)] and planes.called == []

    run_virtually(scenario)


@pytest.mark.parametrize("late", [0, 1])
def test_plane_that_is_late_costs_one_wait_and_comes_last(late: int) -> None:
    async def scenario() -> None:
        planes = Planes({late})
        registers = Registers(planes, Seeded(1))
        assert await timed(registers) == pytest.approx(HEDGE_S)
        assert planes.called == [1 - late, 2]
        await timed(registers)
        await timed(registers)
        planes.begun.clear()
        assert await timed(registers) == 0 and [plane for plane, _ in planes.begun] == [1 - late, 2]

    run_virtually(scenario)


def test_plane_that_was_not_waited_for_has_not_answered() -> None:
    """The other's connection breaks, which says nothing of it."""

    async def scenario() -> None:
        planes = Planes({1})
        planes.broken = {0}
        registers = Registers(planes, Seeded(1))
        position = expected_position(PLACE.bucket, PLACE.shards, b"k")
        for _ in range(FAILURES_MIN):
            registers._approach.failed(iid_of(position, 1))
        order = [0, 1, 2]
        assert (
            await registers._get_at_once(PLACE, Kind.OBJECT, b"k", position, order, head_only=False) is None
        )
        assert planes.begun == [(0, False), (1, True)]
        assert registers._approach.in_order(position, 3) == [0, 2, 1]

    run_virtually(scenario)


@pytest.mark.parametrize(
    "planes", [Planes(set(), (b"1" * 16, b"2" * 16, b"2" * 16)), Planes(set(), status=Status.SILENT)]
)
def test_planes_that_differ_or_refuse_take_the_long_way(planes: Planes) -> None:
    async def scenario() -> None:
        await timed(Registers(planes, Seeded(1)))
        assert planes.called

    run_virtually(scenario)


class Refusing(Planes):
    """One plane, which says nothing of earlier attempts."""

    replicas = 1

    def __init__(self, error: Exception) -> None:
        super().__init__(set())
        self._error = error

    async def call(self, message: Message, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        raise self._error


class Doubtful(Refusing):
    """Three planes. The first that is asked takes the call and does not answer."""

    replicas = 3
    is_first = True

    async def call(self, message: Message, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        if self.is_first:
            self.is_first = False
            raise OutcomeUnknown("sent")
        return await super().call(message, iid, body, within_ms=within_ms)


SAID_OF_ONE_ATTEMPT = [Unavailable, StoreFull, CorruptObject, PeerError, BucketNotFound]


@pytest.mark.parametrize("kind", SAID_OF_ONE_ATTEMPT)
def test_what_is_said_of_the_next_plane_says_nothing_of_the_first(kind: type[Exception]) -> None:
    async def scenario() -> None:
        with pytest.raises(OutcomeUnknown):
            await Registers(Doubtful(kind("refused")), Seeded(1)).delete(PLACE, Kind.OBJECT, b"k")

    run_virtually(scenario)


@pytest.mark.parametrize("kind", SAID_OF_ONE_ATTEMPT)
def test_what_is_said_of_a_repetition_says_nothing_of_the_first_attempt(kind: type[Exception]) -> None:
    """It may have been taken, and its answer lost on the way to an SDK."""

    async def scenario() -> None:
        registers = Registers(Refusing(kind("refused")), Seeded(1))
        for attempt, expected in ((1, kind), (2, OutcomeUnknown)):
            once = Once(bytes(16), attempt, 5)
            for work in (
                registers.put(PLACE, Kind.OBJECT, b"k", Metadata("e", 1), b"x", once=once),
                registers.delete(PLACE, Kind.OBJECT, b"k", once=once),
            ):
                with pytest.raises(expected) as caught:
                    await work
                assert type(caught.value) is expected

    run_virtually(scenario)


class Differing(Planes):
    """Planes of one indexed bucket whose pages differ in what they have accepted; a read settles it."""

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(set())
        self._metadata = metadata.encode()

    def begin(self, message: Message, iid: int, body: Any = b"") -> Any:
        return None  # Nothing is connected.

    async def call(self, message: Message, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        if isinstance(message, Scan):
            witness = b"%d" % plane_of(iid) * 16
            return [0, 1, False, b"k", 1], msgpack.packb([[b"k", 5, "another", 0, witness]])
        return [0, 1, 1, self.ballots[0], LIVE, 5, self._metadata], b"x"


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata("e", 3),
        Metadata("e", 3, version=Version("v")),
        Metadata("e", 3, extra={"acl": {"owner": "bob", "grants": []}}),
        Metadata("e", 3, extra={"acl": {"owner": "bob", "grants": []}}, version=Version("v")),
    ],
)
def test_a_row_on_which_planes_differ_is_that_of_the_record(metadata: Metadata) -> None:
    async def page() -> Page:
        registers = Registers(Differing(metadata), Seeded(1))
        return await registers.shards.page(Place(7, 1), Kind.OBJECT, 0, limit=10)

    assert run_virtually(page).rows == [[b"k", 5, *listed(metadata)]]
