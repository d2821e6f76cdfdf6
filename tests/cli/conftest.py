"""Run the command line inside the test's own process: cheap enough for tables of bad input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssastore.cli import main
from ssastore.config import write_secrets


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
