"""What only the embedded store can do wrong: its socket, its file, strangers, and being killed."""

from __future__ import annotations

import asyncio
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from ssastore.control import frames
from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.env import Event, Item, Write
from ssastore.errors import DataDirError, Unavailable
from ssastore.limits import CONTROL_FRAME_BYTES_MAX, CONTROL_REQUESTS_MAX, CONTROL_WATCHES_MAX


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "control.mdb"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def server(file: Path, path: Path) -> AsyncIterator[EmbeddedControlServer]:
    server = await EmbeddedControlServer.start(file, path)
    yield server
    await server.close()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[EmbeddedControlStore]:
    store = EmbeddedControlStore(path)
    yield store
    await store.close()


@pytest.mark.usefixtures("server")
def test_socket_and_file_are_for_their_owner_only(file: Path, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_close_removes_the_socket(file: Path, path: Path) -> None:
    server = await EmbeddedControlServer.start(file, path)
    await server.close()
    assert not path.exists()
    assert file.exists()


@pytest.mark.usefixtures("server")
async def test_second_server_of_the_file_is_refused(
    file: Path, tmp_path: Path, store: EmbeddedControlStore
) -> None:
    with pytest.raises(DataDirError):
        await EmbeddedControlServer.start(file, tmp_path / "other.sock")
    assert not (tmp_path / "other.sock").exists()
    assert await store.get("a") is None


@pytest.mark.usefixtures("server")
async def test_second_server_of_the_socket_is_refused(
    tmp_path: Path, path: Path, store: EmbeddedControlStore
) -> None:
    with pytest.raises(DataDirError, match="listens"):
        await EmbeddedControlServer.start(tmp_path / "other.mdb", path)
    assert await store.get("a") is None
    server = await EmbeddedControlServer.start(tmp_path / "other.mdb", tmp_path / "other.sock")
    await server.close()


async def test_stale_socket_is_replaced(file: Path, path: Path, store: EmbeddedControlStore) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await EmbeddedControlServer.start(file, path)
    assert await store.get("a") is None
    await server.close()


async def test_file_in_the_sockets_place_is_left_alone(file: Path, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(DataDirError):
        await EmbeddedControlServer.start(file, path)
    assert path.read_text() == "precious"


async def test_socket_path_that_is_too_long_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataDirError):
        await EmbeddedControlServer.start(file, tmp_path / ("long" * 40))


async def test_nobody_listens(path: Path, store: EmbeddedControlStore) -> None:
    with pytest.raises(Unavailable, match=str(path)):
        await store.get("a")
    with pytest.raises(Unavailable):
        await anext(aiter(store.watch("", 0)))


async def test_server_that_does_not_answer_is_unavailable(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        store = EmbeddedControlStore(path, timeout_ms=20)
        with pytest.raises(Unavailable, match="in time"):
            await store.transact([], [Write("a", b"1")])
        await store.close()


async def test_client_reconnects_with_the_next_call(
    file: Path, path: Path, store: EmbeddedControlStore
) -> None:
    for number in range(3):
        server = await EmbeddedControlServer.start(file, path)
        assert await store.transact([], [Write("a", b"%d" % number)]) == number + 1
        await server.close()
        with pytest.raises(Unavailable):
            await store.get("a")


async def test_call_under_way_when_the_server_goes_is_unavailable(path: Path) -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put(writer)

    listener = await asyncio.start_unix_server(accept, path)
    store = EmbeddedControlStore(path)
    calls = [asyncio.create_task(store.get("a")), asyncio.create_task(store.list(""))]
    (await accepted.get()).close()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, Unavailable)
    await store.close()
    listener.close()
    await listener.wait_closed()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (CONTROL_FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        bytes(4),
        frames.encode(1, "steal", "a"),
        frames.encode(1, "watch", "", 0) + frames.encode(1, "watch", "", 0),
    ],
)
async def test_stranger_is_disconnected_and_nobody_else_notices(
    sent: bytes, path: Path, store: EmbeddedControlStore
) -> None:
    assert await store.get("a") is None
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()
    assert await store.get("a") is None


@pytest.mark.usefixtures("server")
async def test_more_and_cancel_of_no_watch_are_ignored(path: Path) -> None:
    """They may cross the end of the watch on the way."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(frames.encode(1, "more") + frames.encode(2, "cancel") + frames.encode(3, "get", "a"))
    assert await reader.readexactly(8) == frames.encode(3, frames.DONE, [])
    writer.close()
    await writer.wait_closed()


@pytest.mark.usefixtures("server")
async def test_more_calls_than_the_server_takes_at_once_are_all_answered(store: EmbeddedControlStore) -> None:
    count = CONTROL_REQUESTS_MAX + 50
    revisions = await asyncio.gather(
        *(store.transact([], [Write(f"{n:04}", b"")]) for n in range(count)),
        *(store.get("none") for _ in range(count)),
    )
    assert sorted(r for r in revisions if isinstance(r, int)) == list(range(1, count + 1))
    assert len((await store.list(""))[0]) == count


@pytest.mark.usefixtures("server")
async def test_events_are_sent_ahead_only_as_far_as_the_window(path: Path) -> None:
    """A watch that never asks for more gets four frames and then nothing, whatever else is answered."""
    store = EmbeddedControlStore(path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(frames.encode(1, "watch", "", 0))
    kinds: list[int] = []

    async def read_kind() -> None:
        length = frames.frame_length(await reader.readexactly(frames.LENGTH_BYTES))
        kinds.append(frames.decode(await reader.readexactly(length))[0])

    for number in range(4):
        await store.transact([], [Write("a", b"%d" % number)])
        await read_kind()
    for number in range(3):
        await store.transact([], [Write("a", b"%d" % number)])
    for _ in range(3):
        writer.write(frames.encode(2, "get", "a"))
        await read_kind()
    writer.write(frames.encode(1, "more"))
    await read_kind()
    assert kinds == [1, 1, 1, 1, 2, 2, 2, 1]
    writer.close()
    await writer.wait_closed()
    await store.close()


@pytest.mark.usefixtures("server")
async def test_watches_of_one_connection_are_bounded(path: Path, store: EmbeddedControlStore) -> None:
    """The one too many is refused; those before it go on."""
    reader, writer = await asyncio.open_unix_connection(path)
    for number in range(CONTROL_WATCHES_MAX + 1):
        writer.write(frames.encode(number, "watch", "", 0))

    async def read() -> list[object]:
        length = frames.frame_length(await reader.readexactly(frames.LENGTH_BYTES))
        return frames.decode(await reader.readexactly(length))

    assert (await read())[:3] == [CONTROL_WATCHES_MAX, frames.ERROR, "Overloaded"]
    await store.transact([], [Write("a", b"1")])
    answers = [await read() for _ in range(CONTROL_WATCHES_MAX)]
    assert sorted(str(number) for number, *_ in answers) == sorted(map(str, range(CONTROL_WATCHES_MAX)))
    assert all(rest == [frames.PART, [["a", b"1", 1]]] for _, *rest in answers)
    writer.close()
    await writer.wait_closed()


@pytest.mark.usefixtures("server")
async def test_ended_watches_do_not_count(store: EmbeddedControlStore) -> None:
    """A client that watches, stops and watches again never meets the bound."""
    await store.transact([], [Write("a", b"1")])
    for _ in range(CONTROL_WATCHES_MAX + 1):
        async with aclosing(store.watch("", 0)) as watch:
            assert await anext(watch) == Event("a", b"1", 1)


async def test_closed_server_answers_nobody(file: Path, path: Path) -> None:
    """Not even its own lease timer, which would write to a closed file."""
    server = await EmbeddedControlServer.start(file, path)
    await server.close()
    with pytest.raises(Unavailable):
        await server._engine.get("a")


async def test_change_is_carried_out_though_its_client_left(
    server: EmbeddedControlServer, path: Path, file: Path
) -> None:
    """What the server had read when the client went away is either done before it closes or never."""
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(frames.encode(1, "transact", [], [("a", b"1", None)]))
    writer.close()
    await writer.wait_closed()
    store = EmbeddedControlStore(path)
    async for event in store.watch("", 0):
        assert event == Event("a", b"1", 1)
        break
    await store.close()


SERVE_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.env import Write

async def main():
    file, path = map(Path, sys.argv[1:])
    await EmbeddedControlServer.start(file, path)
    store = EmbeddedControlStore(path)
    lease = await store.grant(60_000)
    number = 0
    while True:
        number = await store.transact([], [Write("count", b"%d" % number, lease)])
        print(number, flush=True)

asyncio.run(main())
"""


async def test_killed_server_has_kept_what_it_acknowledged(
    file: Path, path: Path, store: EmbeddedControlStore
) -> None:
    """SIGKILL in the middle of writing; the next server takes over file and socket."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_UNTIL_KILLED, str(file), str(path)], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout
        acknowledged = 0
        while acknowledged < 20:
            acknowledged = int(killed.stdout.readline())
        killed.kill()
        for line in killed.stdout:
            acknowledged = int(line)
    assert path.is_socket()
    server = await EmbeddedControlServer.start(file, path)
    item = await store.get("count")
    assert item
    assert item.revision in (acknowledged, acknowledged + 1)
    assert item == Item("count", b"%d" % (item.revision - 1), item.revision)
    assert await store.keep_alive(1) is True
    await server.close()
