"""The two ends of one connection of the embedded control store: ``Session`` serves, ``Link`` asks."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from ssastore.control import frames
from ssastore.control.engine import ControlEngine
from ssastore.control.frames import Request
from ssastore.env import WatchCompacted, spawn
from ssastore.errors import BadFrame, Overloaded, SsaStoreError, Unavailable
from ssastore.limits import (
    CONTROL_PAGE_BYTES,
    CONTROL_REQUESTS_MAX,
    CONTROL_WATCH_WINDOW,
    CONTROL_WATCHES_MAX,
)

_Answer = list[Any]


async def _read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame without its length; None at the end of the stream, even in the middle of a frame."""
    try:
        length = frames.frame_length(await reader.readexactly(frames.LENGTH_BYTES))
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None


class Session:
    """The server's end. A request, once read, is carried out even if its client is gone by then."""

    def __init__(
        self, engine: ControlEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._slots = asyncio.Semaphore(CONTROL_REQUESTS_MAX)
        self._calls: dict[asyncio.Task[None], None] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._windows: dict[int, asyncio.Semaphore] = {}

    async def run(self) -> None:
        """Serve until the client is gone or breaks the protocol, and what it asked for is done."""
        try:
            while (packed := await _read_frame(self._reader)) is not None:
                await self._take(frames.decode_request(packed))
        except (BadFrame, OSError):
            pass  # There is nobody to tell: a stranger, or a client that went away.
        finally:
            self.abort()
            for watch in self._watches.values():
                watch.cancel()
            await asyncio.gather(*self._calls, *self._watches.values(), return_exceptions=True)

    def abort(self) -> None:
        """End the connection; ``run`` returns soon."""
        self._writer.transport.abort()

    async def _take(self, request: Request) -> None:
        number = request.number
        if request.verb == frames.MORE:
            if window := self._windows.get(number):
                window.release()
        elif request.verb == frames.CANCEL:
            if watch := self._watches.get(number):
                watch.cancel()
        elif request.verb == frames.WATCH:
            await self._start_watch(request)
        else:
            await self._slots.acquire()
            call = spawn(f"control {request.verb}", self._answer(request))
            self._calls[call] = None
            call.add_done_callback(self._calls.pop)

    async def _start_watch(self, request: Request) -> None:
        number = request.number
        if number in self._watches:
            raise BadFrame(f"watch {number} is under way")
        if len(self._watches) >= CONTROL_WATCHES_MAX:
            refusal = Overloaded(f"a connection has at most {CONTROL_WATCHES_MAX} watches")
            await self._send(frames.encode_error(number, refusal))
            return
        self._windows[number] = asyncio.Semaphore(CONTROL_WATCH_WINDOW)
        watch = self._watches[number] = spawn("control watch", self._watch(request))

        def forget(_: object) -> None:
            del self._watches[number], self._windows[number]

        watch.add_done_callback(forget)

    async def _watch(self, request: Request) -> None:
        prefix, revision = request.arguments
        window = self._windows[request.number]
        try:
            while True:
                events, revision = await self._engine.next_events(prefix, revision)
                for page in frames.pages(events):
                    if page:
                        await window.acquire()
                        await self._send(
                            frames.encode(request.number, frames.PART, frames.pack_records(page))
                        )
        except (SsaStoreError, WatchCompacted) as error:
            await self._send(frames.encode_error(request.number, error))

    async def _answer(self, request: Request) -> None:
        try:
            await self._send(frames.encode(request.number, frames.DONE, await self._call(request)))
        except SsaStoreError as error:
            await self._send(frames.encode_error(request.number, error))
        finally:
            self._slots.release()

    async def _call(self, request: Request) -> Any:
        """The payload of the answer."""
        engine, arguments = self._engine, request.arguments
        match request.verb:
            case frames.GET:
                item = await engine.get(*arguments)
                return frames.pack_records([item] if item else [])
            case frames.LIST:
                return await self._list(request)
            case frames.TRANSACT:
                return await engine.transact(*arguments)
            case frames.GRANT:
                return await engine.grant(*arguments)
            case frames.KEEP_ALIVE:
                return await engine.keep_alive(*arguments)
            case _:
                return await engine.revoke(*arguments)

    async def _list(self, request: Request) -> Any:
        items, revision = await self._engine.list(*request.arguments)
        *early, last = frames.pages(items)
        for page in early:
            await self._send(frames.encode(request.number, frames.PART, frames.pack_records(page)))
        return frames.pack_records(last), revision

    async def _send(self, frame: bytes) -> None:
        if self._writer.is_closing():
            return
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except OSError:
            pass  # The client went away; ``run`` notices by itself.


class Link:
    """The client's end: calls by number and what was answered to them so far.

    ``call`` does all of it; a watch opens its call, takes answer after answer, and closes it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = count(1)
        self._calls: dict[int, asyncio.Queue[_Answer | None]] = {}
        self.is_lost = False
        self._reading = spawn("control link", self._read())

    @staticmethod
    async def dial(path: Path) -> Link:
        """Unavailable: nobody listens there."""
        try:
            return Link(*await asyncio.open_unix_connection(path, limit=CONTROL_PAGE_BYTES))
        except OSError as error:
            raise Unavailable(f"no control server listens at {path}: {error}") from error

    async def close(self) -> None:
        """Fail what is under way and end the connection."""
        self._writer.transport.abort()
        await self._reading

    async def call(self, verb: str, *arguments: Any) -> list[Any]:
        """Payloads of all answers to a call; raises what ``open`` and ``answer`` do."""
        number = self.open(verb, *arguments)
        payloads: list[Any] = []
        is_last = False
        try:
            await self._drain()
            while not is_last:
                is_last, payload = await self.answer(number)
                payloads.append(payload)
            return payloads
        finally:
            self.forget(number)

    def open(self, verb: str, *arguments: Any) -> int:
        """Send a call; its number is for ``answer`` and, in the end, ``forget``.

        Raises:
            Unavailable: the connection was lost before.
            RequestError: the arguments are too large or no values of the store.
        """
        if self.is_lost:
            raise Unavailable("the connection to the control server was lost")
        number = next(self._numbers)
        self._writer.write(frames.encode(number, verb, *arguments))
        self._calls[number] = asyncio.Queue()
        return number

    def tell(self, number: int, verb: str) -> None:
        """Say ``more`` or ``cancel`` about a watch, if anybody is there to hear it."""
        if not self.is_lost:
            self._writer.write(frames.encode(number, verb))

    async def answer(self, number: int) -> tuple[bool, Any]:
        """The next answer to a call: whether it is the last one, and its payload.

        Raises:
            Unavailable: the connection was lost first.
            SsaStoreError, WatchCompacted: what the server raised.
        """
        answer = await self._calls[number].get()
        if answer is None:
            raise Unavailable("the connection to the control server was lost during a call")
        match answer:
            case [frames.PART | frames.DONE as kind, payload]:
                return kind == frames.DONE, payload
            case [frames.ERROR, str(name), str(message)]:
                raise frames.decode_error(name, message)
            case _:
                raise BadFrame("the control server sent an answer of other fields")

    def forget(self, number: int) -> None:
        """Drop a call; what is still answered to it is ignored."""
        del self._calls[number]

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            pass  # Lost: the answer will say so.

    async def _read(self) -> None:
        try:
            while (packed := await _read_frame(self._reader)) is not None:
                number, *answer = frames.decode(packed)
                if number in self._calls:
                    self._calls[number].put_nowait(answer)
        except (BadFrame, OSError):
            pass  # Lost all the same, and those who wait are told so.
        finally:
            self.is_lost = True
            self._writer.transport.abort()
            for answers in self._calls.values():
                answers.put_nowait(None)
