"""``ssa://`` in fsspec: fsspec's own suites, and what they do not ask, against a small cluster."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from ssastore.client import AsyncClient
from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigError,
    InvalidBucketName,
    ObjectNotFound,
    PreconditionFailed,
    RequestError,
    Unavailable,
)
from ssastore.fsspec import SsaFile, SsaFileSystem
from ssastore.fsspec.session import close_client
from ssastore.limits import CHUNK_BYTES, INLINE_BYTES_MAX, KEY_BYTES_MAX, MIB
from ssastore.naming.answer import Whereabouts
from ssastore.naming.responder import Responder, zone_of
from ssastore.transport.tcp import LoopbackLinks
from tests.cluster import KEY, SECRET, SERVICE, SmallCluster, small_cluster

URL = "ssa://[fd5a:1:2:3:0:0:0:0]"
_numbers = itertools.count(1)


class Site:
    """A small cluster on an event loop in a thread of its own: fsspec's calls block this one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="cluster")
        self._thread.start()
        self._context = small_cluster()
        self.cluster: SmallCluster = self.run(self._context.__aenter__())
        self.options = {
            "service": SERVICE,
            "access_key": KEY,
            "secret_key": SECRET,
            "links": self.cluster.links(),
            "deadline_ms": 2000,
        }

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def filesystem(self, **options: Any) -> SsaFileSystem:
        return SsaFileSystem(**(self.options | options), skip_instance_cache=True)

    def close(self) -> None:
        self.run(self._context.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(scope="module")
def shared(site: Site) -> Iterator[SsaFileSystem]:
    """What fsspec itself hands out for these options, to everybody who asks with the same."""
    yield fsspec.filesystem("ssa", **site.options)
    SsaFileSystem.clear_instance_cache()
    gc.collect()


@pytest.fixture
def bucket(shared: SsaFileSystem) -> Iterator[str]:
    """A new bucket, gone afterwards with all that is in it."""
    name = f"bucket-{next(_numbers)}"
    shared.mkdir(name)
    yield name
    if shared.exists(name):
        shared.rm(name, recursive=True)


class Fixtures(AbstractFixtures):
    """fsspec's suites on a bucket of their own."""

    @pytest.fixture
    def fs(self, shared: SsaFileSystem) -> SsaFileSystem:
        return shared

    @pytest.fixture
    def fs_path(self, bucket: str) -> str:
        return bucket

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        """As s3fs says it of S3: a directory is there only while a key is in it."""
        return False


class TestCopy(AbstractCopyTests, Fixtures):
    pass


class TestGet(AbstractGetTests, Fixtures):
    pass


class TestPut(AbstractPutTests, Fixtures):
    pass


class TestOpen(AbstractOpenTests, Fixtures):
    pass


class TestPipe(AbstractPipeTests, Fixtures):
    pass


def pattern(size: int) -> bytes:
    """Bytes whose every part tells where it lies."""
    return b"".join(at.to_bytes(8, "big") for at in range(0, size + 8, 8))[:size]


BIG = pattern(20 * MIB + 12345)


# -- paths and URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("ssa://photos/a/b", "photos/a/b"),
        ("photos/a/b/", "photos/a/b"),
        ("/photos", "photos"),
        ("ssa://", ""),
        ("", ""),
        ("ssa://[2001:db8:5a:1::]/photos/a", "photos/a"),
        ("ssa://[2001:db8:5a:1::]:7000/photos", "photos"),
        ("ssa://[2001:db8:5a:1::]", ""),
        ("ssa://[2001:db8:5a:1::]/", ""),
        ("ssa://[2001:db8:5a:1::]/photos?replicas=3", "photos"),
        ("ssa://[2001:db8:5a:1::]?replicas=3", ""),
        ("ssa://[2001:db8:5a:1::]/photos/a?b#c", "photos/a?b#c"),
        ("ssa://photos/a?replicas=3", "photos/a?replicas=3"),
        ("ssa://photos//a//b", "photos//a//b"),
        ("photos/[x]\n", "photos/[x]\n"),
    ],
)
def test_path_of_a_url(url: str, path: str) -> None:
    assert SsaFileSystem._strip_protocol(url) == path
    assert SsaFileSystem._strip_protocol([url, "x/"]) == [path, "x"]


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ssa://photos/a", {}),
        ("ssa://[2001:db8:5a:1:0:0:0:0]/a", {"service": "2001:db8:5a:1::/64"}),
        ("ssa://[2001:db8:5a:1::]:7480/a", {"service": "2001:db8:5a:1::/64"}),
        (
            "ssa://[2001:db8:5a:1::]:7000/a/b?replicas=3",
            {"service": "2001:db8:5a:1::/64", "port": 7000, "replicas": 3},
        ),
        ("ssa://store.example/a", {}),
        ("ssa://[store.example]/a", {"service": "store.example"}),
        ("ssa://[store.example]:7000/a", {"service": "store.example", "port": 7000}),
    ],
)
def test_service_of_a_url(url: str, options: dict[str, Any]) -> None:
    assert SsaFileSystem._get_kwargs_from_urls(url) == options


@pytest.mark.parametrize(
    "url", ["ssa://[2001:db8:5a:1::]x/a", "ssa://[2001:db8/a", "ssa://[2001:db8:5a:1::]?x=1"]
)
def test_url_with_half_a_service_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        SsaFileSystem._get_kwargs_from_urls(url)
    with pytest.raises(ConfigError):
        SsaFileSystem._strip_protocol(url)


def test_compressed_prefix_in_a_url_says_what_to_write() -> None:
    """fsspec cuts at ``::`` before it asks us; what is left of the URL must not be taken for a path."""
    with pytest.raises(ConfigError, match="write the zeros"):
        fsspec.open("ssa://[fd5a:1:2:3::]/photos/a")


@pytest.mark.parametrize(
    "service", ["fd5a:1:2:3::/64", "fd5a:1:2:3::", "ssa://[fd5a:1:2:3::]", "ssa://[fd5a:1:2:3::]:7480/x"]
)
def test_spellings_of_a_service(service: str) -> None:
    fs = SsaFileSystem(service)
    assert fs.unstrip_protocol("photos/a") == f"{URL}/photos/a"
    assert fs.unstrip_protocol("ssa://photos/a") == f"{URL}/photos/a"
    assert fs.unstrip_protocol(f"{URL}/photos/a") == f"{URL}/photos/a"


def test_unstripped_url_names_the_port() -> None:
    url = SsaFileSystem("ssa://[fd5a:1:2:3::]:7000").unstrip_protocol("photos/a")
    assert url == "ssa://[fd5a:1:2:3:0:0:0:0]:7000/photos/a"
    assert SsaFileSystem._get_kwargs_from_urls(url) == {"service": SERVICE, "port": 7000}
    assert SsaFileSystem._strip_protocol(url) == "photos/a"


@pytest.mark.parametrize("service", ["store.example", "ssa://store.example", "ssa://[store.example]/x"])
def test_a_name_stands_in_brackets_beside_a_bucket(service: str) -> None:
    """A bucket may have a name with dots in it as well."""
    url = SsaFileSystem(service).unstrip_protocol("photos/a")
    assert url == "ssa://[store.example]/photos/a"
    assert SsaFileSystem._get_kwargs_from_urls(url) == {"service": "store.example"}
    assert SsaFileSystem._strip_protocol(url) == "photos/a"


def test_a_service_is_found_by_its_name(site: Site, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    responder = Responder(zone_of("store.example", Whereabouts((IPv6Network(SERVICE),), ttl_s=60)))
    site.run(responder.start("127.0.0.1", 0))
    monkeypatch.setenv("SSASTORE_NAME_SERVER", f"127.0.0.1:{responder.port}")
    options = {name: value for name, value in site.options.items() if name != "service"}
    with fsspec.open(f"ssa://[store.example]/{bucket}/named", "wb", **options) as file:
        file.write(b"by name")
    assert site.filesystem(service="store.example").cat_file(f"{bucket}/named") == b"by name"
    site.run(responder.close())


@pytest.mark.parametrize("service", ["fd5a::/48", "192.0.2.1", "store", "ssa://store", "ff02::/64"])
def test_bad_service_is_a_configuration_mistake(service: str) -> None:
    with pytest.raises(ConfigError):
        SsaFileSystem(service)


def test_service_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSASTORE_URL", raising=False)
    with pytest.raises(ConfigError, match="SSASTORE_URL"):
        SsaFileSystem()


def test_service_and_keys_from_the_environment(
    site: Site, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    monkeypatch.setenv("SSASTORE_URL", "ssa://[fd5a:1:2:3::]/ignored")
    monkeypatch.setenv("SSASTORE_ACCESS_KEY", KEY)
    monkeypatch.setenv("SSASTORE_SECRET_KEY_FILE", str(secret))
    fs = SsaFileSystem(links=site.cluster.links(), skip_instance_cache=True)
    assert fs.exists(bucket)


def test_wrong_secret_is_a_permission_error(site: Site, bucket: str) -> None:
    fs = site.filesystem(secret_key="wrong")
    with pytest.raises(PermissionError) as caught:
        fs.ls(bucket)
    assert isinstance(caught.value, AccessDenied)
    with pytest.raises(PermissionError):
        fs.isdir(bucket)


# -- fsspec.open ------------------------------------------------------------------------------------


def test_open_by_url(site: Site, bucket: str) -> None:
    options = {name: value for name, value in site.options.items() if name != "service"}
    url = f"{URL}/{bucket}/dir/a.txt"
    with fsspec.open(url, "wb", **options) as file:
        file.write(b"one\ntwo\n")
    with fsspec.open(url, "r", **options) as file:
        assert list(file) == ["one\n", "two\n"]
    fs, path = fsspec.url_to_fs(url, **options)
    assert (type(fs), path) == (SsaFileSystem, f"{bucket}/dir/a.txt")
    assert fs is fsspec.url_to_fs(f"{URL}/elsewhere", **options)[0]


def test_open_with_service_as_option(site: Site, bucket: str) -> None:
    with fsspec.open(f"ssa://{bucket}/a.gz", "wt", compression="gzip", **site.options) as file:
        file.write("packed")
    with fsspec.open(f"ssa://{bucket}/a.gz", "rt", compression="infer", **site.options) as file:
        assert file.read() == "packed"


def test_open_files_by_pattern(site: Site, shared: SsaFileSystem, bucket: str) -> None:
    shared.pipe({f"{bucket}/part-{number}.csv": b"%d" % number for number in range(3)})
    shared.pipe_file(f"{bucket}/other.csv", b"x")
    options = {name: value for name, value in site.options.items() if name != "service"}
    files = fsspec.open_files(f"{URL}/{bucket}/part-*.csv", **options)
    assert [file.path for file in files] == [f"{bucket}/part-{number}.csv" for number in range(3)]
    with files as opened:
        assert [file.read() for file in opened] == [b"0", b"1", b"2"]


def test_methods_take_urls_with_the_service(shared: SsaFileSystem, bucket: str, tmp_path: Path) -> None:
    """Brackets are a pattern to fsspec; those around a prefix are not."""
    url = f"{URL}/{bucket}"
    shared.pipe_file(f"{url}/dir/a", b"a")
    shared.cp(f"{url}/dir/a", f"{url}/copy")
    shared.cp(f"{url}/dir", f"{url}/tree/", recursive=True)
    shared.mv(f"{url}/copy", f"{url}/moved")
    shared.get(f"{url}/moved", str(tmp_path / "got"))
    shared.put(str(tmp_path / "got"), f"{url}/put/")
    assert shared.find(url) == [f"{bucket}/{key}" for key in ("dir/a", "moved", "put/got", "tree/dir/a")]
    assert shared.cat(f"{url}/moved") == b"a"
    shared.rm(f"{url}/dir", recursive=True)
    assert not shared.exists(f"{url}/dir")


def test_mapper(shared: SsaFileSystem, bucket: str) -> None:
    """What zarr 2 and others store through."""
    mapper = shared.get_mapper(f"{bucket}/array", create=True)
    mapper["0.0"] = b"x"
    mapper["group/0.1"] = b"y"
    assert dict(mapper) == {"0.0": b"x", "group/0.1": b"y"}
    del mapper["0.0"]
    with pytest.raises(KeyError):
        mapper["0.0"]
    assert list(mapper) == ["group/0.1"]


def test_local_cache_in_front(site: Site, shared: SsaFileSystem, bucket: str, tmp_path: Path) -> None:
    """fsspec's own layers go by ``ukey``; it changes with the content."""
    shared.pipe_file(f"{bucket}/a", b"one")
    options = {"ssa": site.options, "filecache": {"cache_storage": str(tmp_path), "check_files": True}}
    for content in (b"one", b"two"):
        shared.pipe_file(f"{bucket}/a", content)
        with fsspec.open(f"filecache::ssa://{bucket}/a", "rb", **options) as file:
            assert file.read() == content


# -- big files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [None, 1 * MIB, 7_654_321])
def test_big_file_through_open(shared: SsaFileSystem, bucket: str, block_size: int | None) -> None:
    path = f"{bucket}/big"
    with shared.open(path, "wb", block_size=block_size) as file:
        for start in range(0, len(BIG), 3_000_001):
            assert file.write(BIG[start : start + 3_000_001]) == len(BIG[start : start + 3_000_001])
        assert file.tell() == len(BIG)
    assert shared.size(path) == len(BIG)
    with shared.open(path, "rb", block_size=block_size) as file:
        assert file.size == len(BIG)
        pieces = list(iter(lambda: file.read(2_500_003), b""))
        assert b"".join(pieces) == BIG
    assert shared.cat_file(path) == BIG


def test_writing_is_streamed(shared: SsaFileSystem, bucket: str) -> None:
    """128 MiB pass through a few chunks of memory.

    Method: always the same chunk, which the nodes (in this process too) store once.
    """
    tracemalloc.start()
    try:
        with shared.open(f"{bucket}/streamed", "wb") as file:
            for _ in range(32):
                file.write(BIG[:CHUNK_BYTES])
            assert not shared.exists(f"{bucket}/streamed")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert shared.size(f"{bucket}/streamed") == 128 * MIB
    assert peak < 64 * MIB, f"{peak / MIB:.0f} MiB at most"


@pytest.mark.parametrize("cache_type", ["readahead", "none", "bytes", "blockcache", "all", "background"])
def test_partial_reads(shared: SsaFileSystem, bucket: str, cache_type: str) -> None:
    path = f"{bucket}/big"
    content = BIG[: 9 * MIB + 7]
    shared.pipe_file(path, content)
    with shared.open(path, "rb", block_size=MIB, cache_type=cache_type) as file:
        for start, length in [
            (0, 10),
            (CHUNK_BYTES - 5, 10),
            (2 * CHUNK_BYTES, CHUNK_BYTES + 100),
            (len(content) - 3, 100),
            (len(content), 5),
            (17, 1),
        ]:
            file.seek(start)
            assert file.read(length) == content[start : start + length], (start, length)
        file.seek(-4, io.SEEK_END)
        assert file.read() == content[-4:]
        buffer = bytearray(12)
        file.seek(CHUNK_BYTES - 6)
        assert file.readinto(buffer) == 12
        assert buffer == content[CHUNK_BYTES - 6 : CHUNK_BYTES + 6]


@pytest.mark.parametrize("size", [0, 1, 100, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, CHUNK_BYTES + 1])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        (0, None),
        (10, None),
        (None, 10),
        (-10, None),
        (-10, -3),
        (5, -3),
        (-1000, 7),
        (7, 5),
        (200, 300),
    ],
)
def test_ranges_are_those_of_a_slice(
    shared: SsaFileSystem, bucket: str, size: int, start: int | None, end: int | None
) -> None:
    content = BIG[:size]
    shared.pipe_file(f"{bucket}/a", content)
    assert shared.cat_file(f"{bucket}/a", start=start, end=end) == content[start:end]


def test_many_ranges_at_once(shared: SsaFileSystem, bucket: str) -> None:
    path = f"{bucket}/big"
    shared.pipe_file(path, BIG)
    starts = [0, 5, CHUNK_BYTES - 1, 12 * MIB]
    ends = [5, 10, CHUNK_BYTES + 1, 12 * MIB + 100]
    got = shared.cat_ranges([path] * 4, starts, ends)
    assert got == [BIG[start:end] for start, end in zip(starts, ends, strict=True)]
    missing, there = shared.cat_ranges([f"{bucket}/missing", path], 0, 5)
    assert isinstance(missing, FileNotFoundError)
    assert there == BIG[:5]
    assert shared.head(path, 10) == BIG[:10]
    assert shared.tail(path, 10) == BIG[-10:]
    assert shared.read_block(path, 3, 5) == BIG[3:8]


def test_readers_keep_their_version(shared: SsaFileSystem, bucket: str) -> None:
    """An object that is replaced half way is not read as a mixture."""
    path = f"{bucket}/big"
    shared.pipe_file(path, BIG)
    with shared.open(path, "rb", block_size=MIB) as file:
        first = file.read(100)
        shared.pipe_file(path, b"new")
        assert first + file.read() == BIG
    with shared.open(path, "rb") as file:
        shared.rm(path)
        assert file.read() == b"new"


def test_get_and_put_of_big_files(shared: SsaFileSystem, bucket: str, tmp_path: Path) -> None:
    class Progress(fsspec.callbacks.Callback):
        pass

    (tmp_path / "up").write_bytes(BIG)
    up, down = Progress(), Progress()
    shared.put_file(str(tmp_path / "up"), f"{bucket}/big", callback=up, content_type="image/jpeg")
    shared.get_file(f"{bucket}/big", str(tmp_path / "new" / "down"), callback=down)
    assert (tmp_path / "new" / "down").read_bytes() == BIG
    assert (up.size, up.value, down.size, down.value) == (len(BIG),) * 4
    assert shared.info(f"{bucket}/big")["ContentType"] == "image/jpeg"
    out = io.BytesIO()
    shared.get_file(f"{bucket}/big", out)
    assert out.getvalue() == BIG


def test_copy_keeps_what_is_known(shared: SsaFileSystem, bucket: str) -> None:
    for key, content in (("small", b"x"), ("big", BIG)):
        shared.pipe_file(f"{bucket}/{key}", content, content_type="text/x", metadata={"owner": "me"})
        shared.cp_file(f"{bucket}/{key}", f"{bucket}/copy")
        first, second = shared.info(f"{bucket}/{key}"), shared.info(f"{bucket}/copy")
        assert second["ContentType"] == "text/x"
        assert second["metadata"] == {"owner": "me"}
        assert first["ETag"] == second["ETag"]
        assert shared.cat_file(f"{bucket}/copy") == content


# -- files that fail --------------------------------------------------------------------------------


def test_exception_in_a_with_block_leaves_nothing(shared: SsaFileSystem, bucket: str) -> None:
    shared.pipe_file(f"{bucket}/old", b"old")
    for path in (f"{bucket}/old", f"{bucket}/new"):
        with pytest.raises(RuntimeError, match="half way"), shared.open(path, "wb", block_size=MIB) as file:
            file.write(BIG)
            raise RuntimeError("half way")
    assert shared.find(bucket) == [f"{bucket}/old"]
    assert shared.cat_file(f"{bucket}/old") == b"old"


def test_discarded_file_leaves_nothing(shared: SsaFileSystem, bucket: str) -> None:
    file = shared.open(f"{bucket}/a", "wb", block_size=MIB)
    file.write(BIG)
    file.discard()
    file.close()
    assert file.closed
    with pytest.raises(ValueError, match=r"not in write mode|closed"):
        file.write(b"more")
    file.commit()
    assert not shared.exists(f"{bucket}/a")


@pytest.mark.parametrize("size", [10, 10 * MIB])
def test_unclosed_file_does_not_appear(shared: SsaFileSystem, bucket: str, size: int) -> None:
    file: SsaFile | None = shared.open(f"{bucket}/a", "wb", block_size=MIB)
    assert file is not None
    file.write(BIG[:size])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = None
        gc.collect()
    assert [(warning.category, "never closed" in str(warning.message)) for warning in caught] == [
        (RuntimeWarning, True)
    ]
    assert uploads_under_way(shared) == 0
    assert not shared.exists(f"{bucket}/a")


def uploads_under_way(fs: SsaFileSystem) -> int:
    """What still runs although nobody feeds it any more."""

    async def left() -> int:
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("fsspec ")]
        return len((await asyncio.wait(tasks, timeout=5))[1]) if tasks else 0

    return int(fsspec.asyn.sync(fs.loop, left))


def test_failed_upload_says_why_at_each_turn(shared: SsaFileSystem) -> None:
    file = shared.open("no-such-bucket/a", "wb", block_size=MIB)
    with pytest.raises(FileNotFoundError) as caught:
        for _ in range(20):
            file.write(BIG[: 2 * MIB])
    assert isinstance(caught.value, BucketNotFound)
    with pytest.raises(FileNotFoundError):
        file.close()
    assert file.closed
    with pytest.raises(FileNotFoundError), shared.open("no-such-bucket/a", "wb") as small:
        small.write(b"x")
    assert uploads_under_way(shared) == 0


def test_transaction_shows_all_or_nothing(shared: SsaFileSystem, bucket: str) -> None:
    paths = [f"{bucket}/small", f"{bucket}/big"]

    def write_both() -> None:
        for path, content in zip(paths, (b"x", BIG), strict=True):
            with shared.open(path, "wb", block_size=MIB) as file:
                file.write(content)

    with pytest.raises(RuntimeError, match="no"), shared.transaction:
        write_both()
        raise RuntimeError("no")
    assert shared.find(bucket) == []
    with shared.transaction:
        write_both()
        assert shared.find(bucket) == []
    assert shared.find(bucket) == sorted(paths)
    assert shared.cat_file(f"{bucket}/big") == BIG
    assert uploads_under_way(shared) == 0


@pytest.mark.parametrize("content", [b"mine", BIG])
def test_exclusive_create_is_decided_when_it_is_made(
    shared: SsaFileSystem, bucket: str, content: bytes
) -> None:
    """Two that both saw nothing: one wins, the other is told, nothing is overwritten."""
    path = f"{bucket}/a"
    first, second = (shared.open(path, "xb", block_size=MIB) for _ in range(2))
    first.write(content)
    second.write(content + b"!")
    first.close()
    with pytest.raises(FileExistsError):
        second.close()
    assert shared.cat_file(path) == content
    with pytest.raises(FileExistsError):
        shared.open(path, "xb")


def test_exclusive_create_of_whole_values(shared: SsaFileSystem, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"file")
    shared.put_file(str(tmp_path / "a"), f"{bucket}/a", mode="create")
    for write in (
        lambda: shared.put_file(str(tmp_path / "a"), f"{bucket}/a", mode="create"),
        lambda: shared.pipe_file(f"{bucket}/a", b"value", mode="create"),
    ):
        with pytest.raises(FileExistsError) as caught:
            write()
        assert isinstance(caught.value.__cause__, PreconditionFailed)
    assert shared.cat_file(f"{bucket}/a") == b"file"
    with pytest.raises(ValueError, match="mode"):
        shared.pipe_file(f"{bucket}/a", b"value", mode="append")


@pytest.mark.parametrize("mode", ["ab", "r+b", "w+b"])
def test_modes_that_no_object_has(shared: SsaFileSystem, bucket: str, mode: str) -> None:
    shared.pipe_file(f"{bucket}/a", b"old")
    with pytest.raises(io.UnsupportedOperation):
        shared.open(f"{bucket}/a", mode)
    assert shared.cat_file(f"{bucket}/a") == b"old"


# -- directories ------------------------------------------------------------------------------------


def test_directories_are_what_keys_share(shared: SsaFileSystem, bucket: str) -> None:
    for key in ("a", "dir/b", "dir/sub/c", "dir-x"):
        shared.pipe_file(f"{bucket}/{key}", key.encode())
    assert sorted(shared.ls(bucket, detail=False)) == [f"{bucket}/{key}" for key in ("a", "dir", "dir-x")]
    kinds = {info["name"]: info["type"] for info in shared.ls(f"{bucket}/dir")}
    assert kinds == {f"{bucket}/dir/b": "file", f"{bucket}/dir/sub": "directory"}
    assert shared.ls(f"{bucket}/a", detail=False) == [f"{bucket}/a"]
    assert shared.isdir(f"{bucket}/dir/sub")
    assert not shared.isdir(f"{bucket}/di")
    assert not shared.isdir(f"{bucket}/a")
    assert shared.isfile(f"{bucket}/a")
    assert not shared.isfile(f"{bucket}/dir")
    assert shared.info(f"{bucket}/dir") == {"name": f"{bucket}/dir", "size": 0, "type": "directory"}
    assert list(shared.walk(bucket)) == [
        (bucket, ["dir"], ["a", "dir-x"]),
        (f"{bucket}/dir", ["sub"], ["b"]),
        (f"{bucket}/dir/sub", [], ["c"]),
    ]
    shared.rm(f"{bucket}/dir/sub/c")
    assert not shared.exists(f"{bucket}/dir/sub")


def test_listing_and_info_agree(shared: SsaFileSystem, bucket: str) -> None:
    before = datetime.now(UTC)
    shared.pipe_file(f"{bucket}/a", b"four")
    (entry,) = shared.ls(bucket)
    assert entry == shared.info(f"{bucket}/a")
    assert (entry["name"], entry["size"], entry["type"]) == (f"{bucket}/a", 4, "file")
    assert abs((entry["LastModified"] - before).total_seconds()) < 60
    assert shared.modified(f"{bucket}/a") == shared.created(f"{bucket}/a") == entry["LastModified"]
    assert abs((shared.created(bucket) - before).total_seconds()) < 60
    shared.pipe_file(f"{bucket}/dir/a", b"x")
    with pytest.raises(IsADirectoryError):
        shared.modified(f"{bucket}/dir")


def test_checksum_and_ukey_follow_the_content(shared: SsaFileSystem, bucket: str) -> None:
    path = f"{bucket}/a"

    def marks() -> tuple[int, str]:
        return shared.checksum(path), shared.ukey(path)

    shared.pipe_file(path, b"one")
    first = marks()
    shared.pipe_file(path, b"two")
    second = marks()
    assert first[0] != second[0]
    assert first[1] != second[1]
    shared.pipe_file(path, b"one")
    assert marks() == first
    assert shared.ukey(path) == shared.info(path)["ETag"]
    assert shared.ukey(bucket)


def test_root_lists_buckets(shared: SsaFileSystem, bucket: str) -> None:
    shared.pipe_file(f"{bucket}/dir/a", b"x")
    assert bucket in shared.ls("", detail=False)
    assert shared.ls("ssa://")[0]["type"] == "directory"
    assert shared.isdir("")
    assert shared.exists("ssa://")
    assert bucket in shared.glob(f"{bucket[:-1]}*")
    assert shared.glob("no-such-*") == []
    assert f"{bucket}/dir/a" in shared.find("")
    assert f"{bucket}/dir/a" not in shared.find("", maxdepth=2)
    assert f"{bucket}/dir" in shared.find("", maxdepth=2, withdirs=True)


def test_buckets_are_made_and_removed(shared: SsaFileSystem) -> None:
    name = f"made-{next(_numbers)}"
    with pytest.raises(FileNotFoundError):
        shared.mkdir(f"{name}/dir", create_parents=False)
    shared.mkdir(name)
    with pytest.raises(FileExistsError):
        shared.mkdir(name)
    with pytest.raises(FileExistsError):
        shared.makedirs(name)
    with pytest.raises(FileExistsError):
        shared.makedirs("")
    shared.makedirs(name, exist_ok=True)
    shared.makedirs(f"{name}/dir/sub")
    assert not shared.exists(f"{name}/dir")
    shared.touch(f"{name}/dir/a")
    for path in (name, f"{name}/dir"):
        with pytest.raises(OSError, match="Not empty"):
            shared.rmdir(path)
    with pytest.raises(FileNotFoundError):
        shared.rmdir(f"{name}/other")
    shared.rm(f"{name}/dir/a")
    shared.rmdir(name)
    assert not shared.exists(name)
    with pytest.raises(FileNotFoundError):
        shared.rmdir(name)
    shared.makedirs(f"{name}/dir")
    assert shared.isdir(name)
    shared.rm(name, recursive=True)
    assert not shared.exists(name)
    with pytest.raises(ValueError, match="bucket name"):
        shared.mkdir("No_Bucket")


def test_find_is_one_listing(site: Site, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = site.filesystem()
    keys = [f"{one}/{two}/{three}" for one, two, three in itertools.product("abc", repeat=3)]
    fs.pipe({f"{bucket}/{key}": b"12" for key in keys})
    listings = count_listings(fs, monkeypatch)
    assert fs.find(bucket) == sorted(f"{bucket}/{key}" for key in keys)
    assert fs.du(bucket) == 2 * len(keys)
    assert fs.du(f"{bucket}/a/b", total=False) == {f"{bucket}/a/b/{three}": 2 for three in "abc"}
    assert len(fs.glob(f"{bucket}/**/c")) == 13  # nine files, three directories below a, b, c, and c
    assert listings == ["", "", "a/b/", ""]
    listings.clear()
    assert fs.find(bucket, maxdepth=1) == []
    assert fs.find(bucket, maxdepth=1, withdirs=True) == [bucket, *(f"{bucket}/{one}" for one in "abc")]
    assert fs.glob(f"{bucket}/a*") == [f"{bucket}/a"]
    assert listings == ["", "", "a"]
    assert fs.find(f"{bucket}/a/a/a") == [f"{bucket}/a/a/a"]
    assert fs.find(f"{bucket}/missing") == []
    assert fs.find("no-such-bucket") == []
    with pytest.raises(ValueError, match="maxdepth"):
        fs.find(bucket, maxdepth=0)


def count_listings(fs: SsaFileSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prefixes of all listings from now on."""
    prefixes: list[str] = []

    async def client() -> AsyncClient:
        return await fs.set_session()

    objects = fsspec.asyn.sync(fs.loop, client).objects
    listing = objects.list

    def counted(bucket: str, **options: Any) -> Any:
        prefixes.append(options["prefix"])
        return listing(bucket, **options)

    monkeypatch.setattr(objects, "list", counted)
    return prefixes


def test_listing_of_many_pages(shared: SsaFileSystem, bucket: str) -> None:
    keys = [f"{number:05}" for number in range(2500)]
    shared.pipe({f"{bucket}/{key}": b"" for key in keys})
    assert [path[-5:] for path in shared.ls(bucket, detail=False)] == keys
    assert len(shared.find(bucket)) == len(keys)
    shared.rm(bucket, recursive=True)
    assert not shared.exists(bucket)


def test_object_and_directory_of_one_name(shared: SsaFileSystem, bucket: str) -> None:
    shared.pipe({f"{bucket}/a": b"file", f"{bucket}/a/b": b"below", f"{bucket}/a!": b"between"})
    assert shared.isfile(f"{bucket}/a")
    assert shared.cat_file(f"{bucket}/a") == b"file"
    assert shared.find(bucket) == [f"{bucket}/a", f"{bucket}/a!", f"{bucket}/a/b"]
    shared.rm(f"{bucket}/a", recursive=True)
    assert shared.find(bucket) == [f"{bucket}/a!"]


def test_directory_markers_of_s3_tools(site: Site, shared: SsaFileSystem, bucket: str) -> None:
    """A key that ends with a slash is a directory, never a file; removing the tree takes it along."""
    foreign = site.cluster.client().bucket(bucket)
    for key in ("empty/", "full/", "full/a"):
        site.run(foreign.put(key, b""))
    assert shared.isdir(f"{bucket}/empty")
    assert shared.ls(f"{bucket}/empty") == []
    assert sorted(shared.ls(bucket, detail=False)) == [f"{bucket}/empty", f"{bucket}/full"]
    assert shared.ls(f"{bucket}/full", detail=False) == [f"{bucket}/full/a"]
    assert shared.find(bucket) == [f"{bucket}/full/a"]
    assert f"{bucket}/empty" in shared.find(bucket, withdirs=True)
    shared.rm(f"{bucket}/empty", recursive=True)
    assert not shared.exists(f"{bucket}/empty")
    shared.rm(bucket, recursive=True)
    assert not shared.exists(bucket)


def test_keys_with_empty_parts_end_no_walk(site: Site, shared: SsaFileSystem, bucket: str) -> None:
    """fsspec has no path for them in ``ls``; they must neither loop nor survive the removal of a tree."""
    foreign = site.cluster.client().bucket(bucket)
    for key in ("a//b", "/c", "a/d"):
        site.run(foreign.put(key, key.encode()))
    assert shared.find(bucket) == [f"{bucket}//c", f"{bucket}/a//b", f"{bucket}/a/d"]
    assert shared.find(bucket, withdirs=True) == [bucket, *sorted([*shared.find(bucket), f"{bucket}/a"])]
    assert shared.cat_file(f"{bucket}/a//b") == b"a//b"
    assert shared.cat_file(f"{bucket}//c") == b"/c"
    assert [step[0] for step in shared.walk(bucket)] == [bucket, f"{bucket}/a"]
    assert shared.ls(f"{bucket}/a", detail=False) == [f"{bucket}/a/d"]
    shared.rm(f"{bucket}/a", recursive=True)
    assert shared.find(bucket) == [f"{bucket}//c"]


def test_names_are_taken_as_they_are(shared: SsaFileSystem, bucket: str) -> None:
    for key in ("ä ö/ü", "a?b#c%20", "x" * KEY_BYTES_MAX, "line\nbreak", "..", "a/../b"):
        shared.pipe_file(f"{bucket}/{key}", key.encode())
        assert shared.cat_file(f"{bucket}/{key}") == key.encode()
        assert shared.find(f"{bucket}/{key}") == [f"{bucket}/{key}"]


def test_rm_counts_what_it_removes(shared: SsaFileSystem, bucket: str) -> None:
    keys = ("a", "dir/b", "dir/sub/c", "dir/sub/deep/d", "e1", "e2")
    shared.pipe({f"{bucket}/{key}": b"" for key in keys})
    for path in (f"{bucket}/missing", f"{bucket}/dir", f"{bucket}/x*"):
        with pytest.raises(FileNotFoundError):
            shared.rm(path)
    for path in (f"{bucket}/missing", f"{bucket}/x*", "no-such-bucket"):
        with pytest.raises(FileNotFoundError):
            shared.rm(path, recursive=True)
    with pytest.raises(IsADirectoryError):
        shared.rm(bucket)
    shared.rm(f"{bucket}/e*")
    shared.rm(f"{bucket}/dir", recursive=True, maxdepth=2)
    assert shared.find(bucket) == [f"{bucket}/a", f"{bucket}/dir/sub/deep/d"]
    shared.rm(f"{bucket}/d*", recursive=True, maxdepth=1)
    assert shared.find(bucket) == [f"{bucket}/a", f"{bucket}/dir/sub/deep/d"]
    shared.rm([f"{bucket}/a", f"{bucket}/dir"], recursive=True)
    assert shared.find(bucket) == []
    assert shared.exists(bucket)


def test_mv_of_a_tree(shared: SsaFileSystem, bucket: str) -> None:
    shared.pipe({f"{bucket}/from/{key}": key.encode() for key in ("a", "sub/b", "sub/deep/c")})
    shared.mv(f"{bucket}/from", f"{bucket}/to", recursive=True)
    assert shared.find(bucket) == [f"{bucket}/to/{key}" for key in ("a", "sub/b", "sub/deep/c")]
    assert shared.cat_file(f"{bucket}/to/sub/deep/c") == b"sub/deep/c"


def test_copy_into_a_missing_bucket_is_an_error(shared: SsaFileSystem, bucket: str) -> None:
    """fsspec ignores every FileNotFoundError of a recursive copy; then it would look done."""
    shared.pipe({f"{bucket}/dir/a": b"a"})
    with pytest.raises(FileNotFoundError):
        shared.cp(f"{bucket}/dir", "no-such-bucket/dir", recursive=True)
    with pytest.raises(FileNotFoundError):
        shared.mv(f"{bucket}/dir", "no-such-bucket/dir", recursive=True)
    assert shared.cat_file(f"{bucket}/dir/a") == b"a"


def test_touch(shared: SsaFileSystem, bucket: str) -> None:
    shared.touch(f"{bucket}/a", truncate=False)
    assert shared.size(f"{bucket}/a") == 0
    shared.pipe_file(f"{bucket}/a", b"x")
    with pytest.raises(io.UnsupportedOperation):
        shared.touch(f"{bucket}/a", truncate=False)
    assert shared.size(f"{bucket}/a") == 1
    shared.touch(f"{bucket}/a")
    assert shared.size(f"{bucket}/a") == 0


def test_hashed_bucket_has_files_but_no_directories(shared: SsaFileSystem) -> None:
    name = f"hashed-{next(_numbers)}"
    shared.mkdir(name, shards=0)
    shared.pipe_file(f"{name}/a/b", b"x")
    assert shared.cat_file(f"{name}/a/b") == b"x"
    assert not shared.exists(f"{name}/a")
    for listing in (shared.ls, shared.find):
        with pytest.raises(RequestError, match="hashed"):
            listing(name)
    shared.rm(f"{name}/a/b")
    shared.rmdir(name)


# -- errors -----------------------------------------------------------------------------------------


def test_errors_are_the_built_in_ones(shared: SsaFileSystem, bucket: str, tmp_path: Path) -> None:
    shared.pipe_file(f"{bucket}/dir/a", b"x")
    absent: list[Callable[[str], Any]] = [
        shared.info,
        shared.ls,
        shared.cat_file,
        shared.open,
        shared.rm_file,
        lambda path: shared.get_file(path, str(tmp_path / "x")),
        lambda path: shared.cp_file(path, f"{bucket}/copy"),
    ]
    for call in absent:
        for path in (f"{bucket}/missing", "no-such-bucket/a"):
            with pytest.raises(FileNotFoundError):
                call(path)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ObjectNotFound):
        shared.cat_file(f"{bucket}/dir")
    for call in (shared.cat_file, shared.open, shared.rm_file, lambda path: shared.open(path, "wb")):
        with pytest.raises(IsADirectoryError):
            call(bucket)
    for write in (
        lambda: shared.pipe_file("no-such-bucket/a", b""),
        lambda: shared.touch("no-such-bucket/a"),
    ):
        with pytest.raises(FileNotFoundError):
            write()


def test_names_that_cannot_be_are_not_there(shared: SsaFileSystem, bucket: str) -> None:
    for path in ("No_Bucket", "x", f"{bucket}/{'x' * (KEY_BYTES_MAX + 1)}", f"{bucket}/a\0b"):
        assert not shared.exists(path)
        assert not shared.isdir(path)
        assert shared.find(path) == []
    with pytest.raises(InvalidBucketName):
        shared.pipe_file("No_Bucket/a", b"")
    with pytest.raises(ValueError, match="1024 bytes"):
        shared.pipe_file(f"{bucket}/{'x' * (KEY_BYTES_MAX + 1)}", b"")


def test_unreachable_service_is_no_answer(site: Site) -> None:
    """ "Not there" and "cannot be asked" must not look the same: a copy would go to the wrong place."""
    fs = site.filesystem(links=LoopbackLinks({}), deadline_ms=50)
    for call in (fs.exists, fs.isdir, fs.isfile, fs.ls, fs.find, lambda path: list(fs.walk(path))):
        with pytest.raises(ConnectionError) as caught:
            call("photos/a")
        assert isinstance(caught.value, Unavailable)


def test_unknown_options_of_a_write_are_refused(shared: SsaFileSystem, bucket: str) -> None:
    """A condition that is not understood must not be ignored."""
    with pytest.raises(TypeError, match="if_match"):
        shared.pipe_file(f"{bucket}/a", b"x", if_match="y")
    assert not shared.exists(f"{bucket}/a")


# -- caches, pickles, loops -------------------------------------------------------------------------


def test_listings_are_fresh_unless_a_cache_is_wanted(site: Site, bucket: str) -> None:
    other = site.filesystem()
    for fs, is_stale in ((site.filesystem(), False), (site.filesystem(use_listings_cache=True), True)):
        before = fs.ls(f"{bucket}", detail=False)
        other.pipe_file(f"{bucket}/other-{is_stale}", b"")
        assert (fs.ls(bucket, detail=False) == before) == is_stale
        assert f"{bucket}/other-{is_stale}" in fs.ls(bucket, detail=False, refresh=True)
        assert fs.exists(f"{bucket}/other-{is_stale}")


def test_own_changes_show_through_the_cache(site: Site, bucket: str, tmp_path: Path) -> None:
    fs = site.filesystem(use_listings_cache=True)
    (tmp_path / "up").write_bytes(b"x")

    def open_and_close() -> None:
        with fs.open(f"{bucket}/opened", "wb") as file:
            file.write(b"x")

    def in_a_transaction() -> None:
        with fs.transaction:
            with fs.open(f"{bucket}/dir/later", "wb") as file:
                file.write(b"x")
            names()

    def names() -> list[str]:
        for path in ("", bucket, f"{bucket}/dir"):
            if fs.isdir(path):
                fs.ls(path)
        return [path.removeprefix(f"{bucket}/") for path in sorted(fs.ls(bucket, detail=False))]

    assert names() == []
    changes: list[tuple[Callable[[], Any], list[str]]] = [
        (lambda: fs.pipe_file(f"{bucket}/dir/sub/a", b""), ["dir"]),
        (open_and_close, ["dir", "opened"]),
        (lambda: fs.put_file(str(tmp_path / "up"), f"{bucket}/put"), ["dir", "opened", "put"]),
        (lambda: fs.cp_file(f"{bucket}/put", f"{bucket}/copy"), ["copy", "dir", "opened", "put"]),
        (lambda: fs.rm([f"{bucket}/put", f"{bucket}/copy"]), ["dir", "opened"]),
        (lambda: fs.rm(f"{bucket}/dir", recursive=True), ["opened"]),
        (in_a_transaction, ["dir", "opened"]),
        (lambda: fs.mv(f"{bucket}/opened", f"{bucket}/moved"), ["dir", "moved"]),
        (lambda: fs.touch(f"{bucket}/new"), ["dir", "moved", "new"]),
    ]
    for change, expected in changes:
        change()
        assert names() == expected
    assert fs.ls(f"{bucket}/dir", detail=False) == [f"{bucket}/dir/later"]
    fs.mkdir(f"{bucket}-b")
    assert f"{bucket}-b" in fs.ls("", detail=False)
    fs.rmdir(f"{bucket}-b")
    assert f"{bucket}-b" not in fs.ls("", detail=False)


def test_cache_forgets_what_was_below(site: Site, bucket: str) -> None:
    fs = site.filesystem(use_listings_cache=True)
    fs.pipe_file(f"{bucket}/dir/sub/a", b"")
    assert fs.ls(f"{bucket}/dir/sub", detail=False) == [f"{bucket}/dir/sub/a"]
    fs.rm(f"{bucket}/dir", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{bucket}/dir/sub")


def test_cache_can_be_emptied(site: Site, bucket: str) -> None:
    fs = site.filesystem(use_listings_cache=True)
    assert fs.ls(bucket) == []
    site.filesystem().pipe_file(f"{bucket}/a", b"")
    assert fs.ls(bucket) == []
    fs.invalidate_cache()
    assert fs.ls(bucket, detail=False) == [f"{bucket}/a"]


def test_callers_cannot_change_the_cache(site: Site, bucket: str) -> None:
    fs = site.filesystem(use_listings_cache=True)
    fs.pipe_file(f"{bucket}/a", b"x")
    fs.ls(bucket)[0]["size"] = 99
    assert fs.ls(bucket)[0]["size"] == 1


def test_filesystem_and_open_file_survive_pickling(shared: SsaFileSystem, bucket: str) -> None:
    path = f"{bucket}/a"
    shared.pipe_file(path, b"0123456789")
    again = pickle.loads(pickle.dumps(shared))
    assert again.cat_file(path) == b"0123456789"
    with shared.open(path, "rb") as file:
        file.seek(4)
        pickled = pickle.dumps(file)
    with pickle.loads(pickled) as file:
        assert file.read() == b"456789"
    shared.pipe_file(path, b"abcdefghij")
    with pytest.raises(PreconditionFailed):
        pickle.loads(pickled)
    with shared.open(path, "wb") as file, pytest.raises(RuntimeError):
        pickle.dumps(file)


def test_two_threads_share_a_filesystem(shared: SsaFileSystem, bucket: str) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(20):
                path = f"{bucket}/{name}/{number}"
                with shared.open(path, "wb", block_size=1000) as file:
                    file.write(name.encode() * 2000)
                assert shared.cat_file(path) == name.encode() * 2000
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(shared.find(bucket)) == 60


@asynccontextmanager
async def asynchronous(site: Site) -> Any:
    fs = site.filesystem(asynchronous=True)
    try:
        yield fs
    finally:
        await (await fs.set_session()).close()


async def test_asynchronous_use_on_a_loop_of_ones_own(site: Site, bucket: str) -> None:
    async with asynchronous(site) as fs:
        await fs._pipe({f"{bucket}/{number}": b"%d" % number for number in range(5)})
        assert await fs._cat([f"{bucket}/1", f"{bucket}/2"]) == {f"{bucket}/1": b"1", f"{bucket}/2": b"2"}
        assert len(await fs._find(bucket)) == 5
        assert [step[0] async for step in fs._walk(bucket)] == [bucket]


def test_asynchronous_instance_moves_on_when_its_loop_has_ended(site: Site, bucket: str) -> None:
    """``asyncio.run`` twice is two loops; the connections of the first are of no use to the second."""
    fs = site.filesystem(asynchronous=True)

    async def use() -> bool:
        try:
            return bool(await fs._exists(bucket))
        finally:
            await (await fs.set_session()).close()

    assert asyncio.run(use())
    assert asyncio.run(use())


async def test_instance_of_another_loop_is_refused(shared: SsaFileSystem, bucket: str) -> None:
    await asyncio.to_thread(shared.ls, bucket)
    with pytest.raises(RuntimeError, match="another event loop"):
        await shared._ls(bucket)


def test_client_is_closed_with_the_filesystem(site: Site, bucket: str) -> None:
    fs: SsaFileSystem | None = site.filesystem()
    assert fs is not None
    assert fs.exists(bucket)
    client = fsspec.asyn.sync(fs.loop, fs.set_session)
    assert client.pool.connection_count
    close_client(fs.loop, client, os.getpid() + 1)
    assert client.pool.connection_count, "a forked child closed the connections of its parent"
    fs = None
    gc.collect()
    assert client.pool.connection_count == 0


SCRIPT = """
import os, sys, pickle, fsspec
options = pickle.load(sys.stdin.buffer)
path = sys.argv[1]
fs = fsspec.filesystem("ssa", **options)
fs.pipe_file(path, b"parent")
child = os.fork()
if child == 0:
    try:
        fs.cat_file(path)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        os._exit(3)
    fresh = fsspec.filesystem("ssa", **options)
    assert fresh is not fs
    del fs
    os._exit(0 if fresh.cat_file(path) == b"parent" else 4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert fs.cat_file(path) == b"parent"
print("done")
"""


def test_fork_and_exit_are_quiet(site: Site, bucket: str) -> None:
    """A child uses an instance of its own, and Python ends without a warning about open connections."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, f"{bucket}/a"]
    ended = subprocess.run(command, input=pickle.dumps(site.options), capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"done\n", b"")


def test_as_json(bucket: str) -> None:
    """Dask and others send file systems about like this."""
    fs = SsaFileSystem(service=SERVICE, access_key=KEY)
    again = fsspec.AbstractFileSystem.from_json(fs.to_json())
    assert again is fs
    assert json.loads(fs.to_json())["protocol"] == "ssa"
