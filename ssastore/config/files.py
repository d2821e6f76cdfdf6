"""Files of settings and secrets as bytes: bounded, private where they have to be, never half written."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ssastore.errors import ConfigError
from ssastore.limits import MIB

_FILE_BYTES_MAX = 1 * MIB


def read_small(path: str) -> bytes:
    """A file's bytes, bounded: it may be a device that never ends. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {_FILE_BYTES_MAX} bytes, which no such file is")
    return content


def read_secret(path: str) -> bytes:
    """A file's bytes, if only its owner can read it, or root and a group that it was given to.

    Raises ConfigError.
    """
    text = read_small(path)
    found = os.stat(path)
    if found.st_mode & (0o037 if _is_of_a_group(found) else 0o077):
        raise ConfigError(f"{path}: readable by others; run: chmod 600 {path}")
    return text


def write_private(path: str | Path, text: str, *, like: str | Path | None = None) -> None:
    """Replace a file by one that only its owner can read: durable, and never seen half written.

    It belongs to whom the former one did, as far as we may give it away, and if that was root's and for a
    group, it is so too: root renews what services read.  ``like`` is the file to go by if there is none.

    Raises OSError, with a file's name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # Nobody else's: who may write this directory could have it open already, to read what comes.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _keep_for(descriptor, path if path.exists() or like is None else Path(like))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        if error.filename is None:  # Of a write: whoever is told that a disk is full wants to know which.
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _is_of_a_group(found: os.stat_result) -> bool:
    """Whether root has given a file to a group: its own, of which everybody else has no need, is none."""
    return found.st_uid == 0 and found.st_gid != 0


def _keep_for(descriptor: int, former: Path) -> None:
    """Owner, group and whether the group may read, as of a former file; what we may not do is left."""
    # Not of what a link leads to: that may be anybody's.
    with suppress(FileNotFoundError, PermissionError):
        found = former.lstat()
        if not stat.S_ISREG(found.st_mode):
            return
        mine = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        if _is_of_a_group(found):
            os.fchmod(descriptor, 0o600 | found.st_mode & 0o040)
