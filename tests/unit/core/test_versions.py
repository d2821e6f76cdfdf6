"""Versions: what is kept, what is current, and that neither races nor crashes lose or bring back any."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.metadata import Metadata
from ssastore.core.objects import CommonPrefix, ObjectInfo, Objects
from ssastore.core.registers import Once, key_bytes
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.core.versionnames import (
    ending_of,
    id_of,
    is_from,
    is_id,
    is_null,
    name_of,
    time_of,
    whole_name,
)
from ssastore.core.versions import Deleted
from ssastore.errors import (
    AccessDenied,
    BucketNotEmpty,
    MarkerFound,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    Unavailable,
    VersionNotFound,
)
from ssastore.messages import Delete, Get, Kind, Put
from tests.direct import DirectCaller, SeededRandomness

NAME = "photos"
KEY = "k"


def client(caller: DirectCaller, seed: int = 1) -> Objects:
    return Objects(caller, caller.clock, SeededRandomness(seed))


async def configure(objects: Objects, status: str) -> None:
    await objects.buckets.configure(NAME, lambda bucket: bucket.config | {"versioning": status})


@pytest.fixture
async def objects() -> Objects:
    """Of a bucket that makes versions."""
    made = client(DirectCaller())
    await made.buckets.create(NAME, shards=2, config={"versioning": "Enabled"})
    return made


def caller_of(objects: Objects) -> DirectCaller:
    caller = objects.blobs._caller
    assert isinstance(caller, DirectCaller)
    return caller


async def put(objects: Objects, data: bytes, key: str = KEY, **options: Any) -> ObjectInfo:
    return await objects.commit(NAME, key, Content(len(data), data), f"etag-{data.decode()}", **options)


async def get(objects: Objects, version_id: str | None = None, key: str = KEY) -> bytes:
    return await (await objects.open(NAME, key, version_id)).read()


async def listed(objects: Objects, page_size: int = 1000, **wanted: Any) -> list[ListedVersion]:
    found = [entry async for entry in objects.list_versions(NAME, Wanted(**wanted), page_size=page_size)]
    return [entry for entry in found if isinstance(entry, ListedVersion)]


async def story(objects: Objects, **wanted: Any) -> list[str]:
    """The listing in words: what is current has a star, what is a marker a minus."""
    words = []
    async for entry in objects.list_versions(NAME, Wanted(**wanted)):
        if isinstance(entry, CommonPrefix):
            words.append(f"<{entry.prefix}>")
        else:
            what = "-" if entry.is_marker else entry.etag.removeprefix("etag-")
            words.append(f"{entry.key}:{what}{'*' if entry.is_latest else ''}")
    return words


# -- names ------------------------------------------------------------------------------------------


def test_names_sort_the_newest_first_and_say_their_time() -> None:
    early, late = (name_of(at_ms, ending_of(b"x", is_null=False)) for at_ms in (1_700_000_000_000, 1 << 44))
    assert late < early
    assert time_of(late) == 1 << 44
    assert whole_name(late, 7) == late
    assert whole_name(late[12:], 1 << 44) == late


def test_null_version_is_from_the_same_operation() -> None:
    plain, null = (name_of(5, ending_of(b"x", is_null=flag)) for flag in (False, True))
    assert is_null(null)
    assert not is_null(plain)
    assert is_from(plain, b"x")
    assert is_from(null, b"x")
    assert not is_from(plain, b"y")
    assert (id_of(null), id_of(plain), id_of("")) == ("null", plain, "null")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("null", True), ("0" * 32, True), ("0" * 31, False), ("G" * 32, False), ("", False)],
)
def test_what_can_be_an_id(text: str, expected: bool) -> None:
    assert is_id(text) is expected


# -- what is kept -----------------------------------------------------------------------------------


async def test_every_put_makes_a_version_and_the_last_is_current(objects: Objects) -> None:
    made = [await put(objects, b"%d" % number) for number in range(3)]
    assert len({info.version for info in made}) == 3
    assert await get(objects) == b"2"
    for number, info in enumerate(made):
        assert await get(objects, info.version) == b"%d" % number
        head = await objects.head(NAME, KEY, info.version)
        assert (head.version, head.modified_ms) == (info.version, info.modified_ms)
    assert await story(objects) == ["k:2*", "k:1", "k:0"]
    times = [info.modified_ms for info in made]
    assert times == sorted(set(times)), "the clock stands still, versions have an order all the same"


async def test_put_without_versions_costs_one_request() -> None:
    caller = DirectCaller()
    objects = client(caller)
    await objects.buckets.create(NAME, shards=2)
    caller.calls.clear()
    await put(objects, b"one")
    await put(objects, b"two")
    await get(objects)
    await objects.delete(NAME, KEY)
    assert caller.calls == ["Put", "Put", "Get", "Delete"]


async def test_delete_leaves_a_marker_and_keeps_the_version(objects: Objects) -> None:
    info = await put(objects, b"one")
    deleted = await objects.delete(NAME, KEY)
    assert deleted.existed
    with pytest.raises(ObjectNotFound):
        await get(objects)
    assert await get(objects, info.version) == b"one"
    with pytest.raises(MarkerFound):
        await get(objects, deleted.marker)
    assert await story(objects) == ["k:-*", "k:one"]
    again = await objects.delete(NAME, KEY)
    assert again.marker != deleted.marker
    assert await story(objects) == ["k:-*", "k:-", "k:one"]


async def test_delete_of_a_key_that_never_was_leaves_a_marker(objects: Objects) -> None:
    assert not (await objects.delete(NAME, KEY)).existed
    assert await story(objects) == ["k:-*"]


async def test_deleting_the_marker_brings_the_object_back(objects: Objects) -> None:
    info = await put(objects, b"one")
    marker = (await objects.delete(NAME, KEY)).marker
    assert await objects.delete(NAME, KEY, marker) == Deleted(True, marker)
    assert await get(objects) == b"one"
    head = await objects.head(NAME, KEY)
    assert (head.version, head.modified_ms) == (info.version, info.modified_ms)
    assert await story(objects) == ["k:one*"]
    entries = [entry async for entry in objects.list(NAME)]
    assert entries == [ObjectInfo(KEY, 3, "etag-one", info.modified_ms, version=info.version)]


async def test_deleting_the_current_version_makes_the_next_one_current(objects: Objects) -> None:
    made = [await put(objects, b"%d" % number) for number in range(4)]
    await objects.delete(NAME, KEY, made[1].version)
    await objects.delete(NAME, KEY, made[3].version)
    assert await story(objects) == ["k:2*", "k:0"]
    assert (await objects.head(NAME, KEY)).modified_ms == made[2].modified_ms
    await put(objects, b"4")
    assert await story(objects) == ["k:4*", "k:2", "k:0"]
    for version in [entry.version for entry in await listed(objects)]:
        assert (await objects.delete(NAME, KEY, version)).existed
    assert await story(objects) == []
    await objects.buckets.delete(NAME)


async def test_deleting_twice_by_id_is_no_error(objects: Objects) -> None:
    info = await put(objects, b"one")
    assert (await objects.delete(NAME, KEY, info.version)).existed
    assert await objects.delete(NAME, KEY, info.version) == Deleted(False)
    with pytest.raises(ObjectNotFound):
        await objects.delete(NAME, KEY, info.version, demand=Demand("x"))
    with pytest.raises(VersionNotFound):
        await get(objects, info.version)


async def test_bucket_with_versions_or_markers_is_not_empty(objects: Objects) -> None:
    info = await put(objects, b"one")
    marker = (await objects.delete(NAME, KEY)).marker
    for version in (info.version, marker):
        with pytest.raises(BucketNotEmpty):
            await objects.buckets.delete(NAME)
        await objects.delete(NAME, KEY, version)
    await objects.buckets.delete(NAME)


async def test_large_objects_are_kept_with_their_blobs(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssastore.core.content.CHUNK_BYTES", 512)
    monkeypatch.setattr("ssastore.core.content.SEGMENTS_MAX", 4)
    monkeypatch.setattr("ssastore.core.content._MANIFEST_SEGMENTS", 8)
    data = Random(1).randbytes(512 * 40)
    writer = objects.writer(await objects.buckets.read(NAME), key_bytes(KEY), inline_bytes_max=0)
    await writer.write(data)
    info = await objects.commit(NAME, KEY, await writer.finish(), "etag-large")
    caller = caller_of(objects)
    caller.calls.clear()
    await put(objects, b"small")
    assert caller.calls.count("PutBlob") == 45, "40 of data, 5 of manifests"
    assert await get(objects, info.version) == data
    await objects.delete(NAME, KEY, (await objects.head(NAME, KEY)).version)
    caller.calls.clear()
    await put(objects, b"small again")
    assert caller.calls.count("PutBlob") == 0, "what became current again is kept already"
    assert await get(objects, info.version) == data


# -- the null version -------------------------------------------------------------------------------


async def test_object_from_before_is_the_null_version() -> None:
    objects = client(DirectCaller())
    await objects.buckets.create(NAME, shards=2)
    before = await put(objects, b"before")
    assert before.version == ""
    await configure(objects, "Enabled")
    assert await get(objects, "null") == b"before"
    await put(objects, b"one")
    assert await get(objects, "null") == b"before"
    assert (await objects.head(NAME, KEY, "null")).modified_ms == before.modified_ms
    assert [entry.version == "null" for entry in await listed(objects)] == [False, True]
    await objects.delete(NAME, KEY, "null")
    assert await story(objects) == ["k:one*"]


async def test_suspended_bucket_replaces_its_null_version_and_no_other(objects: Objects) -> None:
    kept = await put(objects, b"kept")
    await configure(objects, "Suspended")
    for data in (b"a", b"b"):
        assert (await put(objects, data)).version == "null"
    assert await story(objects) == ["k:b*", "k:kept"]
    await configure(objects, "Enabled")
    await put(objects, b"c")
    await configure(objects, "Suspended")
    assert await story(objects) == ["k:c*", "k:b", "k:kept"]
    await put(objects, b"d")
    assert await story(objects) == ["k:d*", "k:c", "k:kept"]
    assert (await objects.delete(NAME, KEY)).marker == "null"
    assert await story(objects) == ["k:-*", "k:c", "k:kept"]
    await put(objects, b"e")
    assert await story(objects) == ["k:e*", "k:c", "k:kept"]
    await objects.delete(NAME, KEY, "null")
    assert await story(objects) == ["k:c*", "k:kept"]
    assert await get(objects, kept.version) == b"kept"


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
async def test_who_does_not_know_of_versions_yet_destroys_none(status: str) -> None:
    """What is known of a bucket may be seconds old: the record itself refuses."""
    caller = DirectCaller()
    objects, late = client(caller, 1), client(caller, 2)
    await objects.buckets.create(NAME, shards=2)
    await late.buckets.read(NAME)
    await configure(objects, "Enabled")
    first = await put(objects, b"first")
    await configure(objects, status)
    await put(late, b"second")
    await late.buckets.read(NAME)
    assert await get(objects, first.version) == b"first"
    assert await get(objects) == b"second"
    other = client(caller, 3)
    other.buckets._cache[NAME] = (await late.buckets.read(NAME)).__class__(
        NAME, (await late.buckets.read(NAME)).place, 0, "active", ""
    )
    await other.delete(NAME, KEY)
    assert await get(objects, first.version) == b"first"
    assert (await story(objects))[0] == "k:-*"


# -- conditions -------------------------------------------------------------------------------------


async def test_refused_conditional_put_leaves_no_version(objects: Objects) -> None:
    await put(objects, b"one", demand=Demand(if_none_match="*"))
    for demand in (
        Demand(if_none_match="*"),
        Demand("other"),
        Demand(if_none_match="etag-one"),
        Demand(size=4),
        Demand(modified_s=5),
    ):
        with pytest.raises(PreconditionFailed):
            await put(objects, b"two", demand=demand)
        with pytest.raises(PreconditionFailed):
            await objects.delete(NAME, KEY, demand=demand)
    assert await story(objects) == ["k:one*"]
    version = (await put(objects, b"two", demand=Demand("etag-one", size=3))).version
    with pytest.raises(PreconditionFailed):
        await objects.delete(NAME, KEY, version, demand=Demand("etag-one"))
    await objects.delete(NAME, KEY, demand=Demand("etag-two"))
    with pytest.raises(ObjectNotFound):
        await put(objects, b"three", demand=Demand("*"))
    await put(objects, b"three", demand=Demand(if_none_match="*"))
    assert await story(objects) == ["k:three*", "k:-", "k:two", "k:one"]


async def test_delete_with_a_condition_where_a_marker_is(objects: Objects) -> None:
    with pytest.raises(ObjectNotFound):
        await objects.delete(NAME, KEY, demand=Demand("*"))
    assert await story(objects) == []
    await objects.delete(NAME, KEY)
    await objects.delete(NAME, KEY, demand=Demand("*"))
    with pytest.raises(PreconditionFailed):
        await objects.delete(NAME, KEY, demand=Demand("x"))


@pytest.mark.parametrize("lost", ["Get", "Put"])
async def test_repeated_operation_finds_the_version_that_it_made(objects: Objects, lost: str) -> None:
    """Its condition is false by then, because of itself."""
    born_ms = caller_of(objects).clock.now_ms()
    demand = Demand(if_none_match="*")
    first = await put(objects, b"one", demand=demand, once=Once(b"o" * 16, 1, born_ms))
    again = await put(objects, b"one", demand=demand, once=Once(b"o" * 16, 2, born_ms))
    await put(objects, b"two")
    later = await put(objects, b"one", demand=demand, once=Once(b"o" * 16, 3, born_ms))
    assert first.version == again.version == later.version
    with pytest.raises(PreconditionFailed):
        await put(objects, b"one", demand=demand, once=Once(b"p" * 16, 2, born_ms))
    once = Once(b"q" * 16, 1, born_ms)
    marker = (await objects.delete(NAME, KEY, demand=Demand("etag-two"), once=once)).marker
    again_deleted = await objects.delete(NAME, KEY, demand=Demand("etag-two"), once=once._replace(attempt=2))
    assert again_deleted.marker == marker
    assert await story(objects) == ["k:-*", "k:two", "k:one"]


# -- amendments and guards --------------------------------------------------------------------------


def said(text: str) -> Callable[[Metadata], Metadata]:
    def change(metadata: Metadata) -> Metadata:
        return Metadata(
            metadata.etag,
            metadata.size,
            metadata.segments,
            metadata.headers,
            metadata.user,
            {"said": metadata.extra.get("said", "") + text},
            metadata.version,
        )

    return change


async def test_what_is_said_of_a_version_stays_with_it(objects: Objects) -> None:
    first = await put(objects, b"one")
    await objects.amend(NAME, KEY, said("a"))
    await put(objects, b"two")
    await objects.amend(NAME, KEY, said("b"), first.version)
    second = await objects.head(NAME, KEY)
    await objects.delete(NAME, KEY, second.version)
    await objects.amend(NAME, KEY, said("c"), first.version)
    await objects.amend(NAME, KEY, said("d"))
    await put(objects, b"three")
    await objects.amend(NAME, KEY, said("e"), first.version)
    head = await objects.head(NAME, KEY, first.version)
    assert head.extra == {"said": "abcde"}
    assert head.modified_ms == first.modified_ms
    with pytest.raises(VersionNotFound):
        await objects.amend(NAME, KEY, said("x"), second.version)
    marker = (await objects.delete(NAME, KEY)).marker
    with pytest.raises(MarkerFound):
        await objects.amend(NAME, KEY, said("x"), marker)
    with pytest.raises(ObjectNotFound):
        await objects.amend(NAME, KEY, said("x"))


async def test_guarded_version_does_not_go(objects: Objects) -> None:
    def guard(metadata: Metadata) -> None:
        if metadata.extra.get("said"):
            raise AccessDenied("locked")

    first, second = await put(objects, b"one"), await put(objects, b"two")
    for info in (first, second):
        await objects.amend(NAME, KEY, said("locked"), info.version)
        with pytest.raises(AccessDenied):
            await objects.delete(NAME, KEY, info.version, guard=guard)
    assert await story(objects) == ["k:two*", "k:one"]


# -- listings ---------------------------------------------------------------------------------------


async def test_listing_by_prefix_and_delimiter(objects: Objects) -> None:
    for key in ("a", "a/1", "a/2", "b0", "b/x", "c"):
        await put(objects, b"x", key)
        await put(objects, b"y", key)
    await objects.delete(NAME, "a/2")
    await objects.delete(NAME, "c")
    assert await story(objects, delimiter="/") == [
        "a:y*", "a:x", "<a/>", "<b/>", "b0:y*", "b0:x", "c:-*", "c:y", "c:x",
    ]  # fmt: skip
    assert await story(objects, prefix="a/") == ["a/1:y*", "a/1:x", "a/2:-*", "a/2:y", "a/2:x"]
    assert await story(objects, prefix="b", delimiter="0") == ["b/x:y*", "b/x:x", "<b0>"]
    assert await story(objects, key_marker="a/", delimiter="/") == [
        "<b/>", "b0:y*", "b0:x", "c:-*", "c:y", "c:x",
    ]  # fmt: skip
    assert await story(objects, key_marker="b0", delimiter="/") == ["c:-*", "c:y", "c:x"]
    assert await story(objects, prefix="a\0") == []


@pytest.mark.parametrize("page_size", [1, 2, 3, 7])
async def test_listing_in_pages_is_the_listing(objects: Objects, page_size: int) -> None:
    draw = Random(page_size)
    for number in range(40):
        key = draw.choice("abcd")
        if draw.random() < 0.3:
            await objects.delete(NAME, key)
        else:
            await put(objects, b"%d" % number, key)
    whole = await listed(objects)
    taken: list[ListedVersion] = []
    marker: dict[str, str] = {}
    while page := (await listed(objects, page_size, **marker))[:page_size]:
        taken += page
        marker = {"key_marker": page[-1].key, "id_marker": page[-1].version}
    assert taken == whole
    assert len(whole) == 40
    assert sum(entry.is_latest for entry in whole) == 4


async def test_listing_goes_on_after_a_null_version(objects: Objects) -> None:
    await put(objects, b"a")
    await configure(objects, "Suspended")
    await put(objects, b"b")
    assert await story(objects, key_marker="k", id_marker="null") == ["k:a"]
    await configure(objects, "Enabled")
    await put(objects, b"c")
    assert await story(objects, key_marker="k", id_marker="null") == ["k:a"]


# -- races and crashes ------------------------------------------------------------------------------


async def interleave(message: Any) -> None:
    """Somebody else may go first, at every request."""
    for _ in range(_draw.randrange(4)):
        await asyncio.sleep(0)


_draw = Random(0)


async def expect(objects: Objects, alive: dict[str, bytes], gone: set[str]) -> None:
    """Every version that was acknowledged is there, none that was deleted is, and one is current."""
    for version, data in alive.items():
        assert await get(objects, version) == data
    for version in gone:
        with pytest.raises(VersionNotFound):
            await get(objects, version)
    entries = await listed(objects)
    shown = [entry.version for entry in entries]
    assert len(shown) == len(set(shown))
    assert {entry.version for entry in entries if not entry.is_marker} == set(alive)
    times = [(entry.modified_ms) for entry in entries]
    assert times == sorted(set(times), reverse=True)
    if entries:
        assert [entry.is_latest for entry in entries] == [True] + [False] * (len(entries) - 1)
        if entries[0].is_marker:
            with pytest.raises(ObjectNotFound):
                await get(objects)
        else:
            assert (await objects.head(NAME, KEY)).version == entries[0].version
    else:
        with pytest.raises(ObjectNotFound):
            await get(objects)


@pytest.mark.parametrize("seed", range(60))
async def test_many_writers_and_deleters_of_one_key(seed: int) -> None:
    caller = DirectCaller()
    draw = Random(seed)
    _draw.seed(seed)
    boss = client(caller, 99)
    await boss.buckets.create(NAME, shards=1)
    if seed % 3:
        await put(boss, b"before")
    await configure(boss, "Enabled")
    alive: dict[str, bytes] = {"null": b"before"} if seed % 3 else {}
    gone: set[str] = set()
    caller.hook = interleave

    async def work(number: int) -> None:
        objects = client(caller, number)
        await objects.buckets.read(NAME)
        for turn in range(6):
            what = draw.random()
            data = b"%d.%d" % (number, turn)
            known = sorted(alive)
            if what < 0.45:
                demand = Demand(if_none_match="*") if draw.random() < 0.3 else Demand()
                try:
                    info = await put(objects, data, demand=demand)
                except PreconditionFailed:
                    continue
                assert info.version not in gone
                alive[info.version] = data
            elif what < 0.6:
                await objects.delete(NAME, KEY)
            elif what < 0.9 and known:
                version = draw.choice(known)
                if alive.pop(version, None) is None:
                    continue
                await objects.delete(NAME, KEY, version)
                gone.add(version)
            else:
                for entry in await listed(objects):
                    if entry.is_marker and draw.random() < 0.5:
                        await objects.delete(NAME, KEY, entry.version)

    await asyncio.gather(*[work(number) for number in range(4)])
    caller.hook = None
    await expect(boss, alive, gone)


@pytest.mark.parametrize("seed", range(60))
async def test_crash_at_any_request_loses_nothing_that_was_acknowledged(seed: int) -> None:
    """One of several clients dies at a request; what it was about is unknown, all else is as told."""
    caller = DirectCaller()
    draw = Random(seed)
    _draw.seed(seed)
    boss, victim = client(caller, 99), client(caller, 98)
    await boss.buckets.create(NAME, shards=1, config={"versioning": "Enabled"})
    made = [await put(boss, b"%d" % number) for number in range(3)]
    alive = {info.version: b"%d" % number for number, info in enumerate(made)}
    marker = (await boss.delete(NAME, KEY)).marker if draw.random() < 0.4 else ""
    left = draw.randrange(12)

    async def dies(message: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unavailable("the client has died")

    target = draw.choice([*alive, *([marker] if marker else [])])
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: victim.delete(NAME, KEY, target),
        lambda: victim.delete(NAME, KEY),
        lambda: put(victim, b"victim"),
    ]
    await victim.buckets.read(NAME)
    caller.hook = dies
    act = draw.randrange(3)
    try:
        outcome = await acts[act]()
    except (Unavailable, OutcomeUnknown):
        outcome = None
    caller.hook = None
    unknown = target if act == 0 else None
    if outcome is not None and act == 2:
        alive[outcome.version] = b"victim"
    for version, data in alive.items():
        if version != unknown:
            assert await get(boss, version) == data
    # Whatever was left half way, who comes next has a whole object.
    info = await put(boss, b"next")
    assert await get(boss) == b"next"
    alive[info.version] = b"next"
    for entry in await listed(boss):
        if entry.version not in alive and not entry.is_marker:
            assert await get(boss, entry.version) == b"victim"
    for version, data in alive.items():
        if version != unknown:
            assert await get(boss, version) == data
    for entry in await listed(boss):
        await boss.delete(NAME, KEY, entry.version)
    assert await story(boss) == []
    with pytest.raises(ObjectNotFound):
        await get(boss)
    await boss.buckets.delete(NAME)


async def test_slow_writer_does_not_bring_back_what_was_deleted(objects: Objects) -> None:
    """It had read the current version, and keeps it only after that was deleted by its id."""
    caller = caller_of(objects)
    doomed = await put(objects, b"doomed")
    other = client(caller, 7)

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.VERSION:
            caller.hook = None
            await other.delete(NAME, KEY, doomed.version)

    caller.hook = meanwhile
    await put(objects, b"slow")
    assert await story(objects) == ["k:slow*"]
    with pytest.raises(VersionNotFound):
        await get(objects, doomed.version)


async def delete_while(objects: Objects, current: str, at: int, other_work: Callable[[Objects], Any]) -> None:
    """Delete a version; as its ``at``-th request is made, another client does something."""
    caller = caller_of(objects)
    other = client(caller, 7)
    await other.buckets.read(NAME)
    count = 0

    async def meanwhile(message: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            caller.hook = None
            await other_work(other)

    caller.hook = meanwhile
    await objects.delete(NAME, KEY, current)
    caller.hook = None


@pytest.mark.parametrize("at", range(1, 8))
async def test_version_that_is_to_be_current_is_deleted_meanwhile(objects: Objects, at: int) -> None:
    heir, current = await put(objects, b"heir"), await put(objects, b"current")
    await delete_while(objects, current.version, at, lambda other: other.delete(NAME, KEY, heir.version))
    assert await story(objects) == []
    with pytest.raises(ObjectNotFound):
        await get(objects)


@pytest.mark.parametrize("at", range(1, 8))
async def test_version_that_is_to_be_current_is_amended_meanwhile(objects: Objects, at: int) -> None:
    heir, current = await put(objects, b"heir"), await put(objects, b"current")
    await delete_while(
        objects, current.version, at, lambda other: other.amend(NAME, KEY, said("kept"), heir.version)
    )
    assert (await objects.head(NAME, KEY)).extra == {"said": "kept"}
    await put(objects, b"next")
    assert (await objects.head(NAME, KEY, heir.version)).extra == {"said": "kept"}


async def test_earlier_marker_is_deleted_while_a_later_one_is_made(objects: Objects) -> None:
    """Whoever deletes it does not see the later one yet, and brings the object back."""
    caller = caller_of(objects)
    await put(objects, b"one")
    marker = (await objects.delete(NAME, KEY)).marker
    other = client(caller, 7)
    await other.buckets.read(NAME)

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.VERSION:
            caller.hook = None
            await other.delete(NAME, KEY, marker)
            assert await get(other) == b"one"

    caller.hook = meanwhile
    await objects.delete(NAME, KEY)
    with pytest.raises(ObjectNotFound):
        await get(objects)
    assert await story(objects) == ["k:-*", "k:one"]


async def test_deletion_that_broke_off_is_not_undone_when_an_earlier_marker_goes(objects: Objects) -> None:
    """Only what a marker hid may be back without it."""
    caller = caller_of(objects)
    earlier = (await objects.delete(NAME, KEY)).marker
    await put(objects, b"one")

    async def die(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.VERSION and "Delete" in caller.calls:
            raise Unavailable("the client has died")

    caller.calls.clear()
    caller.hook = die
    with pytest.raises(OutcomeUnknown):
        await objects.delete(NAME, KEY)
    caller.hook = None
    await objects.delete(NAME, KEY, earlier)
    with pytest.raises(ObjectNotFound):
        await get(objects)


async def test_object_is_not_back_that_is_deleted_while_an_earlier_marker_goes(objects: Objects) -> None:
    """Who deletes that has looked between the two steps of the deletion, and brings back what he saw late."""
    caller = caller_of(objects)
    await put(objects, b"one")
    earlier = (await objects.delete(NAME, KEY)).marker
    is_about, may_go_on = asyncio.Event(), asyncio.Event()
    going: list[asyncio.Task[Any]] = []

    async def bring_back(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.OBJECT:
            is_about.set()
            await may_go_on.wait()

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Put) and message.kind == Kind.VERSION:
            caller.hook = bring_back
            going.append(asyncio.create_task(objects.delete(NAME, KEY, earlier)))
            await is_about.wait()
            caller.hook = None

    caller.hook = meanwhile
    await objects.delete(NAME, KEY)
    may_go_on.set()
    await asyncio.gather(*going)
    with pytest.raises(ObjectNotFound):
        await get(objects)
    assert await story(objects) == ["k:-*", "k:one"]


@pytest.mark.parametrize("at", range(1, 10))
@pytest.mark.parametrize("is_marker_first", [False, True])
@pytest.mark.parametrize("is_over_it_a_marker", [False, True])
async def test_marker_and_what_is_over_it_are_deleted_at_once(
    objects: Objects, is_over_it_a_marker: bool, is_marker_first: bool, at: int
) -> None:
    """Whichever goes first, what they hid is the current version then."""
    caller = caller_of(objects)
    await put(objects, b"one")
    marker = (await objects.delete(NAME, KEY)).marker
    if is_over_it_a_marker:
        version = (await objects.delete(NAME, KEY)).marker
    else:
        version = (await put(objects, b"three")).version
    other = client(caller, 7)
    await other.buckets.read(NAME)
    first, second = (marker, version) if is_marker_first else (version, marker)
    count = 0

    async def meanwhile(message: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            caller.hook = None
            await other.delete(NAME, KEY, second)

    caller.hook = meanwhile
    await objects.delete(NAME, KEY, first)
    if caller.hook is not None:
        caller.hook = None
        await other.delete(NAME, KEY, second)
    assert await story(objects) == ["k:one*"]


@pytest.mark.parametrize("others", [3, 70])
@pytest.mark.parametrize("at", range(1, 6))
async def test_earlier_attempt_arrives_while_it_is_repeated(objects: Objects, at: int, others: int) -> None:
    """However late it comes, there is one version of the two; of 70 others a record does not remember all."""
    caller = caller_of(objects)
    born_ms = caller.clock.now_ms()
    await put(objects, b"before")
    other = client(caller, 7)
    await other.buckets.read(NAME)
    count = 0

    async def meanwhile(message: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            caller.hook = None
            await put(other, b"twice", once=Once(b"o" * 16, 1, born_ms))
            for number in range(others):
                await put(other, b"%d" % number)

    caller.hook = meanwhile
    with suppress(OutcomeUnknown):
        await put(objects, b"twice", once=Once(b"o" * 16, 2, born_ms))
    await put(objects, b"twice", once=Once(b"o" * 16, 3, born_ms))
    assert [words.strip("*") for words in await story(objects)].count("k:twice") == 1


async def test_null_version_that_is_written_while_another_is_deleted_stays(objects: Objects) -> None:
    """A deletion looks once more, since a version may be there twice: what it finds then may be a new one."""
    await configure(objects, "Suspended")
    await put(objects, b"one")
    await configure(objects, "Enabled")
    await put(objects, b"two")
    caller = caller_of(objects)

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Get) and message.kind == Kind.OBJECT and "Delete" in caller.calls:
            caller.hook = None
            await configure(objects, "Suspended")
            await put(objects, b"three")

    caller.calls.clear()
    caller.hook = meanwhile
    assert await objects.delete(NAME, KEY, "null", demand=Demand("etag-one")) == Deleted(True)
    assert caller.hook is None
    assert await get(objects) == b"three"
    assert await story(objects) == ["k:three*", "k:two"]


async def test_version_is_locked_while_it_is_about_to_be_deleted(objects: Objects) -> None:
    caller = caller_of(objects)
    first = await put(objects, b"first")
    await put(objects, b"second")
    other = client(caller, 7)
    await other.buckets.read(NAME)

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Delete) and message.kind == Kind.VERSION:
            caller.hook = None
            await other.amend(NAME, KEY, said("locked"), first.version)

    def guard(metadata: Metadata) -> None:
        if metadata.extra.get("said"):
            raise AccessDenied("locked")

    caller.hook = meanwhile
    with pytest.raises(AccessDenied):
        await objects.delete(NAME, KEY, first.version, guard=guard)
    assert await get(objects, first.version) == b"first"


async def test_listing_meets_a_version_that_is_replaced_meanwhile(objects: Objects) -> None:
    caller = caller_of(objects)
    first = await put(objects, b"first")
    other = client(caller, 7)
    await other.buckets.read(NAME)
    scans = 0

    async def meanwhile(message: Any) -> None:
        nonlocal scans
        scans += type(message).__name__ == "Scan"
        if scans == 3:  # The bucket has two shards.
            caller.hook = None
            await put(other, b"second")

    caller.hook = meanwhile
    assert first.version in [entry.version for entry in await listed(objects)]
