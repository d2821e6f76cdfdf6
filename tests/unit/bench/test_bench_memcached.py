"""The client of memcached's text protocol, on a server made of a dict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.errors import BenchError
from bench.targets.memcached import MemcachedClient, open_client


@asynccontextmanager
async def client_of(
    values: dict[bytes, bytes], *, stored: bytes = b"STORED\r\n"
) -> AsyncIterator[MemcachedClient]:
    left = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            verb, key, *rest = line.split()
            if verb == b"set":
                values[key] = (await reader.readexactly(int(rest[2]) + 2))[:-2]
                writer.write(stored)
            elif key in values:
                value = values[key]
                writer.write(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value))
            else:
                writer.write(b"END\r\n")
        writer.close()
        await writer.wait_closed()
        left.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        client = await open_client({"port": server.sockets[0].getsockname()[1], "inflight": 2})
        try:
            yield client
        finally:
            await client.close()
            for _ in range(2):
                await left.acquire()


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
async def test_what_was_set_is_got(size: int) -> None:
    values: dict[bytes, bytes] = {}
    async with client_of(values) as client:
        data = b"\r\nEND"[:size].ljust(size, b"\r")
        await client.put("get/1/a", data)
        assert values == {b"get/1/a": data}
        await asyncio.gather(client.put("b", b"2"), client.put("c", b"3"))
        assert await asyncio.gather(client.get("get/1/a"), client.get("b")) == [data, b"2"]
        assert await client.get("c") == b"3"


async def test_what_is_missing_or_refused_ends_the_run() -> None:
    async with client_of({}) as client:
        with pytest.raises(BenchError, match=r"answered .*END.* to a get of x"):
            await client.get("x")
    async with client_of({}, stored=b"SERVER_ERROR out of memory\r\n") as client:
        with pytest.raises(BenchError, match="out of memory"):
            await client.put("x", b"1")
