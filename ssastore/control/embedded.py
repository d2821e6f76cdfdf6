"""``env.ControlStore`` for one machine: one process has the file, the others ask it over a Unix socket.

Who may open the socket (mode 0600) may do everything; it is no way in for strangers,
but every frame is checked all the same.

A client keeps one connection with many calls under way and makes a new one with the
first call after it was lost.  Nothing is sent twice: a ``transact`` that raises
Unavailable may or may not have been applied, as with every store behind a socket;
read what it compared and try again.  A watch whose connection is lost raises
Unavailable; watch again from the last revision seen.

Restart of the server: keys, revisions and lease numbers are kept, every lease gets a
fresh period, and the history begins anew, so a watch goes on only from the very last
revision; every other one raises WatchCompacted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ssastore.control import frames
from ssastore.control.connection import Link, Session
from ssastore.control.engine import ControlEngine, loop_now_ms
from ssastore.control.file import ControlFile
from ssastore.control.state import Change, ControlState
from ssastore.env import Compare, Event, Item, Write
from ssastore.errors import DataDirError, Unavailable
from ssastore.limits import CONTROL_CONNECTIONS_MAX, CONTROL_PAGE_BYTES, CONTROL_TIMEOUT_MS

T = TypeVar("T")


class EmbeddedControlServer:
    """The process that has the file. Made by ``start``, ended by ``close`` in the same event loop."""

    def __init__(
        self, file: ControlFile, state: ControlState, socket_path: Path, now_ms: Callable[[], int]
    ) -> None:
        self._file = file
        # A commit waits for the disk; on a thread of its own it does not hold up readers.
        self._writer = ThreadPoolExecutor(1, "control-file")
        self._engine = ControlEngine(state, now_ms=now_ms, persist=self._persist)
        self._socket_path = socket_path
        self._sessions: dict[Session, asyncio.Future[None]] = {}
        self._listener: asyncio.Server | None = None
        self._is_closed = False

    @classmethod
    async def start(
        cls, file: Path, socket_path: Path, *, now_ms: Callable[[], int] = loop_now_ms
    ) -> EmbeddedControlServer:
        """Open or create ``file`` and listen. A socket file that nobody listens on is replaced.

        Raises:
            DataDirError: another server has the file or the socket, or one of them cannot be used.
        """
        opened = ControlFile(file)
        try:
            state = opened.load(now_ms())
            listening = _bind(socket_path)
        except BaseException:
            opened.close()
            raise
        server = cls(opened, state, socket_path, now_ms)
        server._listener = await asyncio.start_unix_server(
            server._serve, sock=listening, limit=CONTROL_PAGE_BYTES
        )
        return server

    async def close(self) -> None:
        """Finish what is under way, disconnect everybody, close the file, remove the socket."""
        assert self._listener, "made by start"
        self._is_closed = True
        self._listener.close()
        self._engine.stop()
        for session in self._sessions:
            session.abort()
        await asyncio.gather(*self._sessions.values())
        await self._listener.wait_closed()
        self._writer.shutdown()
        self._file.close()
        self._socket_path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self._engine, reader, writer)
        if self._is_closed or len(self._sessions) >= CONTROL_CONNECTIONS_MAX:
            session.abort()
            return
        ended = self._sessions[session] = asyncio.get_running_loop().create_future()
        try:
            await session.run()
        finally:
            del self._sessions[session]
            ended.set_result(None)

    async def _persist(self, change: Change) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._file.write, change)


class EmbeddedControlStore:
    """A client of the server that listens at ``socket_path``. Used from one event loop."""

    def __init__(self, socket_path: Path, *, timeout_ms: int = CONTROL_TIMEOUT_MS) -> None:
        self._path = socket_path
        self._timeout_s = timeout_ms / 1000
        self._link: Link | None = None
        self._dialling = asyncio.Lock()
        self._is_closed = False

    async def get(self, key: str) -> Item | None:
        for row in await self._call(frames.GET, key):
            return Item(*row)
        return None

    async def list(self, prefix: str) -> tuple[list[Item], int]:
        rows: list[Any] = []
        *early, (last, revision) = await self._answers(frames.LIST, prefix)
        for page in (*early, last):
            rows.extend(page)
        return [Item(*row) for row in rows], revision

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        revision: int | None = await self._call(
            frames.TRANSACT,
            [(compare.key, compare.revision) for compare in compares],
            [(write.key, write.value, write.lease) for write in writes],
        )
        return revision

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Event, None]:
        link = await self._in_time(self._connected())
        number = link.open(frames.WATCH, prefix, after_revision)
        try:
            while True:
                _, rows = await link.answer(number)
                for row in rows:
                    yield Event(*row)
                link.tell(number, frames.MORE)
        finally:
            link.tell(number, frames.CANCEL)
            link.forget(number)

    async def grant(self, ttl_ms: int) -> int:
        lease: int = await self._call(frames.GRANT, ttl_ms)
        return lease

    async def keep_alive(self, lease: int) -> bool:
        is_alive: bool = await self._call(frames.KEEP_ALIVE, lease)
        return is_alive

    async def revoke(self, lease: int) -> None:
        await self._call(frames.REVOKE, lease)

    async def close(self) -> None:
        self._is_closed = True
        if self._link:
            await self._link.close()

    async def _call(self, verb: str, *arguments: Any) -> Any:
        """Payload of a call's only answer."""
        (payload,) = await self._answers(verb, *arguments)
        return payload

    async def _answers(self, verb: str, *arguments: Any) -> Sequence[Any]:
        """Payloads of all answers to a call."""
        return await self._in_time(self._ask(verb, *arguments))

    async def _ask(self, verb: str, *arguments: Any) -> Sequence[Any]:
        link = await self._connected()
        return await link.call(verb, *arguments)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work
        except TimeoutError as error:
            raise Unavailable(f"the control server at {self._path} did not answer in time") from error

    async def _connected(self) -> Link:
        """The connection, a new one if there is none or it was lost."""
        async with self._dialling:
            if self._is_closed:
                raise Unavailable("this client of the control store is closed")
            if self._link is None or self._link.is_lost:
                self._link = await Link.dial(self._path)
            return self._link


def _bind(path: Path) -> socket.socket:
    """A socket bound to ``path`` that only this user may open."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        listening.bind(str(path))
        # Nobody can connect before the server listens, so there is no moment of a wider mode.
        os.chmod(path, 0o600)
    except OSError as error:
        listening.close()
        raise DataDirError(f"cannot listen at {path}: {error}") from error
    return listening


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed server left; OSError when somebody listens there."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # So many are waiting to be accepted: somebody listens.
    raise OSError(errno.EADDRINUSE, "another server listens there")
