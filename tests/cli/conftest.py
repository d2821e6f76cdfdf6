"""Run the command line inside the test's own process: cheap enough for tables of bad input."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssastore.cli import main, objects
from ssastore.client import AsyncClient
from ssastore.config import write_secrets
from tests.cluster import SmallCluster, small_cluster


@dataclass(frozen=True)
class Done:
    """What a command and the processes that it started left."""

    code: int
    out: str
    err: str


@pytest.fixture
def ssastore(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """Call it with a command's arguments. There is no lab: the state directory is empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SSASTORE_URL", raising=False)
    monkeypatch.delenv("SSASTORE_CONTEXT", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, captured.out, captured.err)

    yield run
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.json"
    write_secrets(str(path), b"c" * 32, {"KEY": "s3cr3t-of-key"})
    return path


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, fill: Callable[[AsyncClient], Awaitable[object]] | None = None
) -> Iterator[None]:
    """While inside, commands reach a small cluster in a thread of this process, which ``fill`` has filled."""
    ready, over = threading.Event(), threading.Event()
    made: list[SmallCluster] = []

    async def serve() -> None:
        async with small_cluster(2) as cluster:
            made.append(cluster)
            if fill is not None:
                await fill(cluster.client())
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    monkeypatch.setattr(objects, "_lab_client", lambda context: made[0].client)
    try:
        yield
    finally:
        over.set()
        thread.join(20)
