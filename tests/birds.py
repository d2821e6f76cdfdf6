"""Real routing daemons for tests: whether they are here, and talking to them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


_BGPD = Path("/usr/lib/frr/bgpd")


def need_frr() -> None:
    """Skip where FRR is not installed."""
    if not _BGPD.exists() or shutil.which("vtysh") is None:
        pytest.skip("frr is not installed")


@contextmanager
def bgpd(folder: Path) -> Iterator[Callable[[], set[str]]]:
    """FRR's BGP daemon with ``bgpd.conf`` of a folder, without the rest of it; what tells its prefixes."""
    common = ["--vty_socket", str(folder)]
    argv = [str(_BGPD), "-f", str(folder / "bgpd.conf"), "-i", str(folder / "pid"), "-S", "-Z", "-A", "::1"]
    question = ["vtysh", *common, "-d", "bgpd", "-c", "show bgp ipv6 unicast json"]

    def known() -> set[str]:
        done = subprocess.run(question, capture_output=True, text=True, timeout=20)
        # Before it listens, and before there is anything, it says nothing.
        return set(json.loads(done.stdout).get("routes", {})) if done.stdout.strip() else set()

    with open(folder / "bgpd.log", "wb") as log:
        process = subprocess.Popen([*argv, *common, "--log", "stdout"], stdout=log, stderr=log)
    try:
        yield known
    finally:
        process.terminate()
        process.wait(10)
