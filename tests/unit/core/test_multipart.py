"""Multipart uploads: one change at the end, whatever is repeated, overtaken or dies half way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssastore.core import content
from ssastore.core.buckets import Bucket
from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.multipart import Completed, Multipart, Part
from ssastore.core.objects import Objects
from ssastore.core.parts import parts_of
from ssastore.errors import (
    InvalidPart,
    InvalidPartOrder,
    ObjectNotFound,
    ObjectTooLarge,
    OutcomeUnknown,
    PartTooSmall,
    PreconditionFailed,
    QuotaExceeded,
    StoreFull,
    UploadNotFound,
)
from ssastore.limits import METADATA_BYTES_MAX, PARTS_MAX, RECENT_OPS_MAX
from ssastore.messages import Delete, Kind, Put
from tests.direct import DirectCaller, SeededRandomness

KEY = b"film"
NAME = "photos"
CHUNK = 512


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.core.multipart.PART_BYTES_MIN", 10)
    monkeypatch.setattr(content, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(content, "SEGMENTS_MAX", 4)
    monkeypatch.setattr(content, "_MANIFEST_SEGMENTS", 8)


class World:
    """A bucket and its uploads, over a caller that the test can stop."""

    def __init__(self) -> None:
        self.caller = DirectCaller()
        self.objects = Objects(self.caller, self.caller.clock, SeededRandomness())
        self.bucket: Bucket
        self.uploads: Multipart

    async def begin(self) -> None:
        self.bucket = await self.objects.buckets.create(NAME, shards=4)
        self.uploads = self.objects.multipart(self.bucket)

    async def upload(self, *parts: bytes, key: bytes = KEY) -> tuple[str, list[tuple[int, str]]]:
        """A new upload with these parts: its id, and what completes it."""
        upload_id = await self.uploads.create(key, {"content-type": "film"}, {"n": "v"})
        named = [await self.part(upload_id, number, data, key) for number, data in enumerate(parts, 1)]
        return upload_id, named

    async def part(self, upload_id: str, number: int, data: bytes, key: bytes = KEY) -> tuple[int, str]:
        writer = self.objects.writer(self.bucket, key, inline_bytes_max=0)
        await writer.write(data)
        etag = f"{number}-{data[:8].hex()}"
        await self.uploads.put_part(key, upload_id, number, etag, await writer.finish())
        return number, etag

    async def get(self, key: str = KEY.decode()) -> bytes:
        return await (await self.objects.open(NAME, key)).read()

    async def put(self, data: bytes) -> None:
        await self.objects.commit(NAME, KEY.decode(), Content(len(data), data), "plain")

    async def open_uploads(self) -> list[tuple[bytes, str]]:
        return [(upload.key, upload.upload_id) async for upload in self.uploads.uploads(b"", b"")]

    async def leftovers(self) -> int:
        """Live records of uploads and parts."""
        count = 0
        for kind in (Kind.UPLOAD, Kind.PART):
            for shard in range(4):
                page = await self.objects.registers.shards.page(self.bucket.place, kind, shard, limit=1000)
                count += len(page.rows)
        return count


@pytest.fixture
async def world() -> World:
    made = World()
    await made.begin()
    return made


ONE, TWO, LAST = b"1" * 700, b"2" * 10, b"3"


async def test_parts_become_one_object(world: World) -> None:
    upload_id, parts = await world.upload(ONE, TWO, LAST)
    with pytest.raises(ObjectNotFound):
        await world.get()
    made = await world.uploads.complete(KEY, upload_id, parts, "tag-3")
    assert (made.etag, made.size) == ("tag-3", 711)
    assert await world.get() == ONE + TWO + LAST
    info = await world.objects.head(NAME, "film")
    assert (info.etag, info.size, info.modified_ms) == (made.etag, made.size, made.modified_ms)
    assert (info.headers, info.metadata) == ({"content-type": "film"}, {"n": "v"})
    assert made.extra == info.extra
    assert {name: info.extra[name] for name in ("upload", "parts")} == {"upload": upload_id, "parts": 3}
    found = await world.objects.find(NAME, "film")
    parts_made_of = await parts_of(world.objects.blobs, found.metadata)
    assert [(part.number, part.size) for part in parts_made_of] == [(1, 700), (2, 10), (3, 1)]
    assert await world.open_uploads() == [] and await world.leftovers() == 0


async def test_large_parts_fold_into_manifests(world: World) -> None:
    """Parts that are manifests themselves, more of them than a record may name: two levels."""
    data = [bytes([number]) * (CHUNK * 5 + number) for number in range(1, 12)]
    upload_id, parts = await world.upload(*data)
    await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert await world.get() == b"".join(data)
    found = await world.objects.registers.get(world.bucket.place, Kind.OBJECT, KEY)
    assert len(found.metadata.segments) <= 4
    reader = (await world.objects.open(NAME, "film")).narrow(CHUNK * 5 - 3, 10)
    assert await reader.read() == b"".join(data)[CHUNK * 5 - 3 :][:10]


async def test_some_parts_in_any_order_of_upload(world: World) -> None:
    upload_id = await world.uploads.create(KEY, {}, {})
    named = {
        number: await world.part(upload_id, number, b"%d" % (number % 10) * 20)
        for number in (10000, 7, 300, 8)
    }
    await world.uploads.complete(KEY, upload_id, [named[7], named[300], named[10000]], "tag")
    assert await world.get() == b"7" * 20 + b"0" * 40
    assert await world.leftovers() == 0, "the part that was not named goes too"


async def test_part_is_replaced_by_a_later_one(world: World) -> None:
    upload_id, parts = await world.upload(ONE)
    again = await world.part(upload_id, 1, TWO)
    with pytest.raises(InvalidPart):
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    await world.uploads.complete(KEY, upload_id, [again], "tag")
    assert await world.get() == TWO


async def test_empty_part(world: World) -> None:
    upload_id, parts = await world.upload(b"")
    assert (await world.uploads.complete(KEY, upload_id, parts, "tag")).size == 0
    assert await world.get() == b""


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ([], InvalidPart),
        ([(1, "wrong")], InvalidPart),
        ([(3, "x")], InvalidPart),
        ([(2, "b"), (1, "a")], InvalidPartOrder),
        ([(1, "a"), (1, "a")], InvalidPartOrder),
        ([(n, "a") for n in range(1, PARTS_MAX + 2)], InvalidPart),
    ],
)
async def test_completion_that_cannot_be(world: World, named: list[tuple[int, str]], error: type) -> None:
    upload_id, parts = await world.upload(ONE, TWO)
    with pytest.raises(error):
        await world.uploads.complete(KEY, upload_id, named, "tag")
    with pytest.raises(ObjectNotFound):
        await world.get()
    await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert await world.get() == ONE + TWO


async def test_small_part_is_refused_unless_last(world: World) -> None:
    upload_id, parts = await world.upload(b"small", ONE)
    with pytest.raises(PartTooSmall):
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    await world.uploads.complete(KEY, upload_id, parts[:1], "tag")
    assert await world.get() == b"small"


async def test_parts_that_are_too_much_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id, parts = await world.upload(ONE, TWO)
    monkeypatch.setattr("ssastore.core.multipart.OBJECT_BYTES_MAX", 709)
    with pytest.raises(ObjectTooLarge):
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert (KEY, upload_id) in await world.open_uploads()


async def test_inline_part_would_be_lost_and_is_our_bug(world: World) -> None:
    upload_id, _ = await world.upload()
    with pytest.raises(AssertionError):
        await world.uploads.put_part(KEY, upload_id, 1, "e", Content(4, b"data"))


@pytest.mark.parametrize(
    "upload_id", ["", "x", "g" * 32, "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\0", "../" + "0" * 29]
)
async def test_forged_upload_id_reaches_nothing(world: World, upload_id: str) -> None:
    for work in (
        world.uploads.read(KEY, upload_id),
        world.uploads.abort(KEY, upload_id),
        world.uploads.complete(KEY, upload_id, [(1, "e")], "tag"),
        world.uploads.put_part(KEY, upload_id, 1, "e", Content(0)),
    ):
        with pytest.raises(UploadNotFound):
            await work


async def test_upload_id_of_another_key(world: World) -> None:
    upload_id, parts = await world.upload(ONE)
    for work in (
        world.uploads.complete(b"other", upload_id, parts, "tag"),
        world.uploads.abort(b"other", upload_id),
    ):
        with pytest.raises(UploadNotFound):
            await work


# -- conditions -------------------------------------------------------------------------------------


async def test_false_condition_leaves_the_upload_open(world: World) -> None:
    await world.put(b"there")
    upload_id, parts = await world.upload(ONE)
    for _ in range(2):
        with pytest.raises(PreconditionFailed):
            await world.uploads.complete(KEY, upload_id, parts, "tag", demand=Demand(if_none_match="*"))
    assert await world.get() == b"there"
    parts.append(await world.part(upload_id, 2, TWO))
    await world.uploads.complete(KEY, upload_id, parts, "tag", demand=Demand("plain"))
    assert await world.get() == ONE + TWO


async def test_false_condition_then_abort(world: World) -> None:
    upload_id, parts = await world.upload(ONE)
    with pytest.raises(ObjectNotFound):
        await world.uploads.complete(KEY, upload_id, parts, "tag", demand=Demand("*"))
    await world.uploads.abort(KEY, upload_id)
    assert await world.leftovers() == 0


# -- repetition and death ---------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [QuotaExceeded, StoreFull])
async def test_completion_for_which_there_is_no_room_leaves_the_upload_open(
    world: World, refusal: type[Exception]
) -> None:
    """Else its parts, which are in the way, could not be given up, nor fewer of them be taken."""
    upload_id, named = await world.upload(b"0123456789", b"tail")

    async def full(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.OBJECT:
            raise refusal("no room")

    world.caller.hook = full
    for parts in (named, named[:1]):
        with pytest.raises(refusal):
            await world.uploads.complete(KEY, upload_id, parts, f"etag-{len(parts)}")
    await world.uploads.abort(KEY, upload_id)
    assert await world.leftovers() == 0


async def test_metadata_that_the_object_has_no_room_for_leave_the_upload_open(world: World) -> None:
    """The object has more to say than the upload: of its parts, and what it was made by."""
    created = {"n": "v" * (METADATA_BYTES_MAX - 64)}
    upload_id = await world.uploads.create(KEY, {}, created)
    named = [await world.part(upload_id, 1, ONE)]
    with pytest.raises(ObjectTooLarge):
        await world.uploads.complete(KEY, upload_id, named, "tag")
    await world.uploads.abort(KEY, upload_id)
    assert await world.leftovers() == 0


async def test_repeated_completion_finds_its_object(world: World) -> None:
    upload_id, parts = await world.upload(ONE, TWO)
    first = await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert await world.uploads.complete(KEY, upload_id, parts, "tag") == first
    assert await world.uploads.complete(KEY, upload_id, [(9, "x")], "other") == first


async def test_repeated_completion_after_a_later_write_changes_nothing(world: World) -> None:
    upload_id, parts = await world.upload(ONE)
    await world.uploads.complete(KEY, upload_id, parts, "tag")
    await world.put(b"later")
    with pytest.raises(UploadNotFound):
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert await world.get() == b"later"


class Died(Exception):
    """The gateway that ran the completion is gone."""


def die_at(world: World, position: int) -> None:
    """The call at this position of a completion never happens, nor what follows it."""
    left = position

    async def hook(message: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Died

    world.caller.hook = hook


async def complete_and_die(world: World, position: int, upload_id: str, parts: list[tuple[int, str]]) -> bool:
    die_at(world, position)
    try:
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    except Died:
        return True
    finally:
        world.caller.hook = None
    return False


@pytest.mark.parametrize("position", range(16))
async def test_completion_that_died_is_finished_by_the_next(world: World, position: int) -> None:
    upload_id, parts = await world.upload(ONE, TWO, LAST)
    await complete_and_die(world, position, upload_id, parts)
    made = await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert (made.etag, made.size) == ("tag", 711)
    assert await world.get() == ONE + TWO + LAST
    assert await world.open_uploads() == []


@pytest.mark.parametrize("position", range(16))
async def test_completion_taken_up_late_does_not_hide_that_it_was_applied(
    world: World, position: int
) -> None:
    """An hour later the node has forgotten the operation; the object itself remembers the upload."""
    upload_id, parts = await world.upload(ONE)
    died = await complete_and_die(world, position, upload_id, parts)
    applied = died and (await world.objects.head(NAME, "film")).modified_ms if position >= 5 else 0
    world.caller.clock.ms += 3_600_000
    made = await world.uploads.complete(KEY, upload_id, parts, "tag")
    if applied:
        assert made.modified_ms == applied, "the first result, not a second application"
    assert await world.get() == ONE and await world.open_uploads() == []


async def test_completing_with_other_parts_is_refused(world: World) -> None:
    """One died after it had announced its parts; a call with others must not answer for them."""
    upload_id, parts = await world.upload(ONE, TWO)
    await stop_at_object(world, upload_id, parts)
    with pytest.raises(UploadNotFound):
        await world.uploads.complete(KEY, upload_id, parts[:1], "other")
    with pytest.raises(UploadNotFound):
        await world.uploads.abort(KEY, upload_id)
    made = await world.uploads.complete(KEY, upload_id, parts, "tag")
    assert isinstance(made, Completed) and await world.get() == ONE + TWO


async def stop_at_object(world: World, upload_id: str, parts: list[tuple[int, str]]) -> None:
    async def hook(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.OBJECT:
            raise Died

    world.caller.hook = hook
    with pytest.raises(Died):
        await world.uploads.complete(KEY, upload_id, parts, "tag")
    world.caller.hook = None


@pytest.mark.parametrize("kind", [Kind.UPLOAD, Kind.OBJECT])
async def test_two_equal_completions_at_once_both_succeed(world: World, kind: Kind) -> None:
    """A client whose first call was slow sends it again: the second may not say "no such upload"."""
    upload_id, parts = await world.upload(ONE, TWO)
    turns = 0

    async def hook(message: Any) -> None:
        nonlocal turns
        if isinstance(message, Put | Delete) and message.kind == kind:
            turns += 1
            for _ in range(turns * 3):
                await asyncio.sleep(0)

    world.caller.hook = hook
    results = await asyncio.gather(
        *[world.uploads.complete(KEY, upload_id, parts, "tag") for _ in range(2)], return_exceptions=True
    )
    world.caller.hook = None
    assert isinstance(results[0], Completed) and results[0] == results[1], results
    assert await world.get() == ONE + TWO and await world.leftovers() == 0


async def test_completion_overtaken_by_an_equal_one_while_it_reads_parts(world: World) -> None:
    upload_id, parts = await world.upload(ONE, TWO)
    first: Any = None

    async def hook(message: Any) -> None:
        nonlocal first
        if type(message).__name__ == "Get" and message.kind == Kind.PART and first is None:
            world.caller.hook = None
            first = await world.uploads.complete(KEY, upload_id, parts, "tag")

    world.caller.hook = hook
    assert await world.uploads.complete(KEY, upload_id, parts, "tag") == first


async def test_reopening_does_not_bring_back_a_finished_upload(world: World) -> None:
    """A's condition is false; before A opens the upload again, B completes it without one."""
    await world.put(b"there")
    upload_id, parts = await world.upload(ONE)

    async def hook(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.OBJECT:
            world.caller.hook = second

    async def second(message: Any) -> None:
        world.caller.hook = None
        await world.uploads.complete(KEY, upload_id, parts, "tag")

    world.caller.hook = hook
    with pytest.raises(PreconditionFailed):
        await world.uploads.complete(KEY, upload_id, parts, "tag", demand=Demand(if_none_match="*"))
    assert await world.open_uploads() == [] and await world.get() == ONE


# -- abort ------------------------------------------------------------------------------------------


async def test_aborted_upload_is_gone(world: World) -> None:
    upload_id, parts = await world.upload(ONE, TWO)
    await world.uploads.abort(KEY, upload_id)
    assert await world.leftovers() == 0
    for work in (
        world.uploads.abort(KEY, upload_id),
        world.uploads.complete(KEY, upload_id, parts, "tag"),
        world.uploads.read(KEY, upload_id),
    ):
        with pytest.raises(UploadNotFound):
            await work


async def test_abort_beside_a_completion_one_of_them_wins(world: World) -> None:
    for turns in range(12):
        upload_id, parts = await world.upload(ONE, key=b"k%d" % turns)

        async def abort(upload_id: str = upload_id, turns: int = turns) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await world.uploads.abort(b"k%d" % turns, upload_id)

        results = await asyncio.gather(
            world.uploads.complete(b"k%d" % turns, upload_id, parts, "tag"), abort(), return_exceptions=True
        )
        completed = isinstance(results[0], Completed)
        assert completed != (results[1] is None), results
        if completed:
            assert await world.get(f"k{turns}") == ONE
        else:
            with pytest.raises(ObjectNotFound):
                await world.get(f"k{turns}")


# -- listings ---------------------------------------------------------------------------------------


async def test_parts_in_order_and_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.core.listing.SCAN_PAGE_ITEMS_MAX", 2)
    upload_id = await world.uploads.create(KEY, {}, {})
    other, _ = await world.upload(ONE)
    for number in (10000, 1, 255, 256, 9):
        await world.part(upload_id, number, b"%d" % number)
    found = [part async for part in world.uploads.parts(KEY, upload_id)]
    assert [part.number for part in found] == [1, 9, 255, 256, 10000]
    assert found[0] == Part(1, "1-31", 1, world.caller.clock.ms)
    assert [part.number async for part in world.uploads.parts(KEY, upload_id, 255)] == [256, 10000]
    assert [part.number async for part in world.uploads.parts(KEY, upload_id, 10000)] == []
    assert [part.number async for part in world.uploads.parts(KEY, other)] == [1]


async def test_uploads_in_order_of_key(world: World) -> None:
    made = [(key, (await world.upload(key=key))[0]) for key in (b"b", b"a", b"a/b", b"a", b"ab")]
    assert await world.open_uploads() == sorted(made)
    assert [u.key async for u in world.uploads.uploads(b"a", b"")] == [b"a", b"a", b"a/b", b"ab"]
    first = sorted(made)[0]
    assert [u.upload_id async for u in world.uploads.uploads(b"", first[0] + b"\0" + first[1].encode())] == [
        upload_id for _, upload_id in sorted(made)[1:]
    ]


async def test_open_upload_is_no_object(world: World) -> None:
    await world.upload(ONE)
    assert [entry async for entry in world.objects.list(NAME)] == []


async def test_completion_that_is_repeated_is_not_applied_over_what_came_after_it() -> None:
    """Its answer was lost; then so many wrote the key that it no longer remembers the completion."""
    world = World()
    await world.begin()
    upload_id, parts = await world.upload(bytes(20), bytes(20))

    async def cut_off(message: Any) -> None:
        if isinstance(message, Delete):  # The object is made; the upload's record is still there.
            raise OutcomeUnknown("the answer is lost")

    world.caller.hook = cut_off
    await world.uploads.complete(KEY, upload_id, parts, "etag-2")
    world.caller.hook = None
    world.caller.clock.ms += 1000
    for number in range(RECENT_OPS_MAX + 1):
        await world.put(b"later %d" % number)
    with pytest.raises(OutcomeUnknown):
        await world.uploads.complete(KEY, upload_id, parts, "etag-2")
    assert await world.get() == b"later %d" % RECENT_OPS_MAX


async def test_completion_that_was_refused_is_decided_anew_when_it_is_asked_for_again() -> None:
    """The refusal of a repetition is remembered; it must not stick to the upload."""
    world = World()
    await world.begin()
    upload_id, parts = await world.upload(bytes(20), bytes(20))
    await world.put(b"theirs")
    for _ in range(2):
        with pytest.raises(PreconditionFailed):
            await world.uploads.complete(KEY, upload_id, parts, "etag-2", demand=Demand(if_none_match="*"))
    await world.objects.delete(NAME, KEY.decode())
    await world.uploads.complete(KEY, upload_id, parts, "etag-2", demand=Demand(if_none_match="*"))
    assert await world.get() == bytes(40)
