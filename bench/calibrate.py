"""A fixed piece of work, whose CPU time says how fast the machine is at this moment.

Microseconds of CPU for an operation are not the same from one hour to the next, nor from one
second: another clock rate, a neighbour behind the hypervisor that shares the caches, another machine.  The
same work that is done over and over beside a round gets slower with them, so an operation's CPU
time over the loop's can be compared with what another run found.

The loop has the three kinds of work that a server here does, in about the shares that it does
them: Python's own, the kernel's for sockets and files, and passing over bytes.  It syncs nothing, as
that would change what is measured; a tenth of a core is what it takes.  ``VERSION`` is part of every
result: who changes the loop makes all baselines void.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import NamedTuple

VERSION = 2

NOMINAL_US = 10_000
"""``nominal``: what an operation would take on a machine that needs so long for the loop. Any number would
do; with this one, figures look like microseconds of a machine of today."""

_PAUSE_S = 0.08

_BLOCK = bytes(4096)
_PYTHON_STEPS = 6_000
_MESSAGES = 900
_WRITES = 100
_COPIES = 2
_COPIED = bytes(range(256)) * 4096  # 1 MiB


class _Record:
    __slots__ = ("count", "key")

    def __init__(self, key: bytes, count: int) -> None:
        self.key = key
        self.count = count

    def step(self, by: int) -> int:
        self.count += by
        return self.count & 0xFFFF


class Loop(NamedTuple):
    """CPU time of the loop's parts, in microseconds."""

    python_us: float
    kernel_us: float
    bytes_us: float

    @property
    def us(self) -> float:
        """The whole."""
        return sum(self)

    def nominal(self, us: float) -> float:
        """What ``us`` would be on the nominal machine."""
        return us * NOMINAL_US / self.us


def middle(turns: list[Loop]) -> Loop:
    """The median of each part; there must be a turn."""
    return Loop(*[median(part) for part in zip(*turns, strict=True)])


class Calibration:
    """The loop, with what it needs."""

    def __init__(self, directory: Path, cleanup: ExitStack) -> None:
        """``directory`` is on the disk that the servers use; ``cleanup`` closes what is opened."""
        self._one, self._other = map(cleanup.enter_context, socket.socketpair())
        self._file = cleanup.enter_context(tempfile.TemporaryFile(dir=directory, buffering=0))  # noqa: SIM115

    @contextmanager
    def beside(self) -> Iterator[list[Loop]]:
        """While inside, the loop runs in a thread again and again; the turns so far.

        The caller waits for something meanwhile: what it does with Python itself would be in the turns.
        """
        turns: list[Loop] = []
        ended = Event()

        def work() -> None:
            while True:
                turns.append(self.turn())
                if ended.wait(_PAUSE_S):
                    return

        thread = Thread(target=work, name="calibration")
        thread.start()
        try:
            yield turns
        finally:
            ended.set()
            thread.join()

    def turn(self) -> Loop:
        """Once, some 10 ms."""
        marks = [time.thread_time()]
        for part in (_python, self._kernel, _bytes):
            part()
            marks.append(time.thread_time())
        return Loop(*[1e6 * (end - begin) for begin, end in pairwise(marks)])

    def _kernel(self) -> None:
        """Messages through a socket, and writes."""
        for _ in range(_MESSAGES):
            self._one.send(_BLOCK)
            self._other.recv(len(_BLOCK))
        for number in range(_WRITES):
            os.pwrite(self._file.fileno(), _BLOCK, number * len(_BLOCK))


def _python() -> None:
    """Objects, dictionaries, small integers and short bytes, as in a server's own code."""
    records: dict[bytes, _Record] = {}
    total = 0
    for number in range(_PYTHON_STEPS):
        key = b"key/%d" % (number % 512)
        record = records.get(key)
        if record is None:
            record = records[key] = _Record(key, 0)
        total += record.step(number) + len(record.key[2:]) + key[-1]
        if total > 1 << 30:
            total -= 1 << 30


def _bytes() -> None:
    """Copies and digests."""
    for number in range(_COPIES):
        copy = bytearray(_COPIED)
        copy[number] = 1
        zlib.crc32(copy)
    sha256(memoryview(_COPIED)[: len(_COPIED) // 4]).digest()
