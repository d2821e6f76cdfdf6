"""Data directories that are not this node's to use: exit code 3, each with its own reason."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from ssastore.control.embedded import EmbeddedControlServer, EmbeddedControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.env import WriteTxn
from ssastore.rebalance import form_cluster
from ssastore.store.datadir import DataDir
from ssastore.store.lmdb import LmdbStore
from tests.cli.conftest import Done
from tests.labs import free_port

SERVICE = IPv6Network("fd00:1:2:1::/64")
CLUSTER_ID = "ab" * 16
PORT = free_port()


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a control store that knows a node n1; served on a thread of its own."""
    directory = tmp_path_factory.mktemp("control")
    path = directory / "sock"
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        server = await EmbeddedControlServer.start(directory / "file", path)
        store = EmbeddedControlStore(path)
        node = NodeRecord(name="n1", address="fd00:1:2:2::11", port=PORT, zone="", weight=1, workers=1)
        cluster_id = bytes.fromhex(CLUSTER_ID)
        await form_cluster(store, SERVICE, 1, [node], now_ms=1, random_bytes=lambda count: cluster_id[:count])
        await store.close()
        ready.set()
        await asyncio.to_thread(stop.wait)
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    yield path
    stop.set()
    thread.join(20)


@pytest.fixture
def node(
    ssastore: Callable[..., Done], control: Path, secrets_file: Path, tmp_path: Path
) -> Callable[..., Done]:
    """Run a node that must not come up; its settings are the arguments."""

    def run(**settings: object) -> Done:
        values = {
            "name": "n1",
            "control": str(control),
            "data_dir": str(tmp_path / "data"),
            "secrets_file": str(secrets_file),
            "port": PORT,
            "manage_routes": False,
            **settings,
        }
        path = tmp_path / "node.toml"
        path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
        return ssastore("node", "--config", str(path))

    return run


def claim(directory: Path, **changed: object) -> None:
    """Make it a data directory, of another node by ``changed``."""
    directory.mkdir()
    identity = {"cluster_id": CLUSTER_ID, "node": "n1", "workers": 1} | changed
    (directory / "node.json").write_text(json.dumps(identity))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"cluster_id": "cd" * 16}, f"belongs to another cluster_id: {'cd' * 16}, not {CLUSTER_ID}"),
        ({"node": "n2"}, "belongs to another node: n2, not n1"),
        ({"workers": 2}, "belongs to another workers: 2, not 1"),
    ],
)
def test_directory_of_another_node_is_refused(
    node: Callable[..., Done], tmp_path: Path, changed: dict[str, object], text: str
) -> None:
    claim(tmp_path / "data", **changed)
    done = node()
    assert (done.code, done.out) == (3, "")
    assert text in done.err
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["node.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '"n1"', "\udcff"])
def test_damaged_identity_is_refused(node: Callable[..., Done], tmp_path: Path, text: str) -> None:
    claim(tmp_path / "data")
    (tmp_path / "data" / "node.json").write_bytes(text.encode(errors="surrogateescape"))
    done = node()
    assert (done.code, done.out) == (3, "")
    assert str(tmp_path / "data") in done.err


def test_path_that_cannot_be_a_directory_is_refused(node: Callable[..., Done], tmp_path: Path) -> None:
    """A file, a path below a file, and a file system on which nobody can write."""
    (tmp_path / "file").write_text("")
    for path, text in (
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "data", "Not a directory"),
        (Path("/proc/ssastore-data"), "No such file or directory"),
    ):
        done = node(data_dir=str(path))
        assert (done.code, done.out) == (3, "")
        assert f"{path}: {text}" in done.err


def test_data_without_identity_is_refused(node: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "data" / "worker-0").mkdir(parents=True)
    done = node()
    assert done.code == 3
    assert "holds a node's data and no node.json" in done.err


def test_data_in_use_is_refused(node: Callable[..., Done], tmp_path: Path) -> None:
    """By another process or, as here, by us: the worker finds out, and the supervisor does not try again."""
    claim(tmp_path / "data")
    held = DataDir.open(tmp_path / "data" / "worker-0")
    try:
        done = node()
    finally:
        held.close()
    assert done.code == 3
    assert "is in use by process" in done.err


def put_chunk(key: bytes, txn: WriteTxn) -> None:
    txn.put(key, bytes(4 * 2**20))


def test_map_smaller_than_the_data_is_a_wrong_setting(node: Callable[..., Done], tmp_path: Path) -> None:
    claim(tmp_path / "data")

    async def fill() -> None:
        store = LmdbStore.open(tmp_path / "data" / "worker-0", map_bytes=64 * 2**20)
        for number in range(6):
            await store.submit(partial(put_chunk, b"%d" % number))
        await store.close()

    asyncio.run(fill())
    done = node(map_bytes=16 * 2**20)
    assert done.code == 2
    assert "map_bytes = 16777216 is too small" in done.err


def test_damaged_data_is_refused(node: Callable[..., Done], tmp_path: Path) -> None:
    claim(tmp_path / "data")
    (tmp_path / "data" / "worker-0").mkdir()
    (tmp_path / "data" / "worker-0" / "data.mdb").write_bytes(b"not LMDB" * 10_000)
    done = node()
    assert done.code == 3
    assert "cannot be opened or is damaged" in done.err


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "n9"}, "node 'n9' is not in the cluster"),
        ({"port": PORT + 1}, f"port = {PORT + 1}, and the cluster knows 'n1' with port {PORT}"),
    ],
)
def test_node_that_the_cluster_does_not_know_is_a_wrong_setting(
    node: Callable[..., Done], tmp_path: Path, settings: dict[str, object], text: str
) -> None:
    done = node(**settings)
    assert (done.code, done.err) == (2, f"ssastore: {text}\n")
    assert not (tmp_path / "data").exists()


def test_control_store_that_does_not_answer_may_work_later(node: Callable[..., Done], tmp_path: Path) -> None:
    done = node(control=str(tmp_path / "nobody.sock"))
    assert (done.code, done.out) == (5, "")
    assert "nobody.sock" in done.err


def test_port_in_use_is_a_wrong_setting(node: Callable[..., Done]) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", PORT))
        taken.listen()
        done = node()
    assert (done.code, done.err) == (2, f"ssastore: port {PORT}: Address already in use\n")


def test_gateway_port_in_use_is_a_wrong_setting(
    ssastore: Callable[..., Done], control: Path, secrets_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(f'control = "{control}"\nsecrets_file = "{secrets_file}"\ns3_listen = "{listen}"\n')
        done = ssastore("gateway", "--config", str(path))
    assert (done.code, done.err) == (2, f"ssastore: {listen}: Address already in use\n")
