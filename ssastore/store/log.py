"""The log of one store: which batch comes next, where, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssastore.limits import LOG_BATCH_BYTES_MAX, LOG_CHANGE_BYTES_MAX
from ssastore.store.logfiles import log_paths
from ssastore.store.logformat import HEADER_BYTES, LogRecord, encode_frame, padded
from ssastore.store.logio import Die, open_log_io
from ssastore.store.table import Records


class Log:
    """Belongs to the event loop. Two files, one of which is written to."""

    def __init__(self, directory: Path, record: LogRecord, last: int, die: Die) -> None:
        """``last`` is the sequence number of the last batch that is there. Raises OSError."""
        self._salt = record.salt
        self._last = last
        self._file = 0
        self._at = 0
        self._file_bytes = record.file_bytes
        small = record.file_bytes // 8
        self.change_bytes_max = min(LOG_CHANGE_BYTES_MAX, small)
        "A larger change is not for the log."
        self.batch_bytes = min(LOG_BATCH_BYTES_MAX, small)
        "A batch of so much is closed."
        self.batch_bytes_max = 2 * self.batch_bytes
        "Of a batch's records."
        frame_bytes_max = padded(HEADER_BYTES + self.batch_bytes_max)
        self._io = open_log_io(log_paths(directory), frame_bytes_max, directory.name, die)

    def has_room(self, records_bytes: int) -> bool:
        """Whether the file takes a frame of ``records_bytes``."""
        return self._at + padded(HEADER_BYTES + records_bytes) <= self._file_bytes

    @property
    def is_half_full(self) -> bool:
        """Whether the file that is being written is: time for a checkpoint."""
        return self._at >= self._file_bytes // 2

    def write(self, records: Records, then: Callable[[], None]) -> None:
        """Write the next batch; ``then`` is called when it is durable. One at a time."""
        self._last += 1
        frame = encode_frame(self._last, records, self._salt)
        self._io.write(self._file, frame, self._at, then)
        self._at += len(frame)

    def record(self) -> LogRecord:
        """What LMDB is to say of the log when it holds everything up to here."""
        return LogRecord(self._last, self._salt, self._file_bytes)

    def switch(self) -> None:
        """Go on at the start of the other file; LMDB holds all that is in it, or soon will."""
        self._file = 1 - self._file
        self._at = 0

    def close(self) -> None:
        """Close the files."""
        self._io.close()
