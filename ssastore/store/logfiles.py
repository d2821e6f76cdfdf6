"""The two files of the log: made once, written in turn, read back at the next start.

The files never grow, so after their first use a write needs no change of the file system's own records.
One file holds what the running checkpoint covers, the other what came after; when the checkpoint is durable
its file is free again (``writer.py`` decides that).

What the next start finds, and what it means:

- The frames with sequence numbers after the checkpoint, without a gap: replayed.
- Nothing whole where the next frame would be: the end.  It was not acknowledged, for a frame is written only
  when the one before it is durable, and acknowledged only when it is durable itself.
- A frame is missing and a later one is there: the missing one was acknowledged, and something has damaged it.
  The store does not open (DataDirError).  Going on would lose acknowledged writes without a word.

The last frame of all is the one case that cannot be told apart: damage that hits it after it was acknowledged
looks like a write that the power cut short.
"""

from __future__ import annotations

import os
from pathlib import Path

from ssastore.errors import DataDirError
from ssastore.limits import LOG_BLOCK_BYTES
from ssastore.store.logformat import Frame, decode_frame

LOG_NAMES = ("log.0", "log.1")


def log_paths(directory: Path) -> tuple[Path, ...]:
    """The files of a store's log."""
    return tuple(directory / name for name in LOG_NAMES)


def make_log_files(directory: Path, file_bytes: int) -> None:
    """Make both files, with all their blocks. Raises OSError; what is left over does no harm."""
    assert file_bytes % LOG_BLOCK_BYTES == 0
    for path in log_paths(directory):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, file_bytes)
            os.fsync(file)
        finally:
            os.close(file)


def read_back(directory: Path, file_bytes: int, applied: int, salt: bytes) -> list[Frame]:
    """The frames after sequence number ``applied``, in order.

    What was written and not synced when the process ended is synced first: it may be read from now on.

    Raises:
        DataDirError: a file is missing or has another size, or an acknowledged frame is missing.
    """
    found: dict[int, Frame] = {}
    for path in log_paths(directory):
        with memoryview(_contents(path, file_bytes)) as data:
            for at in range(0, len(data), LOG_BLOCK_BYTES):
                frame = decode_frame(data, at, salt, applied)
                if frame is not None:
                    found[frame.sequence] = frame
    frames = [found[sequence] for sequence in sorted(found)]
    for expected, frame in enumerate(frames, applied + 1):
        if frame.sequence != expected:
            raise DataDirError(
                f"the log in {directory} is damaged: batch {expected} is missing, "
                f"and batch {frame.sequence}, which was written later, is there"
            )
    return frames


def _contents(path: Path, size: int) -> bytes:
    """All of a file, synced. Raises DataDirError."""
    try:
        with path.open("r+b", buffering=0) as file:
            os.fdatasync(file)
            contents = file.readall()
    except OSError as error:
        raise DataDirError(f"{path}, a part of the log, cannot be read: {error.strerror}") from error
    if len(contents) != size:
        raise DataDirError(f"{path}, a part of the log, has {len(contents)} bytes and should have {size}")
    return contents
