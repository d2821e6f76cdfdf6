"""What is answered one floor above the register: nothing says "not written" of what may have been, or was."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.core import multipart
from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.metadata import Metadata
from ssastore.core.objects import Objects
from ssastore.core.place import Place
from ssastore.core.registers import Once, Registers
from ssastore.errors import (
    AccessDenied,
    BucketNotEmpty,
    BucketNotFound,
    ConfigError,
    NotMine,
    OutcomeUnknown,
    OutOfStep,
    Overloaded,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
    StoreFull,
    Unavailable,
)
from ssastore.messages import Delete, Kind, Scan
from tests.direct import DirectCaller, SeededRandomness
from tests.registermodel import Seeded, run_virtually

NAME = "photos"


def client(caller: DirectCaller, seed: int) -> Objects:
    return Objects(caller, caller.clock, SeededRandomness(seed))


async def put(objects: Objects, attempt: int, born_ms: int) -> Any:
    once = Once(b"o" * 16, attempt, born_ms)
    return await objects.commit(
        NAME, "k", Content(4, b"data"), "etag", demand=Demand(if_none_match="*"), once=once
    )


async def test_repetition_while_somebody_tries_to_delete_the_bucket() -> None:
    """Its object is found, and the bucket opens again: "no such bucket" would have been false."""
    caller = DirectCaller()
    first, deleter, second = client(caller, 1), client(caller, 2), client(caller, 3)
    await first.buckets.create(NAME, shards=1)
    born_ms = caller.clock.now_ms()
    await put(first, 1, born_ms)
    told: list[Exception] = []

    async def meanwhile(message: Any) -> None:
        if isinstance(message, Scan) and not told:
            caller.hook = None
            with pytest.raises(OutcomeUnknown) as caught:
                await put(second, 2, born_ms)
            told.append(caught.value)

    caller.hook = meanwhile
    with pytest.raises(BucketNotEmpty):
        await deleter.buckets.delete(NAME)
    assert told and await (await client(caller, 4).open(NAME, "k")).read() == b"data"


@pytest.mark.parametrize("error", [Unavailable("away"), StoreFull("full")])
async def test_repetition_whose_bucket_cannot_be_read(error: Exception) -> None:
    caller = DirectCaller()
    first, second = client(caller, 1), client(caller, 3)
    await first.buckets.create(NAME, shards=1)
    born_ms = caller.clock.now_ms()

    async def away(message: Any) -> None:
        raise error

    caller.hook = away
    with pytest.raises(type(error)):
        await put(second, 1, born_ms)
    with pytest.raises(OutcomeUnknown):
        await put(second, 2, born_ms)
    with pytest.raises(OutcomeUnknown):
        await second.delete(NAME, "k", demand=Demand("e"), once=Once(b"p" * 16, 2, born_ms))


async def test_bucket_that_was_made_again_is_found_by_whoever_tries_again() -> None:
    caller = DirectCaller()
    gateway, other = client(caller, 1), client(caller, 2)
    await gateway.buckets.create(NAME, shards=1)
    await other.buckets.delete(NAME)
    await other.buckets.create(NAME, shards=1)
    with pytest.raises(OutcomeUnknown):
        await put(gateway, 2, caller.clock.now_ms())
    await put(gateway, 3, caller.clock.now_ms())
    assert await (await other.open(NAME, "k")).read() == b"data"


@pytest.mark.parametrize("error", [Unavailable("away"), BucketNotFound("shut"), StoreFull("full")])
@pytest.mark.parametrize("kind", [Kind.UPLOAD, Kind.PART])
async def test_completion_that_was_applied_succeeds_although_nothing_can_be_cleared_up(
    monkeypatch: pytest.MonkeyPatch, error: SsaStoreError, kind: Kind
) -> None:
    monkeypatch.setattr(multipart, "PART_BYTES_MIN", 1)
    caller = DirectCaller()
    objects = client(caller, 1)
    uploads = objects.multipart(await objects.buckets.create(NAME, shards=1))
    upload_id = await uploads.create(b"film", {}, {})
    writer = objects.writer(await objects.bucket(NAME), b"film", inline_bytes_max=0)
    await writer.write(b"data")
    await uploads.put_part(b"film", upload_id, 1, "e1", await writer.finish())

    async def refuse(message: Any) -> None:
        if isinstance(message, Delete) and message.kind == kind:
            raise error

    caller.hook = refuse
    completed = await uploads.complete(b"film", upload_id, [(1, "e1")], "tag")
    caller.hook = None
    assert completed.etag == "tag" and await (await objects.open(NAME, "film")).read() == b"data"


class Scripted:
    """Implements ``core.caller.Caller`` by a list of failures."""

    deadline_ms, replicas = 5000, 3

    def __init__(self, *script: Exception) -> None:
        self._script = list(script)

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return False

    def begin(self, message: Any, iid: int, body: Any = b"") -> None:
        """Nothing is connected."""

    async def call(self, message: Any, iid: int, body: Any = b"", *, within_ms: int | None = None) -> Any:
        raise self._script.pop(0)


@pytest.mark.parametrize("kind", [AccessDenied, ConfigError, RequestError, OutOfStep, Overloaded, NotMine])
def test_other_words_of_the_next_plane_say_nothing_of_the_first(kind: type[SsaStoreError]) -> None:
    async def scenario() -> None:
        registers = Registers(Scripted(OutcomeUnknown("no answer"), kind("refused")), Seeded(1))
        with pytest.raises(OutcomeUnknown):
            await registers.put(Place(7, 0), Kind.OBJECT, b"k", Metadata("e", 1), b"x")

    run_virtually(scenario)


def test_condition_that_is_false_is_no_doubt() -> None:
    """Who says so has looked for the earlier attempt."""

    async def scenario() -> None:
        registers = Registers(Scripted(OutcomeUnknown("no answer"), PreconditionFailed("no")), Seeded(1))
        with pytest.raises(PreconditionFailed):
            await registers.put(Place(7, 0), Kind.OBJECT, b"k", Metadata("e", 1), b"x")

    run_virtually(scenario)
