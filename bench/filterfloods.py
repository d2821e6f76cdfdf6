"""Good traffic beside floods, with the filter and without it, on three hosts in a row (filterlab.py).

The generator has a core of its own, with what the kernel does for a packet of the flood up to the service;
the service and its known clients share the other. All run in real time (SCHED_RR), so that other programs of
the machine change little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

from bench.filterlab import CLIENT_PREFIX, INSIDE, OUTSIDE, SERVICE, Row, inside, row
from bench.filterservice import PORT
from bench.packets import ethernet, ipv6, tcp, upper
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys
from ssastore.rules.record import record_from_text

RECORD = "v=SSA1; replicas=3; data=content+source; front=source"
FRAME_BYTES = 74
_KINDS = 20_000
"Different frames of a flood, sent over and over."
_FORGED = 0x20010DB8
"Sources of floods are in 2001:db8::/32, other than the clients' own."
_SETTLE_S = 1.0
_GOOD_CORE, _FLOOD_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


def _on(core: int, namespace: str, *command: str) -> list[str]:
    return inside(namespace, "taskset", "--cpu-list", str(core), "chrt", "--rr", "1", *command)


def right_iid(source: int) -> int:
    """The address of the front plane that the rule allows to the /64 ``source``."""
    front = record_from_text(RECORD).front
    return address_under(front, 15, source, free=1, epoch=0, keys=ClientKeys())


def frames(kind: str, link: tuple[bytes, bytes], count: int = _KINDS) -> bytes:
    """SYNs, one after the other: ``wrong`` addresses, ``forged`` sources with the right ones, ``slow`` ones.

    ``link``: the link addresses of source and target. The slow come from one /64, so that each has its own
    address and port, and is answered.
    """
    random = Random(kind)
    made = []
    for _ in range(count):
        source = 0x20010DB800790001 if kind == "slow" else _FORGED << 32 | random.getrandbits(31) | 1 << 31
        iid = random.getrandbits(60) if kind == "wrong" else right_iid(source)
        made.append(_syn(link, (source, random.getrandbits(64)), iid, random.randrange(1024, 65536)))
    return b"".join(made)


def _syn(link: tuple[bytes, bytes], source: tuple[int, int], iid: int, port: int) -> bytes:
    def segment(checksum: int) -> bytes:
        made = tcp(seq=port * 7919, ports=(port, PORT))
        return made[:16] + checksum.to_bytes(2, "big") + made[18:]

    words = pack(">4QII", *source, upper(SERVICE), iid, 20, 6) + segment(0)
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet = ipv6(source, (upper(SERVICE), iid), segment(~total & 0xFFFF))
    made = link[1] + link[0] + ethernet(packet)[12:]
    assert len(made) == FRAME_BYTES
    return made


def _link_address(namespace: str, interface: str) -> bytes:
    told = subprocess.run(
        ["ip", "-n", namespace, "-j", "link", "show", "dev", interface],
        check=True,
        capture_output=True,
        text=True,
    )
    return bytes.fromhex(json.loads(told.stdout)[0]["address"].replace(":", ""))


class Floods:
    """Three hosts with a service, its clients, and a generator for floods."""

    def __init__(self, hosts: Row, folder: Path) -> None:
        self.hosts = hosts
        self._folder = folder
        self._generator = folder / "flood"
        source = Path(__file__).with_name("flood.c")
        subprocess.run(["clang", "-O2", "-o", str(self._generator), str(source)], check=True)
        link = _link_address(hosts.outside, "c0"), _link_address(hosts.filter, OUTSIDE)
        for kind in ("wrong", "forged", "slow"):
            (folder / kind).write_bytes(frames(kind, link))

    def measure(self, kind: str | None, per_s: int, seconds: float) -> dict[str, Any]:
        """What clients see while a flood of this kind (None: none) comes in.

        ``known``: latencies of known good traffic; ``new``: new connections that were answered; ``flood``:
        what the generator sent, and how much of a core it took.
        """
        address = str(IPv6Address(upper(SERVICE) << 64 | right_iid(CLIENT_PREFIX)))
        with (
            self._program("ask", address, seconds) as asking,
            self._program("knock", address, seconds) as new,
        ):
            assert asking.stdout and asking.stdout.readline() == "ready\n"
            flooding = None
            if kind:
                hold = "1" if kind == "slow" else "0"
                words = [str(self._generator), "c0", str(self._folder / kind), str(per_s)]
                words += [str(seconds + 2 * _SETTLE_S), hold]
                flooding = subprocess.Popen(
                    _on(_FLOOD_CORE, self.hosts.outside, *words), stdout=subprocess.PIPE, text=True
                )
            # Floods need a moment to fill what they fill.
            subprocess.run(["sleep", str(_SETTLE_S)], check=True)
            found = {}
            for running in (asking, new):
                assert running.stdin
                running.stdin.write("go\n")
                running.stdin.flush()
            for name, running in (("known", asking), ("new", new)):
                assert running.stdout
                found[name] = json.loads(running.stdout.read())
            if flooding:
                found["flood"] = json.loads(flooding.communicate()[0])
        return found

    @contextmanager
    def _program(self, what: str, address: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "bench.filterservice", what, address, str(seconds)]
        core = _GOOD_CORE if what == "ask" else _FLOOD_CORE
        running = subprocess.Popen(
            _on(core, self.hosts.outside, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield running
        finally:
            running.kill()
            running.communicate()


@contextmanager
def filtering(hosts: Row, record: str, pace: int) -> Iterator[None]:
    """The filter at work on the middle host, with queues."""
    options = ["--service", str(SERVICE), "--record", record, "--inside", INSIDE, "--pace", str(pace)]
    command = [sys.executable, "-m", "ssastore", "filter", "run", OUTSIDE, *options]
    with running(inside(hosts.filter, *command), "judging"):
        yield


@contextmanager
def running(command: list[str], says: str) -> Iterator[None]:
    """A program that says when it is ready, until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith(says):
            raise SystemExit(f"{' '.join(command)}: {line!r}")
        yield
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def floods() -> Iterator[Floods]:
    """The hosts, with the service at work."""
    with tempfile.TemporaryDirectory() as folder, row() as hosts:
        serve = _on(_GOOD_CORE, hosts.inside, sys.executable, "-m", "bench.filterservice", "serve")
        with running(serve, "serving"):
            yield Floods(hosts, Path(folder))
