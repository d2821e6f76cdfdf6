"""``ssastore bench`` against a small cluster: its figures, what it leaves, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from ssastore.client import AsyncBucket
from ssastore.errors import Unavailable
from tests.cli.conftest import Done, serving

Run = Callable[..., Done]
QUICK = ("--seconds", "0.2", "--inflight", "4")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serving(monkeypatch):
        yield


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--op list", "is not one of"),
        ("--size -1", "is no size"),
        ("--size 65M", "at most 64.0 MiB"),
        ("--size big", "is no size"),
        ("--inflight 0", "not in the range"),
        ("--seconds 0", "not in the range"),
        ("--seconds nan", "no number of seconds"),
        ("bucket", "unexpected extra argument"),
    ],
)
def test_bad_arguments_are_refused(ssastore: Run, line: str, text: str) -> None:
    done = ssastore("bench", *line.split())
    assert done.code == 2
    assert text in done.err


def test_every_operation_is_measured_and_nothing_is_left(ssastore: Run, cluster: None) -> None:
    ops = ("put", "get", "hot", "overwrite", "mixed")
    done = ssastore("bench", *QUICK, "--json", "--size", "64", *[text for op in ops for text in ("--op", op)])
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["op"] for row in rows] == list(ops)
    for row in rows:
        assert (row["size"], row["inflight"], row["failed"], row["reason"]) == (64, 4, 0, "")
        assert row["ops"] > 0
        assert row["ops_per_s"] == pytest.approx(row["ops"] / row["seconds"], rel=0.01)
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p999_ms"]
    assert ssastore("ls").out == ""


def test_people_get_a_table(ssastore: Run, cluster: None) -> None:
    done = ssastore("bench", *QUICK, "--op", "get", "--size", "4K", "--size", "100K")
    assert done.code == 0, done.err
    head, first, second = done.out.splitlines()
    assert "ops/s" in head and "p99.9 ms" in head
    assert first.split()[:4] == ["get", "4.0", "KiB", "4"]
    assert second.split()[:4] == ["get", "100.0", "KiB", "4"]
    assert len(head) == len(first) == len(second)


def test_what_is_kept_is_named(ssastore: Run, cluster: None) -> None:
    done = ssastore("bench", *QUICK, "--op", "put", "--keep")
    name = done.err.split()[-1]
    assert name.startswith("bench-")
    assert name in ssastore("ls").out


@pytest.mark.parametrize("keep", [False, True])
def test_what_fails_while_objects_are_filled_in_is_an_error_in_a_line(
    ssastore: Run, cluster: None, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    real, calls = AsyncBucket.put, 0

    async def put(bucket: AsyncBucket, key: str, data: bytes) -> object:
        nonlocal calls
        calls += 1
        if calls >= 30:
            raise Unavailable("no way there")
        return await real(bucket, key, data)

    monkeypatch.setattr(AsyncBucket, "put", put)
    done = ssastore("bench", *QUICK, "--op", "get", *(["--keep"] if keep else []))
    assert done.code == 5
    assert "ssastore: no way there" in done.err
    assert ("kept: bucket bench-" in done.err) is keep
    assert bool(ssastore("ls").out) is keep


def test_a_wrong_answer_ends_it(ssastore: Run, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(bucket: AsyncBucket, key: str) -> bytes:
        return b"another"

    monkeypatch.setattr(AsyncBucket, "get", get)
    done = ssastore("bench", *QUICK, "--op", "get")
    assert done.code != 0
    assert "is another value" in done.err


def test_a_bucket_that_cannot_be_removed_is_named(
    ssastore: Run, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delete(bucket: AsyncBucket, key: str) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(AsyncBucket, "delete", delete)
    done = ssastore("bench", *QUICK, "--op", "put")
    assert done.code == 5
    assert "left behind: bucket bench-" in done.err


def test_failures_are_said_and_end_with_1(
    ssastore: Run, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = AsyncBucket.get, 0

    async def get(bucket: AsyncBucket, key: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise Unavailable("no way there")
        return await real(bucket, key)

    monkeypatch.setattr(AsyncBucket, "get", get)
    done = ssastore("bench", *QUICK, "--op", "get")
    assert done.code == 1
    assert "Unavailable: no way there" in done.out
    assert ssastore("ls").out == "", "what was written goes all the same"
