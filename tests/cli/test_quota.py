"""``ssastore quota``: bad arguments, and the whole of it against a small cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from ssastore.client import AsyncClient
from tests.cli.conftest import Done, serving

Run = Callable[..., Done]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("quota", "Usage: ssastore quota"),
        ("quota set", "Missing argument 'BUCKET'"),
        ("quota set photos", "give --bytes, --objects, or both"),
        ("quota set photos --bytes", "requires an argument"),
        ("quota set photos --bytes ten", "is no size"),
        ("quota set photos --bytes 10X", "is no size"),
        ("quota set photos --bytes -1", "is no size"),
        ("quota set photos --bytes G", "is no size"),
        ("quota set photos --objects -1", "not in the range"),
        ("quota set photos --objects 1.5", "not a valid integer"),
        ("quota clear", "Missing argument 'BUCKET'"),
        ("quota show a b", "unexpected extra argument"),
    ],
)
def test_bad_arguments_are_refused(ssastore: Run, line: str, text: str) -> None:
    done = ssastore(*line.split())
    assert done.code == 2
    assert text in done.err


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a cluster that the commands reach, with three objects of ten bytes in it."""

    async def fill(client: AsyncClient) -> None:
        photos = await client.create_bucket("photos", shards=4)
        for number in range(3):
            await photos.put(f"k{number}", b"x" * 10)

    with serving(monkeypatch, fill):
        yield "photos"


def test_a_quota_is_set_shown_and_cleared(ssastore: Run, bucket: str) -> None:
    assert ssastore("quota", "show").out == "no quota\n"
    done = ssastore("quota", "set", bucket, "--bytes", "1K", "--objects", "5", "--json")
    (row,) = json.loads(done.out)
    assert (done.code, row["bucket"]) == (0, "photos")
    assert row["bytes"] == {"used": 30, "reserved": 30, "limit": 1024}
    assert row["objects"] == {"used": 3, "reserved": 3, "limit": 5}
    lines = ssastore("quota", "show", bucket).out.splitlines()
    assert lines[0].split() == ["BUCKET", "USED", "RESERVED", "LIMIT"]
    assert lines[1].split() == ["photos", "bytes", "30", "30", "1024"]
    assert lines[2].split() == ["objects", "3", "3", "5"]
    ssastore("quota", "set", bucket, "--bytes", "50")
    assert ssastore("quota", "show").out.splitlines()[2].split() == ["objects", "3", "-", "-"]
    assert ssastore("quota", "clear", bucket).out == "photos has no quota\n"
    assert json.loads(ssastore("quota", "show", bucket, "--json").out) == []


def test_what_is_put_beyond_the_quota_is_refused_with_a_reason(ssastore: Run, bucket: str) -> None:
    ssastore("quota", "set", bucket, "--objects", "3")
    done = ssastore("put", f"{bucket}/more", __file__)
    assert done.code != 0
    assert "more than its quota allows" in done.err


def test_a_bucket_that_is_not_there_is_said(ssastore: Run, bucket: str) -> None:
    done = ssastore("quota", "set", "nobody", "--objects", "3")
    assert done.code != 0
    assert "no bucket" in done.err
