"""Durable writes that the event loop does not wait for.

By Linux's asynchronous IO: the kernel takes the frame from our buffer past its page cache, and says through
an eventfd, to which the event loop listens, when it is on the medium.  No thread takes part.  A thread would
do (``ThreadIo``, for file systems and systems without this) but needs the interpreter three times for each
frame, each time from an event loop that is busy (docs/adr/0006 has figures).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ssastore.limits import LOG_BLOCK_BYTES
from ssastore.store.workthread import WorkThread

Die = Callable[[BaseException], None]
"Ends the process: what is on the disk is not known any more."

_SYSTEM_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"io_setup, io_destroy, io_getevents, io_submit of <asm/unistd.h>."

_IOCB = struct.Struct("=QIiHhIQQqQII")
"struct iocb of <linux/aio_abi.h>."
_EVENT = struct.Struct("=QQqq")
"struct io_event."
_POINTER = struct.Struct("=Q")
_CMD_PWRITE = 1
_RWF_DSYNC = 2
"With O_DIRECT: the completion comes when data and block map are on the medium."
_FLAG_RESFD = 1


class LogIo(Protocol):
    """Writes to files at offsets, one at a time."""

    def write(self, file: int, frame: bytearray, at: int, then: Callable[[], None]) -> None:
        """Write ``frame`` to the ``file``-th of the files; call ``then`` when it is durable.

        When it fails the process dies: nothing is known about it.
        """
        ...

    def close(self) -> None:
        """Nothing may be under way."""
        ...


def open_log_io(paths: tuple[Path, ...], frame_bytes_max: int, name: str, die: Die) -> LogIo:
    """What this system can do best, for frames of whole blocks. Raises OSError."""
    try:
        return AsyncIo(paths, frame_bytes_max, die)
    except OSError:
        return ThreadIo(paths, name, die)


class AsyncIo:
    """``LogIo`` by asynchronous IO. Belongs to the event loop."""

    def __init__(self, paths: tuple[Path, ...], frame_bytes_max: int, die: Die) -> None:
        """Raises OSError: file system or system do not have it."""
        if platform.machine() not in _SYSTEM_CALLS:
            raise OSError(errno.ENOSYS, "no asynchronous IO known for this machine")
        self._setup, self._destroy, self._getevents, self._submit = _SYSTEM_CALLS[platform.machine()]
        # PyDLL keeps the interpreter: to give it away for these calls takes longer than they do.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._die = die
        self._loop: asyncio.AbstractEventLoop | None = None
        self._then: Callable[[], None] | None = None
        "Of the write under way."
        self._size = 0
        self._files: list[int] = []
        self._context = ctypes.c_ulong(0)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            for path in paths:
                self._files.append(os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
            if self._call(self._setup, 1, ctypes.byref(self._context)) < 0:
                raise OSError(ctypes.get_errno(), "io_setup")
        except OSError:
            self._close_files()
            raise
        # Anonymous memory: aligned as O_DIRECT wants it.
        self._buffer = mmap.mmap(-1, frame_bytes_max)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._iocbs = ctypes.create_string_buffer(_POINTER.pack(ctypes.addressof(self._iocb)))
        self._event = ctypes.create_string_buffer(_EVENT.size)

    def write(self, file: int, frame: bytearray, at: int, then: Callable[[], None]) -> None:
        """See ``LogIo.write``."""
        assert self._then is None and len(frame) % LOG_BLOCK_BYTES == at % LOG_BLOCK_BYTES == 0
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._wakeup, self._completed)
        self._size = size = len(frame)
        self._buffer[:size] = frame
        self._then = then
        target = self._files[file]
        _IOCB.pack_into(
            self._iocb, 0, 0, 0, _RWF_DSYNC, _CMD_PWRITE, 0, target, self._address, size, at, 0, _FLAG_RESFD,
            self._wakeup,
        )  # fmt: skip
        if self._call(self._submit, self._context, ctypes.c_long(1), self._iocbs) != 1:
            self._die(OSError(ctypes.get_errno(), "the log could not be written: io_submit"))

    def _completed(self) -> None:
        os.eventfd_read(self._wakeup)
        one = ctypes.c_long(1)
        found = self._call(self._getevents, self._context, one, one, self._event, None)
        written = _EVENT.unpack_from(self._event)[2] if found == 1 else -ctypes.get_errno()
        if written != self._size:
            number = -written if written < 0 else errno.EIO
            self._die(OSError(number, f"the log could not be written: {os.strerror(number)}"))
            return
        then, self._then = self._then, None
        assert then is not None
        then()

    def close(self) -> None:
        """See ``LogIo.close``."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._wakeup)
        self._call(self._destroy, self._context)
        self._close_files()

    def _close_files(self) -> None:
        for file in (*self._files, self._wakeup):
            os.close(file)
        self._files.clear()


class ThreadIo:
    """``LogIo`` by a thread that writes and waits."""

    def __init__(self, paths: tuple[Path, ...], name: str, die: Die) -> None:
        """Raises OSError."""
        self._files = [os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC) for path in paths]
        self._thread = WorkThread(f"store-log {name}", die)

    def write(self, file: int, frame: bytearray, at: int, then: Callable[[], None]) -> None:
        """See ``LogIo.write``."""
        target = self._files[file]

        def work() -> None:
            with memoryview(frame) as rest:
                done = 0
                while done < len(rest):
                    done += os.pwrite(target, rest[done:], at + done)

        self._thread.do(work, lambda _: then())

    def close(self) -> None:
        """See ``LogIo.close``."""
        self._thread.end()
        for file in self._files:
            os.close(file)
        self._files.clear()
