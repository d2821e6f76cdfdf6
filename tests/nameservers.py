"""Real name servers for tests, on ports of the loopback address: Knot and NSD."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.labs import free_port

SERVERS = ("knotd", "nsd")
_START_S = 20

_SOA = """
@ 300 IN SOA ns.example. admin.example. 1 3600 600 86400 60
@ 300 IN NS ns.example.
ns 300 IN AAAA ::1
"""

_KNOT = """
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
database:
    storage: "{folder}"
log:
  - target: stderr
    any: warning
zone:
  - domain: example.
    file: "{folder}/zone"
"""

_NSD = """
server:
    ip-address: 127.0.0.1@{port}
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    pidfile: "{folder}/pid"
    xfrdfile: "{folder}/xfrd"
    zonelistfile: "{folder}/zones"
    database: ""
remote-control:
    control-enable: no
zone:
    name: example.
    zonefile: "{folder}/zone"
"""


@contextmanager
def name_server(program: str, folder: Path, lines: list[str]) -> Iterator[int]:
    """A server of the zone ``example.`` with these lines; its port of 127.0.0.1. Skips without it."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (folder / "zone").write_text("$ORIGIN example.\n" + _SOA + "\n".join(lines) + "\n")
    port = free_port()
    text, command = {"knotd": (_KNOT, ["-c"]), "nsd": (_NSD, ["-d", "-c"])}[program]
    (folder / "conf").write_text(text.format(folder=folder, port=port))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, *command, str(folder / "conf")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)
