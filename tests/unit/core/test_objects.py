"""What put, get, head, delete and list mean, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.metadata import Metadata
from ssastore.core.objects import CommonPrefix, ObjectInfo, ObjectReader, Objects
from ssastore.core.registers import ALWAYS, IF_ABSENT, When, key_bytes, when
from ssastore.errors import (
    BucketNotFound,
    InvalidKey,
    ObjectNotFound,
    ObjectTooLarge,
    PreconditionFailed,
    RangeNotSatisfiable,
    RequestError,
    Unavailable,
)
from ssastore.limits import INLINE_BYTES_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX
from ssastore.messages import Condition, Kind, Put, Scan
from tests.direct import DirectCaller, SeededRandomness

NAME = "photos"


def client(caller: DirectCaller, seed: int = 1) -> Objects:
    return Objects(caller, caller.clock, SeededRandomness(seed))


STAMPED = [Condition.IF_SAME, Condition.AMEND]


@pytest.fixture
async def objects() -> Objects:
    made = client(DirectCaller())
    await made.buckets.create(NAME, shards=4)
    return made


async def put(objects: Objects, key: str, data: bytes = b"", **options: Any) -> ObjectInfo:
    """As a front end does: inline when small, else in blobs."""
    writer = objects.writer(await objects.buckets.read(NAME), key_bytes(key))
    await writer.write(data)
    return await objects.commit(NAME, key, await writer.finish(), "etag of " + key[:5], **options)


async def get(objects: Objects, key: str, start: int = 0, length: int | None = None) -> bytes:
    return await (await objects.open(NAME, key)).narrow(start, length).read()


async def shown(objects: Objects, **options: Any) -> list[str]:
    """Keys, and common prefixes in brackets."""
    return [
        f"<{entry.prefix}>" if isinstance(entry, CommonPrefix) else entry.key
        async for entry in objects.list(NAME, **options)
    ]


# -- keys and conditions ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513, "a\0b", "\0", "\ud800"])
async def test_impossible_key_is_refused_before_anything_is_sent(key: str) -> None:
    caller = DirectCaller()
    objects = client(caller)
    for work in (
        objects.commit(NAME, key, Content(0), "e"),
        objects.open(NAME, key),
        objects.head(NAME, key),
        objects.delete(NAME, key),
    ):
        with pytest.raises(InvalidKey):
            await work
    assert not caller.calls


@pytest.mark.parametrize("key", ["k" * KEY_BYTES_MAX, "é" * 512, "\U0001f600" * 256, "/", " ", "\n", "%00"])
async def test_every_other_key_is_an_object(objects: Objects, key: str) -> None:
    await put(objects, key, b"data")
    assert await get(objects, key) == b"data"
    assert await shown(objects) == [key]
    assert (await objects.head(NAME, key)).key == key


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "expected"),
    [
        (None, None, ALWAYS),
        (None, "*", IF_ABSENT),
        ("*", None, When(Condition.IF_PRESENT)),
        ("tag", None, When(Condition.IF_ETAG, "tag")),
    ],
)
def test_condition_of_the_arguments(if_match: str | None, if_none_match: str | None, expected: When) -> None:
    assert when(if_match, if_none_match) == expected


@pytest.mark.parametrize(("if_match", "if_none_match"), [(None, "tag"), ("tag", "*"), ("*", "*")])
def test_condition_that_nobody_can_mean(if_match: str | None, if_none_match: str | None) -> None:
    with pytest.raises(ValueError, match="if_none_match"):
        when(if_match, if_none_match)


async def test_conditional_writes(objects: Objects) -> None:
    with pytest.raises(ObjectNotFound):
        await put(objects, "k", b"x", demand=Demand("*"))
    made = await put(objects, "k", b"one", demand=Demand(if_none_match="*"))
    with pytest.raises(PreconditionFailed):
        await put(objects, "k", b"two", demand=Demand(if_none_match="*"))
    with pytest.raises(PreconditionFailed):
        await put(objects, "k", b"two", demand=Demand("other"))
    await put(objects, "k", b"two", demand=Demand(made.etag))
    with pytest.raises(PreconditionFailed):
        await objects.delete(NAME, "k", demand=Demand("other"))
    assert (await objects.delete(NAME, "k", demand=Demand(made.etag))).existed
    with pytest.raises(ObjectNotFound):
        await objects.delete(NAME, "k", demand=Demand(made.etag))
    assert not (await objects.delete(NAME, "k")).existed


async def test_one_of_many_conditional_writes_wins(objects: Objects) -> None:
    results = await asyncio.gather(
        *[put(objects, "k", b"%d" % number, demand=Demand(if_none_match="*")) for number in range(20)],
        return_exceptions=True,
    )
    assert sum(isinstance(result, ObjectInfo) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 19


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", STAMPED)
@pytest.mark.parametrize(
    "other", ["none", "same bytes later", "other headers at once", "deleted", "made again"]
)
async def test_a_write_that_means_one_state_of_a_record(
    objects: Objects, condition: Condition, other: str
) -> None:
    """An ETag cannot tell these states apart: all are written with the same bytes."""
    caller = objects.registers._caller
    assert isinstance(caller, DirectCaller)
    await put(objects, "k", b"1")
    found = await objects.find(NAME, "k")
    if other != "none":
        caller.clock.ms += 1 if "later" in other or "again" in other else 0
        if other in ("deleted", "made again"):
            await objects.delete(NAME, "k")
        if other != "deleted":
            await put(objects, "k", b"1", headers={"expires": "0"} if "headers" in other else None)
    place = (await objects.bucket(NAME)).place
    caller.clock.ms += 1000
    write = objects.registers.put(
        place, Kind.OBJECT, b"k", Metadata("new", 1), b"2", condition=When(condition, found.stamp)
    )
    if other == "none":
        written_ms = await write
        assert await get(objects, "k") == b"2"
        assert written_ms == (found.modified_ms if condition == Condition.AMEND else caller.clock.ms)
        return
    with pytest.raises(ObjectNotFound if other == "deleted" else PreconditionFailed):
        await write


async def test_what_is_said_of_an_object_changes_and_it_stays(objects: Objects) -> None:
    caller = objects.registers._caller
    assert isinstance(caller, DirectCaller)
    data = b"x" * (INLINE_BYTES_MAX + 1)
    for key, content in (("small", b"data"), ("large", data)):
        before = await put(objects, key, content)
        caller.clock.ms += 60_000
        await objects.amend(NAME, key, lambda known: replace(known, extra={"tags": {"a": "b"}}))
        after = await objects.head(NAME, key)
        assert after.extra == {"tags": {"a": "b"}}
        assert (after.etag, after.modified_ms) == (before.etag, before.modified_ms)
        assert await get(objects, key) == content
    with pytest.raises(ObjectNotFound):
        await objects.amend(NAME, "absent", lambda known: known)


async def test_changes_of_what_is_said_are_all_there(objects: Objects) -> None:
    await put(objects, "k", b"data")

    def tag(number: int) -> Callable[[Metadata], Metadata]:
        return lambda known: replace(known, extra=known.extra | {f"t{number}": number})

    await asyncio.gather(*[objects.amend(NAME, "k", tag(number)) for number in range(8)])
    assert (await objects.head(NAME, "k")).extra == {f"t{number}": number for number in range(8)}


async def test_what_is_put_is_what_is_read(objects: Objects) -> None:
    headers, user = {"content-type": "text/plain"}, {"name": "välue"}
    info = await put(objects, "k", b"data", headers=headers, metadata=user, extra={"n": 1})
    assert await objects.head(NAME, "k") == info
    reader = await objects.open(NAME, "k")
    assert (reader.info, reader.size) == (info, 4)
    assert (info.size, info.headers, info.metadata, info.extra) == (4, headers, user, {"n": 1})
    assert [entry async for entry in objects.list(NAME)] == [ObjectInfo("k", 4, info.etag, info.modified_ms)]


async def test_overwritten_object_has_nothing_of_the_old(objects: Objects) -> None:
    await put(objects, "k", b"long data", metadata={"a": "b"})
    await put(objects, "k", b"")
    info = await objects.head(NAME, "k")
    assert (info.size, info.metadata, await get(objects, "k")) == (0, {}, b"")


async def test_too_much_metadata_changes_nothing(objects: Objects) -> None:
    with pytest.raises(ObjectTooLarge):
        await put(objects, "k", b"data", metadata={"a": "b" * METADATA_BYTES_MAX})
    with pytest.raises(ObjectNotFound):
        await objects.head(NAME, "k")


DATA = bytes(range(200))
RANGES = [
    (0, None, DATA),
    (0, 0, b""),
    (0, 1, DATA[:1]),
    (5, 10, DATA[5:15]),
    (199, None, DATA[199:]),
    (199, 50, DATA[199:]),
    (-1, None, DATA[-1:]),
    (-50, 10, DATA[150:160]),
    (-200, None, DATA),
    (-500, None, DATA),
    (-500, 10, DATA[:10]),
    (0, 10**12, DATA),
    (0, -5, b""),
]


@pytest.mark.parametrize(("start", "length", "expected"), RANGES)
@pytest.mark.parametrize("is_inline", [True, False], ids=["inline", "blobs"])
async def test_ranges(
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    length: int | None,
    expected: bytes,
    is_inline: bool,
) -> None:
    if not is_inline:
        monkeypatch.setattr("ssastore.core.content.CHUNK_BYTES", 7)
    await store(objects, DATA, is_inline)
    assert await get(objects, "k", start, length) == expected
    reader = (await objects.open(NAME, "k")).narrow(start, length)
    assert b"".join([bytes(chunk) async for chunk in reader]) == expected
    assert reader.size == len(expected)


async def store(objects: Objects, data: bytes, is_inline: bool) -> None:
    bucket = await objects.buckets.read(NAME)
    writer = objects.writer(bucket, b"k", inline_bytes_max=INLINE_BYTES_MAX if is_inline else 0)
    await writer.write(data)
    stored = await writer.finish()
    assert bool(stored.segments) is not is_inline
    await objects.commit(NAME, "k", stored, "e")


@pytest.mark.parametrize("start", [200, 201, 10**12])
async def test_range_behind_the_end(objects: Objects, start: int) -> None:
    await put(objects, "k", DATA)
    with pytest.raises(RangeNotSatisfiable):
        await get(objects, "k", start)


async def test_ranges_of_an_empty_object(objects: Objects) -> None:
    await put(objects, "k", b"")
    for start, length in ((0, None), (0, 5), (-1, None), (-5, 2)):
        assert await get(objects, "k", start, length) == b""
    with pytest.raises(RangeNotSatisfiable):
        await get(objects, "k", 1)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1])
async def test_sizes_about_the_inline_bound(objects: Objects, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    info = await put(objects, "k", data)
    assert info.size == size and await get(objects, "k") == data
    assert "PutBlob" not in calls(objects) or size > INLINE_BYTES_MAX


def calls(objects: Objects) -> list[str]:
    caller = objects.registers._caller
    assert isinstance(caller, DirectCaller)
    return caller.calls


async def test_reader_sees_one_version(objects: Objects) -> None:
    """An object that is replaced while it is read: the old bytes to the end, never a mixture."""
    await store(objects, b"a" * 100, is_inline=False)
    reader = await objects.open(NAME, "k")
    assert isinstance(reader, ObjectReader)
    await store(objects, b"b" * 100, is_inline=False)
    assert await reader.read() == b"a" * 100


async def test_bucket_made_again_during_an_upload_gets_nothing(objects: Objects) -> None:
    """The blobs were stored for a record of the old bucket; a record of the new one cannot keep them."""
    writer = objects.writer(await objects.bucket(NAME), b"k", inline_bytes_max=0)
    await writer.write(b"data")
    stored = await writer.finish()
    other = client(objects.registers._caller, 2)  # type: ignore[arg-type]
    await other.buckets.delete(NAME)
    await other.buckets.create(NAME)
    with pytest.raises(BucketNotFound):
        await objects.commit(NAME, "k", stored, "e")
    with pytest.raises(ObjectNotFound):
        await other.head(NAME, "k")


# -- repetition -------------------------------------------------------------------------------------


class Twice(DirectCaller):
    """Sends every message twice, as when each first answer is lost."""

    async def call(self, message: Any, iid: int, body: Any = b"", **options: Any) -> Any:
        try:
            await super().call(message, iid, body, **options)
        except (PreconditionFailed, ObjectNotFound):
            pass
        return await super().call(message, iid, body)


async def test_everything_twice_is_as_once() -> None:
    objects = client(Twice())
    await objects.buckets.create(NAME, shards=2)
    made = await put(objects, "k", b"one", demand=Demand(if_none_match="*"))
    await put(objects, "k", b"two", demand=Demand(made.etag))
    await put(objects, "l", bytes(INLINE_BYTES_MAX + 1))
    assert (await objects.delete(NAME, "k", demand=Demand(made.etag))).existed
    assert await shown(objects) == ["l"]
    assert (await objects.delete(NAME, "l")).existed
    await objects.buckets.delete(NAME)


# -- listing ----------------------------------------------------------------------------------------

TREE = ["a", "a/", "a/b", "a/c/d", "a0", "b", "b/c", "é/x", "\U0001f600", "z/"]


async def test_listing_is_in_byte_order(objects: Objects) -> None:
    """U+1F600 sorts after U+FFxx in UTF-8, before them in UTF-16: bytes decide."""
    keys = [*TREE, "\uff5e"]
    for key in keys:
        await put(objects, key)
    assert await shown(objects) == sorted(keys, key=str.encode)
    assert (await shown(objects))[-2:] == ["\uff5e", "\U0001f600"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"delimiter": "/"}, ["a", "<a/>", "a0", "b", "<b/>", "<z/>", "<é/>", "\U0001f600"]),
        ({"prefix": "a/", "delimiter": "/"}, ["a/", "a/b", "<a/c/>"]),
        ({"prefix": "a"}, ["a", "a/", "a/b", "a/c/d", "a0"]),
        ({"prefix": "é"}, ["é/x"]),
        ({"start_after": "a/"}, ["a/b", "a/c/d", "a0", "b", "b/c", "z/", "é/x", "\U0001f600"]),
        ({"start_after": "a/", "delimiter": "/"}, ["a0", "b", "<b/>", "<z/>", "<é/>", "\U0001f600"]),
        ({"start_after": "z/", "delimiter": "/"}, ["<é/>", "\U0001f600"]),
        ({"start_after": "\U0001f600"}, []),
        ({"prefix": "nothing"}, []),
        ({"delimiter": "nothing"}, sorted(TREE, key=str.encode)),
    ],
)
async def test_listing_by_prefix_delimiter_and_start(
    objects: Objects, options: dict[str, str], expected: list[str]
) -> None:
    for key in TREE:
        await put(objects, key)
    for page_size in (1, 1000):
        assert await shown(objects, **options, page_size=page_size) == expected


@given(
    keys=st.sets(st.text("ab/é", min_size=1, max_size=5), max_size=25),
    removed=st.sets(st.text("ab/é", min_size=1, max_size=5), max_size=8),
    prefix=st.text("ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "b", "//"]),
    page_size=st.sampled_from([1, 5, 1000]),
)
@settings(max_examples=40)
def test_listing_in_pages_of_any_size_is_the_whole(
    keys: set[str], removed: set[str], prefix: str, delimiter: str, page_size: int
) -> None:
    """A front end lists in pages, each from the last entry of the one before: nothing twice, nothing lost."""

    async def run() -> None:
        objects = client(DirectCaller())
        await objects.buckets.create(NAME, shards=4)
        for key in keys:
            await put(objects, key)
        for key in removed:
            await objects.delete(NAME, key)
        whole = await shown(objects, prefix=prefix, delimiter=delimiter)
        assert whole == await shown(objects, prefix=prefix, delimiter=delimiter, page_size=page_size)
        found: list[str] = []
        while True:
            after = found[-1].strip("<>") if found else ""
            entries = objects.list(NAME, prefix=prefix, delimiter=delimiter, start_after=after)
            page = [entry async for entry in entries][:page_size]
            if not page:
                break
            found += [f"<{e.prefix}>" if isinstance(e, CommonPrefix) else e.key for e in page]
        assert found == whole
        assert await shown(objects) == sorted(keys - removed, key=str.encode)

    asyncio.run(run())


async def test_listing_fails_rather_than_be_short(objects: Objects) -> None:
    for number in range(20):
        await put(objects, f"k{number}")
    caller = objects.registers._caller
    assert isinstance(caller, DirectCaller)

    async def hook(message: Any) -> None:
        if isinstance(message, Scan) and message.shard == 3:
            raise Unavailable("slice 0123")

    caller.hook = hook
    with pytest.raises(Unavailable):
        await shown(objects)


async def test_hashed_bucket_has_no_listing_and_no_uploads() -> None:
    objects = client(DirectCaller())
    bucket = await objects.buckets.create(NAME, shards=0)
    with pytest.raises(RequestError):
        await shown(objects)
    with pytest.raises(RequestError):
        objects.multipart(bucket)
    await put(objects, "k", b"data")
    assert await get(objects, "k") == b"data"


async def test_write_is_refused_once_and_no_more(objects: Objects) -> None:
    """A bucket that stays shut though its record is active: the write ends after the second refusal."""
    caller = objects.registers._caller
    assert isinstance(caller, DirectCaller)
    tries = 0

    async def hook(message: Any) -> None:
        nonlocal tries
        if isinstance(message, Put):
            tries += 1
            raise BucketNotFound("shut")

    caller.hook = hook
    with pytest.raises(BucketNotFound):
        await put(objects, "k")
    assert tries == 2
