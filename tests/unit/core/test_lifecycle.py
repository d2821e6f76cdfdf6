"""What lifecycle rules say is due, and what is done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from ssastore.core.content import Content
from ssastore.core.expiry import Expiry
from ssastore.core.lifecycle import (
    DAY_MS,
    Known,
    Rule,
    candidates,
    due_ms,
    expiry,
    is_abandoned,
    rules_of,
)
from ssastore.core.locks import is_locked
from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.errors import CorruptObject
from ssastore.keyspace import shard_of_key
from ssastore.messages import Delete, Get, Kind, Scan
from tests.direct import DirectCaller, SeededRandomness

NAME = "photos"
SHORT_MS = 1000
"A day of tests."

# -- rules ------------------------------------------------------------------------------------------


def test_rule_is_kept_and_read_back() -> None:
    rule = Rule(
        "a", True, "p/", {"k": "v"}, 1, 9, days=3, noncurrent_days=2, newer=1, abort_days=7, is_plain=True
    )
    assert Rule.decode(rule.encode()) == rule
    assert Rule.decode(Rule("b", False).encode()) == Rule("b", False)
    assert rules_of({"lifecycle": [rule.encode(), replace(rule, enabled=False).encode()]}) == [rule]
    assert rules_of({}) == []


@pytest.mark.parametrize(
    ("rule", "key", "size", "tags", "expected"),
    [
        (Rule("r", True), "any", 0, {}, True),
        (Rule("r", True, "a/"), "a/b", 0, {}, True),
        (Rule("r", True, "a/"), "b/a/", 0, {}, False),
        (Rule("r", True, greater=5), "k", 5, {}, False),
        (Rule("r", True, greater=5), "k", 6, {}, True),
        (Rule("r", True, less=5), "k", 5, {}, False),
        (Rule("r", True, less=5), "k", 4, {}, True),
        (Rule("r", True, tags={"k": "v"}), "k", 0, {"k": "v", "other": ""}, True),
        (Rule("r", True, tags={"k": "v"}), "k", 0, {"k": "w"}, False),
        (Rule("r", True, tags={"k": "v"}), "k", 0, {}, False),
        (Rule("r", True, tags={"k": "v"}), "k", 0, None, True),
    ],
)
def test_what_a_rule_covers(
    rule: Rule, key: str, size: int, tags: dict[str, str] | None, expected: bool
) -> None:
    assert rule.covers(key, size, tags) is expected


def test_days_end_at_midnight_unless_they_are_for_tests() -> None:
    assert due_ms(5 * DAY_MS + 1, 1, DAY_MS) == 7 * DAY_MS
    assert due_ms(5 * DAY_MS, 1, DAY_MS) == 6 * DAY_MS
    assert due_ms(5001, 2, SHORT_MS) == 7001


def test_earliest_rule_says_when_an_object_goes() -> None:
    rules = [Rule("late", True, days=9), Rule("soon", True, days=2), Rule("not for it", True, "x", days=1)]
    assert expiry(rules, "k", 1, {}, 0) == (2 * DAY_MS, "soon")
    assert expiry([Rule("dated", True, date_ms=7)], "k", 1, {}, 0) == (7, "dated")
    assert expiry([Rule("other", True, noncurrent_days=1)], "k", 1, {}, 0) is None


def known(version: str, at_ms: int, *, latest: bool = False, marker: bool = False) -> Known:
    return Known(version, at_ms, "" if marker else "etag", 1, latest, marker)


def due(rules: list[Rule], versions: list[Known], now_ms: int) -> list[str]:
    return [one.known.version for one in candidates(rules, "k", versions, now_ms, SHORT_MS)]


def test_earlier_versions_age_from_when_they_were_replaced() -> None:
    versions = [known("c", 9000, latest=True), known("b", 5000), known("a", 1000)]
    rule = Rule("r", True, noncurrent_days=2)
    assert due([rule], versions, 6999) == []
    assert due([rule], versions, 7000) == ["a"]
    assert due([rule], versions, 11000) == ["b", "a"]
    assert due([replace(rule, newer=1)], versions, 11000) == ["a"]
    assert due([replace(rule, newer=2)], versions, 11000) == []


def test_current_version_and_markers() -> None:
    rule = Rule("r", True, days=2)
    assert due([rule], [known("a", 1000, latest=True)], 2999) == []
    assert due([rule], [known("a", 1000, latest=True)], 3000) == ["a"]
    gone = [known("m", 5000, latest=True, marker=True), known("a", 1000)]
    assert due([rule], gone, 99_000) == [], "it hides a version"
    assert due([rule], gone[:1], 7000) == ["m"]
    assert due([Rule("r", True, lone_markers=True)], gone[:1], 5000) == ["m"]
    assert due([Rule("r", True, lone_markers=True)], gone, 99_000) == []
    assert due([Rule("r", True, days=1, tags={"k": "v"})], gone[:1], 99_000) == []
    assert due([Rule("r", True, noncurrent_days=1)], gone, 6000) == ["a"]


def test_uploads_that_nobody_goes_on_with() -> None:
    rule = Rule("r", True, "a", abort_days=2)
    assert not is_abandoned([rule], "a", 1000, 2999, SHORT_MS)
    assert is_abandoned([rule], "a", 1000, 3000, SHORT_MS)
    assert not is_abandoned([rule], "b", 1000, 99_000, SHORT_MS)
    assert not is_abandoned([Rule("r", True, days=1)], "a", 1000, 99_000, SHORT_MS)


@pytest.mark.parametrize(
    ("extra", "may_bypass", "expected"),
    [
        ({}, False, False),
        ({"hold": "OFF"}, False, False),
        ({"hold": "ON"}, True, True),
        ({"lock": {"mode": "GOVERNANCE", "until_ms": 6}}, False, True),
        ({"lock": {"mode": "GOVERNANCE", "until_ms": 6}}, True, False),
        ({"lock": {"mode": "COMPLIANCE", "until_ms": 6}}, True, True),
        ({"lock": {"mode": "COMPLIANCE", "until_ms": 5}}, False, False),
    ],
)
def test_what_is_locked(extra: dict[str, Any], may_bypass: bool, expected: bool) -> None:
    assert is_locked(Metadata("e", 0, extra=extra), 5, may_bypass=may_bypass) is expected


# -- passes -----------------------------------------------------------------------------------------


class World:
    """A bucket with rules, and who carries them out."""

    def __init__(self, *rules: Rule, versioning: str = "") -> None:
        self.caller = DirectCaller()
        self.objects = Objects(self.caller, self.caller.clock, SeededRandomness())
        self.expiry = Expiry(self.objects, self.caller.clock, SHORT_MS, lambda iid: True)
        self._config: dict[str, Any] = {"lifecycle": [rule.encode() for rule in rules]}
        if versioning:
            self._config["versioning"] = versioning

    async def begin(self) -> World:
        await self.objects.buckets.create(NAME, shards=2, config=self._config)
        return self

    async def put(self, key: str, data: bytes = b"data", **extra: Any) -> str:
        info = await self.objects.commit(NAME, key, Content(len(data), data), "etag", extra=extra)
        return info.version

    async def pass_after(self, days: float) -> list[str]:
        """What is there when so many days later a pass was made."""
        self.caller.clock.ms += int(days * SHORT_MS)
        await self.expiry.work()
        return [
            ("-" if entry.is_marker else "") + entry.key
            async for entry in self.objects.list_versions(NAME, Wanted())
            if isinstance(entry, ListedVersion)
        ]


async def test_objects_go_when_they_are_due() -> None:
    world = await World(
        Rule("a", True, "a/", days=1), Rule("b", True, "b/", days=5), Rule("c", False, "c/", days=1)
    ).begin()
    for key in ("a/1", "a/2", "b/1", "c/1", "d/1"):
        await world.put(key)
    assert await world.pass_after(0.5) == ["a/1", "a/2", "b/1", "c/1", "d/1"]
    assert await world.pass_after(0.5) == ["b/1", "c/1", "d/1"]
    assert await world.pass_after(4) == ["c/1", "d/1"]


async def test_tags_and_sizes() -> None:
    world = await World(
        Rule("t", True, tags={"k": "v"}, days=1), Rule("s", True, "s/", greater=3, less=9, days=1)
    ).begin()
    await world.put("tagged", tags={"k": "v"})
    await world.put("other", tags={"k": "w"})
    for key, data in (("s/small", b"123"), ("s/right", b"1234"), ("s/large", b"123456789")):
        await world.put(key, data)
    assert await world.pass_after(1) == ["other", "s/large", "s/small"]


async def test_versions_and_then_their_marker() -> None:
    world = await World(
        Rule("r", True, days=2, noncurrent_days=1), Rule("m", True, lone_markers=True), versioning="Enabled"
    ).begin()
    await world.put("k")
    await world.put("k")
    assert await world.pass_after(1.1) == ["k"], "the first was replaced a day ago"
    assert await world.pass_after(1.1) == ["-k", "k"]
    assert await world.pass_after(1.1) == ["-k"]
    assert await world.pass_after(0) == []


async def test_locked_versions_stay() -> None:
    world = await World(Rule("r", True, noncurrent_days=1), versioning="Enabled").begin()
    await world.put("k", hold="ON")
    await world.put("k", lock={"mode": "GOVERNANCE", "until_ms": world.caller.clock.ms + 3 * SHORT_MS})
    await world.put("k")
    assert await world.pass_after(2) == ["k", "k", "k"]
    assert await world.pass_after(2) == ["k", "k"]


async def test_uploads_are_dropped() -> None:
    world = await World(Rule("r", True, "a", abort_days=2)).begin()
    multipart = world.objects.multipart(await world.objects.buckets.read(NAME))
    for key in (b"a", b"b"):
        await multipart.create(key, {}, {})
    await world.pass_after(1)
    assert len([upload async for upload in multipart.uploads(b"", b"")]) == 2
    await world.pass_after(1)
    assert [upload.key async for upload in multipart.uploads(b"", b"")] == [b"b"]


async def test_object_that_is_written_again_meanwhile_stays() -> None:
    world = await World(Rule("r", True, days=1)).begin()
    await world.put("k")

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Delete):
            world.caller.hook = None
            await world.put("k", b"new")

    world.caller.hook = meanwhile
    assert await world.pass_after(1) == ["k"]
    world.caller.hook = None
    assert await (await world.objects.open(NAME, "k")).read() == b"new"


@pytest.mark.parametrize(("step", "kind"), [(Get, Kind.OBJECT), (Get, Kind.VERSION), (Delete, Kind.VERSION)])
async def test_version_that_became_current_again_meanwhile_stays(step: type[Any], kind: Kind) -> None:
    """Somebody takes his deletion back while a pass has the version for one that was replaced long ago."""
    world = await World(Rule("r", True, noncurrent_days=1), versioning="Enabled").begin()
    version = await world.put("k", b"wanted")
    marker = (await world.objects.delete(NAME, "k")).marker

    async def meanwhile(message: Any) -> None:
        if isinstance(message, step) and message.kind == kind:
            world.caller.hook = None
            await world.objects.delete(NAME, "k", marker)

    listed = world.objects.list_versions

    async def listed_then(*args: Any) -> AsyncIterator[Any]:
        entries = [entry async for entry in listed(*args)]
        world.caller.hook = meanwhile
        for entry in entries:
            yield entry

    world.objects.list_versions = listed_then  # type: ignore[method-assign,assignment]
    world.caller.clock.ms += 2 * SHORT_MS
    await world.expiry.work()
    assert world.caller.hook is None, "it was taken back"
    found = await world.objects.open(NAME, "k")
    assert (await found.read(), found.info.version) == (b"wanted", version)


async def test_buckets_of_others_are_theirs() -> None:
    world = await World(Rule("r", True, days=1)).begin()
    await world.put("k")
    world.expiry = Expiry(world.objects, world.caller.clock, SHORT_MS, lambda iid: False)
    assert await world.pass_after(9) == ["k"]


async def test_object_that_is_deleted_while_it_is_listed_stays_deleted() -> None:
    """Its marker stands behind the version that it has replaced: it has not been there for so long."""
    world = await World(Rule("r", True, noncurrent_days=1), versioning="Enabled").begin()
    await world.put("k")

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Scan) and (message.kind, message.shard) == (
            Kind.VERSION,
            shard_of_key(b"k", 2),
        ):
            world.caller.hook = None
            await world.objects.delete(NAME, "k")

    world.caller.hook = meanwhile
    assert await world.pass_after(2) == ["-k", "k"]
    assert await world.pass_after(2) == ["-k"]


async def test_marker_that_became_the_last_word_meanwhile_stays() -> None:
    """Else what it hides would be back when somebody has just deleted what was over it."""
    world = await World(Rule("r", True, noncurrent_days=1), versioning="Enabled").begin()
    await world.put("k")
    await world.objects.delete(NAME, "k")
    version = await world.put("k")

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Get) and (message.kind, message.key) == (Kind.OBJECT, b"k"):
            world.caller.hook = None
            await world.objects.delete(NAME, "k", version)

    world.caller.hook = meanwhile
    assert await world.pass_after(2) == ["-k"]


@pytest.mark.parametrize("is_upload", [False, True])
async def test_rules_that_are_taken_back_end_the_pass(is_upload: bool) -> None:
    """A pass may take hours: who sees that a rule was wrong does not want to watch it go on."""
    world = await World(Rule("r", True, days=1, abort_days=1)).begin()
    multipart = world.objects.multipart(await world.objects.buckets.read(NAME))
    for key in ("a", "b", "c"):
        await (multipart.create(key.encode(), {}, {}) if is_upload else world.put(key))

    async def take_back(message: Any) -> None:
        if isinstance(message, Delete) and message.key.startswith(b"a"):
            world.caller.hook = None
            await world.objects.buckets.configure(NAME, lambda bucket: {})

    world.caller.hook = take_back
    left = await world.pass_after(1)
    if is_upload:
        left = [upload.key.decode() async for upload in multipart.uploads(b"", b"")]
    assert left == ["b", "c"]


@pytest.mark.parametrize("is_upload", [False, True])
async def test_one_key_that_fails_keeps_no_other(is_upload: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Else what comes after a rotten record is never looked at again."""
    world = await World(Rule("r", True, days=1, abort_days=1)).begin()
    multipart = world.objects.multipart(await world.objects.buckets.read(NAME))
    for key in ("a", "b", "c"):
        await (multipart.create(key.encode(), {}, {}) if is_upload else world.put(key))

    async def rotten(message: Any) -> None:
        if isinstance(message, Delete) and message.key.startswith(b"b"):
            raise CorruptObject("the stored record fails its checksum")

    world.caller.hook = rotten
    left = await world.pass_after(1)
    if is_upload:
        left = [upload.key.decode() async for upload in multipart.uploads(b"", b"")]
    assert left == ["b"]
    assert [record.__dict__["reason"] for record in caplog.records] == [
        "the stored record fails its checksum"
    ]


async def test_one_bucket_that_fails_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    world = await World(Rule("r", True, days=1)).begin()
    await world.put("k")
    broken = {"lifecycle": [Rule("x", True, days=1).encode()], "versioning": "Enabled"}
    await world.objects.buckets.create("broken", shards=0, config=broken)
    await world.objects.buckets.create("without", shards=1)
    assert await world.pass_after(1) == []
