from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ssastore.control import frames
from ssastore.control.connection import Link, Session
from ssastore.control.engine import ControlEngine
from ssastore.control.state import Change, ControlState
from ssastore.errors import BadFrame, Unavailable
from ssastore.limits import CONTROL_REQUESTS_MAX


class Served:
    """A link and the session at its other end, over a store whose disk can be held."""

    def __init__(self) -> None:
        self.disk = asyncio.Event()
        self.disk.set()
        self.engine = ControlEngine(ControlState(), persist=self._persist)
        self.sessions: list[Session] = []

    async def _persist(self, _: Change) -> None:
        await self.disk.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions.append(Session(self.engine, reader, writer))
        await self.sessions[-1].run()


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def link(served: Served, tmp_path: Path) -> AsyncIterator[Link]:
    listener = await asyncio.start_unix_server(served.serve, tmp_path / "sock")
    link = await Link.dial(tmp_path / "sock")
    yield link
    await link.close()
    listener.close()
    await listener.wait_closed()


async def settle() -> None:
    """Let everything happen that can happen without the disk."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_session_stops_reading_when_too_much_is_unanswered(served: Served, link: Link) -> None:
    """The read-only call at the end would be answered at once, were it read."""
    served.disk.clear()
    writes = [
        asyncio.create_task(link.call(frames.TRANSACT, [], [(f"{n}", b"", None)]))
        for n in range(CONTROL_REQUESTS_MAX)
    ]
    await settle()
    reading = asyncio.create_task(link.call(frames.GET, "0"))
    await settle()
    assert not reading.done()
    served.disk.set()
    assert await asyncio.gather(*writes) == [[n + 1] for n in range(CONTROL_REQUESTS_MAX)]
    assert await reading == [[["0", b"", 1]]]


async def test_reader_is_not_held_up_by_a_commit(served: Served, link: Link) -> None:
    served.disk.clear()
    writing = asyncio.create_task(link.call(frames.TRANSACT, [], [("a", b"", None)]))
    await settle()
    assert await link.call(frames.GET, "a") == [[]]
    served.disk.set()
    assert await writing == [1]


async def test_request_that_was_read_is_finished_though_its_client_left(served: Served, link: Link) -> None:
    served.disk.clear()
    writing = asyncio.create_task(link.call(frames.TRANSACT, [], [("a", b"", None)]))
    await settle()
    await link.close()
    with pytest.raises(Unavailable):
        await writing
    served.disk.set()
    await settle()
    assert (await served.engine.list(""))[1] == 1


async def test_abandoned_call_leaves_the_link_working(served: Served, link: Link) -> None:
    """Its answer comes when nobody waits for it any more."""
    served.disk.clear()
    writing = asyncio.create_task(link.call(frames.TRANSACT, [], [("a", b"", None)]))
    await settle()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    served.disk.set()
    await settle()
    assert await link.call(frames.GET, "a") == [[["a", b"", 1]]]


async def test_lost_link_takes_no_calls(served: Served, link: Link) -> None:
    await link.call(frames.GET, "a")
    served.sessions[0].abort()
    while not link.is_lost:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await link.call(frames.GET, "a")
    link.tell(1, frames.CANCEL)


@pytest.mark.parametrize(
    "answer", [(7, 1), (frames.DONE,), (frames.ERROR, "RequestError"), (frames.ERROR, 1, 2)]
)
async def test_answer_of_other_fields_is_a_bad_frame(answer: tuple[object, ...], tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(frames.LENGTH_BYTES)
        writer.write(frames.encode(1, *answer))
        await reader.read()
        writer.close()

    listener = await asyncio.start_unix_server(serve, tmp_path / "sock")
    link = await Link.dial(tmp_path / "sock")
    with pytest.raises(BadFrame):
        await link.call(frames.GET, "a")
    await link.close()
    listener.close()
    await listener.wait_closed()
