"""A directory that one store of one process uses: created, locked, made durable.

LMDB would let two processes share an environment, and corrupts it when one process opens it twice.  So a
lock file of our own stands next to its files; ``flock`` belongs to the open file, which refuses the second
open in the same process as well.  The kernel lets go of it however the process ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from ssastore.errors import DataDirError

log = logging.getLogger(__name__)

LOCK_NAME = "ssastore.lock"

LOCK_BYTES = 64
"Fixed length, so that a restart on a full disk overwrites in place and needs no new block."

_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs")
"How types of file systems begin that are somewhere else."

_LOCK_TEXT = b"ssastore-lock 1\npid "


def lock_text(pid: int) -> bytes:
    """Content of the lock file of process ``pid``: for people, and for the message of the second opener."""
    return (_LOCK_TEXT + str(pid).encode()).ljust(LOCK_BYTES - 1) + b"\n"


def network_type(device: int, mounts: str) -> str:
    """The type of a file system that other machines may have as well, by its device number; empty for none.

    ``mounts`` is a /proc/self/mountinfo.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        name = source.partition(" ")[0]
        if number in fields.split()[2:3] and name.startswith(_NETWORK):
            return name
    return ""


def _warn_of_network(path: Path, lock: int) -> None:
    """There a lock may hold on this machine alone, and what is mapped is not what others have written."""
    try:
        found = network_type(os.fstat(lock).st_dev, Path("/proc/self/mountinfo").read_text())
    except OSError:
        return
    if found:
        log.warning("data_dir.on_a_network", extra={"path": str(path), "type": found})


class DataDir:
    """A directory held by this process from ``open`` to ``close``."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> DataDir:
        """Create ``path`` if need be (mode 0700) and lock it.

        Raises:
            DataDirError: it is in use, no directory, or not writable.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # It is written: a link that somebody planted in his directory must not lead root to another file.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(path / LOCK_NAME, flags, 0o600)
        except OSError as error:
            raise DataDirError(f"data directory {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, LOCK_BYTES, 0).removeprefix(_LOCK_TEXT).decode(errors="replace").strip()
            os.close(lock)
            raise DataDirError(f"data directory {path} is in use by process {holder}") from error
        except OSError as error:
            os.close(lock)
            raise DataDirError(
                f"data directory {path} cannot be locked ({error.strerror}): it needs a disk of this machine"
            ) from error
        _warn_of_network(path, lock)
        with suppress(OSError):  # A full disk must not keep us from opening: deletes are the way out of it.
            os.pwrite(lock, lock_text(os.getpid()), 0)
        return cls(path, lock)

    def free_bytes(self) -> int:
        """Free space of the file system, without what is kept for root."""
        status = os.statvfs(self._lock)
        return status.f_bavail * status.f_frsize

    def sync(self) -> None:
        """Make the names of the files durable: a synced file is lost all the same if its directory is not."""
        for directory in (self.path, self.path.parent):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def close(self) -> None:
        """Unlock. A forked child may still hold the file open, so closing alone would not do."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)
