"""The real world behind ``ssastore.env``: wall clock, the kernel's randomness, the event loop to use."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, TypeVar

from ssastore.env import spawn
from ssastore.filewatch import FileWatch

COLLECT_AFTER_OBJECTS = 20_000
"Some megabytes: what cycles may hold until they are found."

KEPT_BYTES_MAX = 128 << 20
"What a process keeps of memory that it has freed."

_PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION = 0x20080522
_CAP_NET_ADMIN = 12
"linux/capability.h."
_WATCHDOG_USEC = re.compile("[1-9][0-9]{3,17}")
"sd_watchdog_enabled(3); what is less than a millisecond, 0 above all, is no watchdog."
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES = 32 << 20
"The most that mallopt(3) takes."

T = TypeVar("T")


class SystemClock:
    """Wall clock."""

    def now_ms(self) -> int:
        """See ``env.Clock``."""
        return time.time_ns() // 1_000_000


class SystemRandomness:
    """The kernel's generator."""

    def bytes(self, count: int) -> bytes:
        """See ``env.Randomness``."""
        return os.urandom(count)

    def below(self, bound: int) -> int:
        """See ``env.Randomness``."""
        return secrets.randbelow(bound)


def forwards_packets() -> bool:
    """Whether this host sends on packets that are not for it, also those of connections that it has.

    The second takes ``net.ipv4.tcp_early_demux=0`` (for IPv6 too): with it set, the kernel looks for a
    connection before it looks for a route, and one whose address has moved away hangs.
    """
    settings = {"net/ipv6/conf/all/forwarding": "1", "net/ipv4/tcp_early_demux": "0"}
    return all((Path("/proc/sys") / name).read_text().strip() == value for name, value in settings.items())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def collect_rarely() -> None:
    """Look for cycles of garbage rarely; call it once everything is imported.

    Requests end by their reference counts.  The collector's default, each 700 new objects, walks through
    those of all requests in flight to find nothing: a tenth of the time of a small write.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 10)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next request (mallopt(3)), up to KEPT_BYTES_MAX.

    glibc gives a large block back to the kernel and takes the next one anew, page by page, and the kernel
    clears each: for bodies of a megabyte a quarter of the CPU time.  A C library without mallopt decides for
    itself.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)


def serve_for_long() -> None:
    """What a daemon does once everything is imported, before it serves."""
    collect_rarely()
    keep_freed_memory()


def die_with_parent() -> None:
    """Let this process get SIGTERM when its parent dies (prctl(2)): an orphan would keep its locks."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    made_by = parent_process()
    if made_by is not None and made_by.pid != os.getppid():  # it died before this was asked for
        os.kill(os.getpid(), signal.SIGTERM)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine on the best loop there is."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def refuse_optimised() -> None:
    """``python -O`` strips the assertions that guard our own invariants: exit instead."""
    if sys.flags.optimize:
        raise SystemExit("ssastore: refusing to run under python -O, its assertions must stay on")


def give_up_route_privilege() -> None:
    """Let this process set no routes (capset(2)): who speaks to clients has no business there.

    The process may be root, of the machine or of a lab: it keeps everything else that it has.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # Effective, permitted, inheritable: of the first 32, and of the rest.
    if libc.capget(header, sets) == 0:
        for at in range(3):
            sets[at] &= ~(1 << _CAP_NET_ADMIN)
        libc.capset(header, sets)


def tell_service_manager(text: str) -> None:
    """A line of sd_notify(3), as ``READY=1``; nothing where nobody wants to hear it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.sendto(text.encode(), "\0" + path[1:] if path[0] == "@" else path)


async def keep_watchdog() -> None:
    """Tell the service manager that the event loop goes on, where it wants to hear that; until cancelled."""
    period = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    while is_for_us and _WATCHDOG_USEC.fullmatch(period):
        tell_service_manager("WATCHDOG=1")
        await asyncio.sleep(int(period) / 2e6)


def keep_read(watches: Sequence[FileWatch], then: Callable[[], object] = lambda: None) -> None:
    """Read files again when they change, and at SIGHUP, which ends nobody then: ``then`` comes after."""

    def read_again() -> None:
        for watch in watches:
            watch.read_again()
        then()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, read_again)
    for watch in watches:
        spawn("look at files", watch.keep())
