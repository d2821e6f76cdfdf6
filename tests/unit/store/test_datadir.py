"""The lock of a data directory. Who else it keeps out is tested with the store."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ssastore.control.file import _lock
from ssastore.errors import DataDirError
from ssastore.limits import LOG_BLOCK_BYTES
from ssastore.store.datadir import LOCK_BYTES, LOCK_NAME, DataDir, lock_text, network_type
from ssastore.store.logfiles import make_log_files


def test_lock_names_its_holder_and_keeps_its_length(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_NAME
    lock.write_bytes(lock_text(99_999_999))
    directory = DataDir.open(tmp_path)
    assert lock.read_bytes() == lock_text(os.getpid())
    assert lock.stat().st_size == LOCK_BYTES
    with pytest.raises(DataDirError, match=f"in use by process {os.getpid()}$"):
        DataDir.open(tmp_path)
    directory.close()
    assert lock.exists(), "removing it would let two openers lock two files of this name"
    DataDir.open(tmp_path).close()


def test_lock_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(lock_text(1))
    DataDir.open(tmp_path).close()


def test_a_file_system_without_locks_is_not_a_directory_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DataDirError, match=r"cannot be locked \(No locks available\): it needs a disk"):
        DataDir.open(tmp_path)
    with pytest.raises(DataDirError, match=r"cannot be locked \(No locks available\): it needs a disk"):
        _lock(tmp_path / "control.lock")


MOUNTS = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
95 22 0:52 /export /mnt/data rw,relatime shared:40 - nfs4 10.0.0.1:/export rw,vers=4.2
96 22 0:53 / /mnt/nfs\\0402 rw - tmpfs nfs rw
"""


@pytest.mark.parametrize(
    ("number", "found"), [((0, 52), "nfs4"), ((254, 1), ""), ((0, 53), ""), ((0, 5), "")]
)
def test_a_directory_that_is_somewhere_else_is_told(number: tuple[int, int], found: str) -> None:
    assert network_type(os.makedev(*number), MOUNTS) == found


def test_lock_is_not_inherited_by_programs(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path)
    held = [fd for fd in os.listdir("/proc/self/fd") if points_to(fd, tmp_path / LOCK_NAME)]
    assert [os.get_inheritable(int(fd)) for fd in held] == [False]
    directory.close()


def points_to(fd: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(path)
    except OSError:
        return False


def test_directory_is_made_private_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    directory = DataDir.open(tmp_path / "a" / "b")
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.sync()
    assert synced == [str(tmp_path / "a" / "b"), str(tmp_path / "a")]
    assert directory.free_bytes() > 0
    directory.close()


@pytest.mark.parametrize("name", [LOCK_NAME, "log.0"])
def test_what_is_written_is_not_where_a_link_leads(name: str, tmp_path: Path) -> None:
    """Who has the directory could otherwise have root, by a command, write over any file."""
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "data"
    elsewhere.write_text("of somebody else")
    directory.mkdir()
    (directory / name).symlink_to(elsewhere)
    if name == LOCK_NAME:
        with pytest.raises(DataDirError, match="cannot be used"):
            DataDir.open(directory)
    else:
        with pytest.raises(OSError, match="symbolic links"):
            make_log_files(directory, LOG_BLOCK_BYTES)
    assert elsewhere.read_text() == "of somebody else"
