"""Ends of connections that tests hold in their hands: a transport without a kernel, a raw client that
may send anything, and a proxy that loses answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ssastore.keyspace import HASH_NAME
from ssastore.messages import PROTOCOL_VERSION, Hello, Proof, Status, Welcome
from ssastore.sim.transport import deliver
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, is_proof, proof
from ssastore.transport.pool import Pool
from ssastore.wire import Body, Frame, FrameDecoder, Header, encode
from tests.cluster import KEY, SECRET

NONCE = bytes(16)


def packed(header: Header, body: Body = b"") -> bytes:
    """One frame."""
    return b"".join(encode(header, body))


def hello(**changes: Any) -> Hello:
    """What a good client says first, but for ``changes``."""
    fields: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "hash_name": HASH_NAME,
        "rule_version": 1,
        "replicas": 1,
        "role": "client",
        "key_id": KEY,
        "nonce": NONCE,
        "cluster_id": "ab" * 16,
    }
    return Hello(**(fields | changes))


class HeldTransport(asyncio.Transport):
    """Keeps what is written until the test reads it, and says "full" as a kernel would.

    Like asyncio's: ``close`` waits for the buffer, ``connection_lost`` comes in a later turn.
    """

    def __init__(self, protocol: Any, peer: str = "::1") -> None:
        super().__init__({"sockname": ("fd5a:1:2:3::1", 7480, 0, 0), "peername": (peer, 9, 0, 0)})
        self._protocol = protocol
        self._high = 64 * 1024
        self._decoder = FrameDecoder()
        self.buffer = bytearray()
        self.takes_data = True
        self.is_aborted = False
        self._closing = False
        self._paused = False
        self._is_lost = False
        self.most_buffered = 0
        protocol.connection_made(self)

    # -- what a protocol may do ---------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or self._high

    def write(self, data: Any) -> None:
        assert not self._closing, "written to a closing transport"
        self.buffer += data
        self.most_buffered = max(self.most_buffered, len(self.buffer))
        if len(self.buffer) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.buffer:
                self._lose()

    def abort(self) -> None:
        self._closing = self.is_aborted = True
        self.buffer.clear()
        self._lose()

    def pause_reading(self) -> None:
        self.takes_data = False

    def resume_reading(self) -> None:
        assert not self._closing
        self.takes_data = True

    def _lose(self, error: Exception | None = None) -> None:
        if not self._is_lost:
            self._is_lost = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)

    # -- what the other side may do -----------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """``connection_lost`` was called, or will be in the next turn."""
        return self._is_lost

    def take(self, count: int | None = None) -> list[tuple[Header, bytes]]:
        """Read ``count`` bytes, or all; the frames that are complete with them."""
        data = bytes(self.buffer[:count])
        del self.buffer[: len(data)]
        if self._paused and len(self.buffer) <= self._high // 4:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self.buffer:
            self._lose()
        return [(header, bytes(body)) for header, body in self._decoder.feed(data)]

    def deliver(self, *pieces: bytes) -> None:
        """The other side's bytes arrive."""
        for piece in pieces:
            if not self._closing:
                deliver(piece, self._protocol)

    def lose(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        self._closing = True
        self._lose(error)


async def turns(count: int = 5) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; TimeoutError when it does not in 5 s."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


class RawClient:
    """A client that knows the protocol and need not keep to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = FrameDecoder()
        self._frames: deque[Frame] = deque()
        self.last: Frame | None = None
        "The frame that came last."

    @classmethod
    async def dial(cls, port: int) -> RawClient:
        return cls(*await asyncio.open_connection("::1", port))

    @classmethod
    async def greeted(cls, port: int, **changes: Any) -> RawClient:
        """A client whose greeting is over."""
        client = await cls.dial(port)
        await client.greet(**changes)
        assert (await client.frame())[0][:2] == [Status.COVERAGE, 0]
        return client

    async def greet(self, secret: bytes = SECRET.encode(), **changes: Any) -> None:
        """Hello, Welcome, Proof, Proof. AssertionError when the node does not prove itself."""
        first = hello(**changes)
        self.send(first.header(0))
        welcome = Welcome.decode((await self.frame())[0])
        self.send(Proof(proof(secret, CLIENT_SIDE, first, welcome)).header(0))
        mac = Proof.decode((await self.frame())[0]).mac
        assert is_proof(mac, secret, NODE_SIDE, first, welcome)

    def send(self, header: Header, body: Body = b"") -> None:
        self.writer.write(packed(header, body))

    async def frame(self) -> Frame:
        """The next frame. ConnectionError when the node closes instead."""
        while not self._frames:
            data = await self.reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("the node closed the connection")
            self._frames.extend(self._decoder.feed(data))
        self.last = self._frames.popleft()
        return self.last

    async def is_closed(self) -> bool:
        """Wait for the end; whether the node ended the connection within 5 s without another frame."""
        try:
            async with asyncio.timeout(5):
                return not await self.reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self.writer.transport.abort()


class Proxy:
    """Between a client and one node; loses answers or everything when told to."""

    def __init__(self, port: int) -> None:
        self._node_port = port
        self.port = 0
        self.is_mute = False
        "Answers are read from the node and go nowhere."
        self.hears = asyncio.Event()
        "Cleared: nothing more is read from the client."
        self.hears.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_answer: Callable[[], None] | None = None
        "Called when the node answers while mute."

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "::1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            node_reader, node_writer = await asyncio.open_connection("::1", self._node_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(node_writer)
        await asyncio.gather(self._pump(reader, node_writer, False), self._pump(node_reader, writer, True))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self.is_mute and is_answer:
                    if self.on_answer is not None:
                        self.on_answer()
                    continue
                writer.write(data)
                await writer.drain()
                if not is_answer:
                    await self.hears.wait()
        except OSError:
            pass
        writer.transport.abort()

    def cut(self) -> None:
        """Break every connection that is open."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()

    def lose_next_answer(self) -> None:
        """The next answer is lost together with its connection; later ones pass."""

        def lose() -> None:
            self.is_mute = False
            self.on_answer = None
            self.cut()

        self.is_mute, self.on_answer = True, lose

    async def stop(self) -> None:
        self._server.close()
        self.hears.set()
        self.cut()
        await turns()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy before the node on ``port``."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def connections_of(pool: Pool) -> int:
    """Connections that are open and known."""
    return sum(connection.is_open for connection in pool._connections)
