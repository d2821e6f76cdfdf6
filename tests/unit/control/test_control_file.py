from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import msgpack
import pytest
from xxhash import xxh3_64_digest

from ssastore.control.file import ControlFile
from ssastore.control.state import Change, ControlState
from ssastore.env import Compare, Item, Write
from ssastore.errors import DataDirError, EnvironmentProblem, OutcomeUnknown
from ssastore.limits import MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "control.mdb"


def do(file: ControlFile, state: ControlState, change: Change | None) -> None:
    assert change
    file.write(change)
    state.apply(change, 0)


def fill(path: Path) -> ControlState:
    """A file with a bit of everything, and the state that it must be loaded as."""
    file = ControlFile(path)
    state = file.load(0)
    do(file, state, state.plan_grant(60))
    do(file, state, state.plan_grant(50))
    do(file, state, state.plan_transact([], [Write("a", b"1", 1), Write("b", b"2", 2), Write("ö", b"")]))
    do(file, state, state.plan_transact([Compare("ö", 1)], [Write("ö", None), Write("c", bytes(MIB - 20))]))
    do(file, state, state.plan_end([2]))
    file.close()
    return state


def corrupt(path: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as txn:
        assert txn.get(key) is not None
        txn.put(key, value)


def test_file_is_loaded_as_it_was_written(path: Path) -> None:
    state = fill(path)
    file = ControlFile(path)
    loaded = file.load(1000)
    loaded.check()
    assert loaded.items("") == state.items("") == [Item("a", b"1", 1), Item("c", bytes(MIB - 20), 2)]
    assert (loaded.revision, loaded.next_lease) == (3, 3)
    assert loaded.next_deadline_ms() == 1060
    assert loaded.plan_end([1]) == Change(4, 3, (Write("a", None),), ended=(1,))
    file.close()


def test_only_one_has_the_file_at_a_time(path: Path) -> None:
    file = ControlFile(path)
    with pytest.raises(DataDirError, match="another"):
        ControlFile(path)
    file.close()
    ControlFile(path).close()


def test_refused_opening_lets_go_of_the_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no LMDB file" * 1000)
    with pytest.raises(DataDirError):
        ControlFile(path)
    path.unlink()
    ControlFile(path).close()


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(DataDirError):
        ControlFile(tmp_path / "plain" / "control.mdb")


@pytest.mark.parametrize("key", [b"m", b"ka", b"l" + bytes(7) + b"\x01"])
def test_rotten_record_is_not_believed(path: Path, key: bytes) -> None:
    """One bit of any kind of record is flipped below LMDB, which does not notice."""
    fill(path)
    with lmdb.open(str(path), subdir=False) as env, env.begin() as txn:
        sealed = bytearray(txn.get(key) or b"")
    sealed[-1] ^= 1
    corrupt(path, key, bytes(sealed))
    file = ControlFile(path)
    with pytest.raises(DataDirError, match="checksum"):
        file.load(0)
    file.close()


def test_record_under_another_key_is_not_believed(path: Path) -> None:
    fill(path)
    with lmdb.open(str(path), subdir=False) as env, env.begin() as txn:
        sealed = txn.get(b"kc")
    corrupt(path, b"ka", bytes(sealed or b""))
    file = ControlFile(path)
    with pytest.raises(DataDirError, match="checksum"):
        file.load(0)
    file.close()


def test_file_of_another_format_is_refused(path: Path) -> None:
    fill(path)
    packed = msgpack.packb([2, 3, 3, 5])
    corrupt(path, b"m", xxh3_64_digest(b"m" + packed) + packed)
    file = ControlFile(path)
    with pytest.raises(DataDirError, match="format 2"):
        file.load(0)
    file.close()


@contextmanager
def no_room_above(size: int) -> Iterator[None]:
    """Writes beyond this file size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_nothing_of_a_change_and_the_file_goes_on(path: Path) -> None:
    file = ControlFile(path)
    state = file.load(0)
    do(file, state, state.plan_transact([], [Write("a", b"1")]))
    large = state.plan_transact([], [Write("a", b"2"), Write("large", bytes(MIB // 2))])
    assert large
    with no_room_above(path.stat().st_size), pytest.raises(EnvironmentProblem):
        file.write(large)
    assert file.load(0).items("") == [Item("a", b"1", 1)]
    do(file, state, large)
    assert file.load(0).items("") == state.items("")
    file.close()


def test_commit_that_may_have_been_kept_is_said(path: Path) -> None:
    """The file has one change more than its writer knows of: the writer must not go on from memory."""
    file = ControlFile(path)
    state = file.load(0)
    do(file, state, state.plan_transact([], [Write("a", b"1")]))
    file._changes -= 1
    large = state.plan_transact([], [Write("large", bytes(MIB // 2))])
    assert large
    with no_room_above(path.stat().st_size), pytest.raises(OutcomeUnknown):
        file.write(large)
    file.close()
