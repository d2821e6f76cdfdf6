"""Files of settings and secrets as bytes: bounded, private where they have to be, never half written."""

from __future__ import annotations

import os
import stat
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
    """A file's bytes, if only its owner can read it. Raises ConfigError."""
    text = read_small(path)
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise ConfigError(f"{path}: readable by others; run: chmod 600 {path}")
    return text


def write_private(path: str | Path, text: str) -> None:
    """Replace a file by one that only its owner can read: durable, and never seen half written.

    Raises OSError, with a file's name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
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
