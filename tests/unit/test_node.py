"""The supervisor's own decisions; what it does to a real kernel is tested in tests/lab and tests/cli."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssastore import node
from ssastore.config import NodeConfig, make_secrets
from ssastore.errors import DataDirError, Unavailable
from ssastore.worker import Worker, is_listening


async def test_worker_that_the_kernel_refuses_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No process to be had, twice; the third start gives a worker that finds a wrong setting and ends all."""
    start = asyncio.create_subprocess_exec
    refusals = [OSError(errno.EAGAIN, "no more processes"), OSError(errno.ENOMEM, "no memory")]

    async def refuse_first(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop(0)
        return await start(sys.executable, "-c", f"raise SystemExit({node.EXIT_CONFIG})")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_first)
    monkeypatch.setattr(node, "_RESTART_CAP_S", 0.001)
    supervisor = node.Supervisor("nowhere", NodeConfig("n1", "control", "data", "secrets"))
    with socket.socket() as listener, caplog.at_level(logging.ERROR):
        supervisor._listeners = [listener]
        await asyncio.wait_for(supervisor._keep(0), 20)
    assert refusals == []
    assert supervisor._failed == node.EXIT_CONFIG
    assert [record.getMessage() for record in caplog.records] == ["worker.not_started"] * 2


async def test_who_is_told_of_new_files_is_who_answers() -> None:
    """The signal would end a worker that begins, and one that is dead must not keep it from the others."""
    told: list[str] = []

    class Process:
        def __init__(self, name: str) -> None:
            self.name = name

        def send_signal(self, number: int) -> None:
            assert number == signal.SIGHUP
            if self.name == "dead":
                raise ProcessLookupError
            told.append(self.name)

    supervisor = node.Supervisor("nowhere", NodeConfig("n1", "control", "data", "secrets"))
    processes: Any = {0: Process("dead"), 1: Process("answers"), 2: Process("begins")}
    supervisor._running = processes
    supervisor._answering = {0, 1, 3}
    supervisor._tell_workers()
    assert told == ["answers"]


@pytest.fixture
def supervisor() -> Iterator[node.Supervisor]:
    """Of two workers, with sockets on a port of their own and a pipe to hear of readiness."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    made = node.Supervisor("nowhere", NodeConfig("n1", "control", "data", "secrets", port=port))
    made._listeners = node.open_listeners(port, 2)
    made._ready = os.pipe()
    yield made
    for listener in made._listeners:
        listener.close()
    for descriptor in made._ready:
        os.close(descriptor)


def lets_in(supervisor: node.Supervisor) -> bool:
    try:
        socket.create_connection(("::1", supervisor._config.port)).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_nobody_is_let_in_before_all_workers_could_answer(supervisor: node.Supervisor) -> None:
    """Who waits in a backlog for a process to begin would not ask another plane."""
    assert not lets_in(supervisor)
    for index in (1, 0):
        assert not any(is_listening(listener) for listener in supervisor._listeners)
        os.write(supervisor._ready[1], bytes([index]))
        supervisor._hear_ready(2)
    assert all(is_listening(listener) for listener in supervisor._listeners)
    assert lets_in(supervisor)
    assert supervisor._opens_late is not None
    supervisor._opens_late.cancel()


async def test_a_worker_that_cannot_begin_keeps_nobody_from_the_others(
    supervisor: node.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_OPEN_LATE_S", 0.0)
    os.write(supervisor._ready[1], bytes([0]))
    supervisor._hear_ready(2)
    await asyncio.sleep(0.01)
    assert lets_in(supervisor)


async def test_a_port_that_was_taken_meanwhile_ends_the_node(
    supervisor: node.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_: Any) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(node, "begin_listening", taken)
    os.write(supervisor._ready[1], bytes([0, 1]))
    supervisor._hear_ready(2)
    assert supervisor._failed == node.EXIT_CONFIG and supervisor._stopping.is_set()


async def test_a_worker_serves_when_its_supervisor_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = str(tmp_path / "secrets.json")
    make_secrets(secrets)
    served: list[bool] = []

    async def begin(_: Worker) -> Any:
        return SimpleNamespace(service=None)

    async def serve(worker: Worker, _: Any) -> None:
        served.append(is_listening(worker._listener))
        raise Unavailable("enough is known")

    monkeypatch.setattr(Worker, "_start_engine", begin)
    monkeypatch.setattr(Worker, "_listen", serve)
    told, tells = os.pipe()
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        worker = Worker(NodeConfig("n1", "control", "data", secrets, manage_routes=False), 3, listener, tells)
        serving = asyncio.create_task(worker.serve())
        assert await asyncio.to_thread(os.read, told, 9) == b"\3"
        await asyncio.sleep(0.02)
        assert not serving.done()
        listener.listen()
        with pytest.raises(Unavailable):
            await serving
    assert served == [True]
    for descriptor in (told, tells):
        os.close(descriptor)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_worker_that_begins_outlives_sighup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[Any] = []

    async def begin(_: Worker) -> None:
        handlers.append(signal.getsignal(signal.SIGHUP))
        raise Unavailable("the control store is away")

    secrets = str(tmp_path / "secrets.json")
    make_secrets(secrets)
    monkeypatch.setattr(Worker, "_start_engine", begin)
    with socket.socket() as listener, pytest.raises(Unavailable):
        await Worker(NodeConfig("n1", "control", "data", secrets, manage_routes=False), 0, listener).serve()
    assert handlers != [signal.SIG_DFL]
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


def test_claimed_directory_is_private_and_claimed_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    for _ in range(2):
        node.claim_data_dir(str(path), "ab" * 16, "n1", 1)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "node.json").stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.iterdir()] == ["node.json"]


def test_another_number_of_workers_is_taken_only_where_environments_are_named(tmp_path: Path) -> None:
    """Else a new worker with an empty disk would be the first environment of its lanes, and vote."""
    path = str(tmp_path / "data")
    node.claim_data_dir(path, "ab" * 16, "n1", 1)
    with pytest.raises(DataDirError, match="workers"):
        node.claim_data_dir(path, "ab" * 16, "n1", 2)
    node.claim_data_dir(path, "ab" * 16, "n1", 2, are_named=True)
    node.claim_data_dir(path, "ab" * 16, "n1", 2)
    with pytest.raises(DataDirError, match="node"):
        node.claim_data_dir(path, "ab" * 16, "n2", 2, are_named=True)


def test_only_directories_of_workers_that_are_no_more_go(tmp_path: Path) -> None:
    for name in ("worker-0", "worker-1", "worker-2", "worker-10", "worker-x", "other"):
        (tmp_path / name).mkdir()
    assert node.forget_workers(str(tmp_path), 2) == ["worker-10", "worker-2"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other", "worker-0", "worker-1", "worker-x"]
