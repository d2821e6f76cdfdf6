"""Real routing daemons for tests: whether they are here, and talking to BIRD."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ssastore.errors import ConfigError
from ssastore.lab.birdconfig import find_bird
from tests.labs import RunningLab

_START_S = 5
_BIRDC = ("/usr/sbin/birdc", "/usr/local/sbin/birdc")


def need_bird() -> None:
    """Skip where BIRD is not installed."""
    try:
        find_bird()
    except ConfigError as error:
        pytest.skip(str(error))


def birdc(lab: RunningLab, host: str, *command: str) -> str:
    """What the daemon of a lab's host answers."""
    return ask_bird(lab.data / f"{host}.bird", *command)


def ask_bird(socket: Path, *command: str) -> str:
    """What the daemon with that control socket answers, as soon as it does."""
    client = shutil.which("birdc") or next(path for path in _BIRDC if shutil.which(path))
    argv = [client, "-s", str(socket), *command]
    deadline = time.monotonic() + _START_S
    while (done := subprocess.run(argv, capture_output=True, text=True, timeout=20)).returncode:
        assert time.monotonic() < deadline, (done.stdout, done.stderr)
        time.sleep(0.02)
    return done.stdout


def prefixes_in(text: str) -> set[str]:
    """Of ``birdc show route``."""
    return set(re.findall(r"^(\S+/\d+) ", text, re.MULTILINE))


def is_established(lab: RunningLab, host: str, session: str) -> bool:
    """Whether a host's daemon has that session."""
    return "Established" in birdc(lab, host, "show", "protocols", session)
