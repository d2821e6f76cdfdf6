"""One request against one environment: which check answers first, what a repetition gets, what stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.collect import drop_tombstones, due_entries
from ssastore.core.floors import raise_floor
from ssastore.core.holds import State, make_hold
from ssastore.core.metadata import Metadata
from ssastore.core.pages import end_key
from ssastore.core.place import Place, expected_position, place_key
from ssastore.core.records import (
    BOOKKEEPING_FIRST,
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    blob_key,
    record_key,
    reference_key,
)
from ssastore.core.register import LIVE, NO_BALLOT, NONE, TOMBSTONE, Ballots, Value, make_ballot
from ssastore.core.replies import Refusal
from ssastore.core.standing import pack_stands
from ssastore.core.survey import walk
from ssastore.errors import CorruptObject
from ssastore.keyspace import (
    TAIL_BITS,
    iid_of,
    locator_of,
    position_of,
    position_of_blob,
    shard_locator,
    shard_of_key,
    slice16_of,
)
from ssastore.limits import (
    BALLOT_AHEAD_US_MAX,
    CHUNK_BYTES,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    METADATA_BYTES_MAX,
    RECENT_OPS_MS,
)
from ssastore.messages import (
    Accept,
    Condition,
    Delete,
    Get,
    GetBlob,
    Hold,
    Kind,
    Prepare,
    Pull,
    Put,
    PutBlob,
    Scan,
    Shut,
    Status,
)
from ssastore.store.memory import MemoryStore
from tests.direct import iid_of_part, iid_of_record

INDEXED, HASHED = Place(7, 16), Place(8, 0)
NOW = 1_700_000_000_000


def op(number: int) -> bytes:
    return number.to_bytes(16, "big")


def metadata_of(data: bytes) -> bytes:
    return Metadata(etag_of(data), len(data)).encode()


def etag_of(data: bytes) -> str:
    return f"b3-{blake3(data).hexdigest(length=16)}"


class Bench:
    """An acceptor on a memory store; requests in, replies or refusals out."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.acceptor = Acceptor(replicas=1, worker=0, workers=1, ballots=Ballots(1, 1))
        self.acceptor.activate(set(range(4096)))
        self.now_ms = NOW
        self._ops = 0

    async def write(self, request: Any, body: bytes = b"") -> Any:
        fields, _ = await self.store.submit(lambda txn: self.acceptor.write(request, txn, body, self.now_ms))
        if isinstance(request, Delete):
            return fields[1]
        return fields[0] if fields else None

    def read(self, request: Any) -> tuple[list[Any], bytes]:
        with self.store.read() as txn:
            fields, body = self.acceptor.read(request, txn)
        return fields, bytes(body)

    async def put(
        self,
        key: bytes,
        data: bytes,
        number: int | None = None,
        condition: int = 0,
        etag: str = "",
        place: Place = INDEXED,
    ) -> Any:
        return await self.write(self.put_of(key, data, number, condition, etag, place), data)

    def put_of(
        self,
        key: bytes,
        data: bytes,
        number: int | None = None,
        condition: int = 0,
        etag: str = "",
        place: Place = INDEXED,
    ) -> Put:
        self._ops += 1
        op_id = op(10_000 + self._ops if number is None else number)
        iid = iid_of_record(place, key)
        return Put(
            iid,
            Kind.OBJECT,
            place.bucket,
            place.shards,
            key,
            op_id,
            condition,
            etag,
            1,
            self.now_ms,
            metadata_of(data),
        )

    async def delete(
        self,
        key: bytes,
        number: int | None = None,
        condition: int = 0,
        etag: str = "",
        place: Place = INDEXED,
    ) -> Any:
        self._ops += 1
        op_id = op(10_000 + self._ops if number is None else number)
        iid = iid_of_record(place, key)
        return await self.write(
            Delete(iid, Kind.OBJECT, place.bucket, place.shards, key, op_id, condition, etag, 1, self.now_ms)
        )

    def get(self, key: bytes, place: Place = INDEXED) -> bytes | None:
        iid = iid_of_record(place, key)
        fields, data = self.read(Get(iid, Kind.OBJECT, place.bucket, place.shards, key, False))
        assert fields[0] == 1 and (fields[1] > NO_BALLOT) is (fields[2] != NONE)
        return data if fields[2] == LIVE else None

    async def shut(self, attempt: int, shut: bool = True, key: bytes = b"k", place: Place = INDEXED) -> None:
        iid = iid_of_record(place, key, 2 if self.acceptor.replicas > 1 else 0)
        shard = next(
            (
                s
                for s in range(place.shards)
                if shard_locator(place.bucket, s) == position_of(iid) >> TAIL_BITS
            ),
            0,
        )
        await self.write(Shut(iid, place.bucket, place.shards, shard, attempt, shut))

    async def collect(self, before_ms: int, limit: int = 100) -> int:
        """How many entries of the queue of tombstones were due, and are worked off."""
        with self.store.read() as txn:
            due = due_entries(txn, TOMBSTONES_FIRST, max(before_ms, 0), limit)
        await self.store.submit(lambda txn: drop_tombstones(txn, due, before_ms))
        return len(due)

    def records(self) -> int:
        """How many records there are beside bookkeeping."""
        with self.store.read() as txn:
            return sum(1 for _ in walk(txn, b"\0", BOOKKEEPING_FIRST))

    def keys(self, first: bytes, end: bytes) -> list[bytes]:
        with self.store.read() as txn:
            return [key for key, _ in txn.scan(first, end)]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def refused(status: Status, work: Any) -> None:
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.status == status


def read_refused(status: Status, bench: Bench, request: Any) -> None:
    with pytest.raises(Refusal) as caught:
        bench.read(request)
    assert caught.value.status == status


# -- where a request belongs ------------------------------------------------------------------------


def with_iid(request: Any, iid: int) -> Any:
    request.iid = iid
    return request


def requests_of(key: bytes) -> list[Any]:
    """Every request that names a place, as it should be."""
    digest = blake3(b"blob").digest()
    blob_iid = iid_of(position_of_blob(digest), 0)
    requests: list[Any] = []
    for place in (INDEXED, HASHED):
        iid = iid_of_record(place, key)
        requests += [
            Get(iid, Kind.OBJECT, place.bucket, place.shards, key, False),
            Put(iid, Kind.OBJECT, place.bucket, place.shards, key, op(1), 0, "", 1, 0, metadata_of(b"")),
            Delete(iid, Kind.OBJECT, place.bucket, place.shards, key, op(2), 0, "", 1, 0),
        ]
    shard_iid = iid_of_part(INDEXED, 3)
    requests += [
        Scan(shard_iid, Kind.OBJECT, 7, 16, 3, b"", b"", b"", 1, False),
        Shut(shard_iid, 7, 16, 3, 1, True),
        PutBlob(blob_iid, digest, b""),
        GetBlob(blob_iid, digest),
    ]
    return requests


async def handle(bench: Bench, request: Any) -> None:
    if isinstance(request, Get | Scan | GetBlob):
        bench.read(request)
    else:
        await bench.write(request, b"blob" if isinstance(request, PutBlob) else b"")


@pytest.mark.parametrize("at", range(10))
async def test_name_that_does_not_hash_to_the_address_is_misdirected(bench: Bench, at: int) -> None:
    """One bit of the locator or of the plane is wrong; that the slice is not owned comes second."""
    iid = requests_of(b"cat.jpg")[at].iid
    for bit in (32, 47, 48, 59):
        await refused(
            Status.MISDIRECTED, handle(bench, with_iid(requests_of(b"cat.jpg")[at], iid ^ 1 << bit))
        )
    bench.acceptor.activate(set())
    await refused(Status.MISDIRECTED, handle(bench, with_iid(requests_of(b"cat.jpg")[at], iid ^ 1 << 40)))


@pytest.mark.parametrize("at", range(10))
@pytest.mark.parametrize("plane", [5, 14, 15, -1])
async def test_plane_without_data_is_misdirected(bench: Bench, at: int, plane: int) -> None:
    request = requests_of(b"cat.jpg")[at]
    await refused(Status.MISDIRECTED, handle(bench, with_iid(request, request.iid + (plane << 60))))


@pytest.mark.parametrize("at", range(10))
@pytest.mark.parametrize("plane", [1, 4])
async def test_plane_that_a_group_may_get_is_not_mine(bench: Bench, at: int, plane: int) -> None:
    request = requests_of(b"cat.jpg")[at]
    await refused(Status.NOT_MINE, handle(bench, with_iid(request, request.iid + (plane << 60))))


@pytest.mark.parametrize("at", range(10))
async def test_slice_of_another_node_is_not_mine(bench: Bench, at: int) -> None:
    request = requests_of(b"cat.jpg")[at]
    bench.acceptor.activate(set(range(4096)) - {slice16_of(request.iid)})
    await refused(Status.NOT_MINE, handle(bench, request))
    bench.acceptor.activate({slice16_of(request.iid)})
    if isinstance(request, GetBlob):
        await refused(Status.NOT_FOUND, handle(bench, request))
    else:
        await handle(bench, request)


async def test_wrong_tail_is_misdirected_for_a_name_and_free_for_a_shard(bench: Bench) -> None:
    get = requests_of(b"cat.jpg")[0]
    read_refused(Status.MISDIRECTED, bench, with_iid(get, get.iid ^ 1))
    scan = requests_of(b"cat.jpg")[6]
    bench.read(with_iid(scan, scan.iid ^ 1))


async def test_three_planes_with_three_replicas() -> None:
    acceptor = Acceptor(replicas=3, worker=0, workers=1, ballots=Ballots(1, 1))
    acceptor.activate({slice16_of(iid_of_record(INDEXED, b"k", plane)) for plane in range(3)})
    with MemoryStore().read() as txn:
        for plane in range(3):
            get = Get(iid_of_record(INDEXED, b"k", plane), Kind.OBJECT, 7, 16, b"k", False)
            assert acceptor.read(get, txn) == ([1, NO_BALLOT, NONE, 0, b""], b"")
        with pytest.raises(Refusal) as caught:
            get = Get(iid_of_record(INDEXED, b"k", 3), Kind.OBJECT, 7, 16, b"k", False)
            acceptor.read(get, txn)
        assert caught.value.status == Status.NOT_MINE


COUNTED = [0, 6, 7, 8, 9]
"Requests whose answer is to be one of a number of planes: Get, Scan, Shut, PutBlob, GetBlob."


@pytest.mark.parametrize("at", COUNTED)
async def test_request_for_another_number_of_planes_is_told_the_right_one(bench: Bench, at: int) -> None:
    """Else a client that knows an older number would take one plane's word for that of a majority."""
    request = requests_of(b"cat.jpg")[at]
    bench.acceptor.served.count([slice16_of(request.iid) & 0xFFF], 3)
    for replicas in (1, 2, 5):
        request.replicas = replicas
        with pytest.raises(Refusal) as caught:
            await handle(bench, request)
        assert (caught.value.status, caught.value.text) == (Status.RECOUNT, "3")
    bench.acceptor.activate(set())
    await refused(Status.NOT_MINE, handle(bench, request))


async def test_alone_it_decides_only_for_groups_of_one_plane(bench: Bench) -> None:
    """A group that has got more planes since the request came is decided by a majority, in a moment."""
    put, delete = requests_of(b"cat.jpg")[1:3]
    bench.acceptor.served.count([slice16_of(put.iid) & 0xFFF], 2)
    await refused(Status.SILENT, handle(bench, put))
    await refused(Status.SILENT, handle(bench, delete))


def test_worker_serves_its_lanes_only() -> None:
    acceptor = Acceptor(replicas=1, worker=1, workers=4, ballots=Ballots(1, 1))
    acceptor.activate(set(range(32)))
    assert acceptor.owned == {1, 5, 9, 13, 17, 21, 25, 29}


def test_uploads_and_parts_stand_beside_their_object() -> None:
    key, upload = b"a/b", b"a/b\0" + b"0" * 32
    assert place_key(upload) == place_key(upload + b"\0\x01") == place_key(key) == key
    for place in (INDEXED, HASHED):
        assert expected_position(place.bucket, place.shards, upload) == expected_position(
            place.bucket, place.shards, key
        )


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [INDEXED, HASHED], ids=["indexed", "hashed"])
async def test_object_is_written_read_and_deleted(bench: Bench, place: Place) -> None:
    assert bench.get(b"k", place) is None
    assert await bench.put(b"k", b"data", place=place) == NOW
    assert bench.get(b"k", place) == b"data"
    head = bench.read(Get(iid_of_record(place, b"k"), Kind.OBJECT, place.bucket, place.shards, b"k", True))
    assert head[0][2:] == [LIVE, NOW, metadata_of(b"data")] and head[1] == b""
    assert await bench.delete(b"k", place=place) is True
    assert bench.get(b"k", place) is None
    assert await bench.delete(b"k", place=place) is False


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX])
async def test_inline_data_of_all_sizes(bench: Bench, size: int) -> None:
    await bench.put(b"k", bytes(size))
    assert bench.get(b"k") == bytes(size)


async def test_value_that_is_too_large_is_refused(bench: Bench) -> None:
    await refused(Status.BAD_REQUEST, bench.put(b"k", bytes(INLINE_BYTES_MAX + 1)))
    put = bench.put_of(b"k", b"")
    put.metadata = Metadata("e" * (METADATA_BYTES_MAX + 4096), 0).encode()
    await refused(Status.BAD_REQUEST, bench.write(put))
    assert bench.store.usage().records == 0


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x90", b"\x01", msgpack.packb([1, 2, [], {}, {}, {}])])
async def test_metadata_that_no_listing_could_show_is_refused(bench: Bench, packed: bytes) -> None:
    """One such record would make the listing of its whole shard fail, for everybody."""
    put = bench.put_of(b"k", b"")
    put.metadata = packed
    await refused(Status.BAD_REQUEST, bench.write(put))


@pytest.mark.parametrize("key", [b"a\0b", b"\0", b"\0a", b"\xff", b"\xc3", b"k" * (KEY_BYTES_MAX + 1)])
async def test_key_that_is_none_is_refused(bench: Bench, key: bytes) -> None:
    await refused(Status.BAD_REQUEST, bench.put(key, b""))
    assert bench.store.usage().records == 0


@pytest.mark.parametrize(
    "key", ["a", "/", "a//b", "é" * 512, "\U0001f600" * 256, "\x01\n", "../../etc/passwd"]
)
async def test_every_other_key_is_taken(bench: Bench, key: str) -> None:
    await bench.put(key.encode(), b"data")
    assert bench.get(key.encode()) == b"data"


async def test_keys_that_differ_in_normal_form_are_two(bench: Bench) -> None:
    await bench.put("é".encode(), b"one")
    await bench.put("e\u0301".encode(), b"two")
    assert (bench.get("é".encode()), bench.get("e\u0301".encode())) == (b"one", b"two")


async def test_last_modified_never_goes_back(bench: Bench) -> None:
    await bench.put(b"k", b"one")
    bench.now_ms -= 5000
    assert await bench.put(b"k", b"two") == NOW
    bench.now_ms = NOW + 1
    assert await bench.put(b"k", b"three") == NOW + 1


async def test_rotten_record_is_corrupt_and_not_overwritten(bench: Bench) -> None:
    await bench.put(b"k", b"data")
    iid = iid_of_record(INDEXED, b"k")
    stored_key = record_key(locator_of(iid), Kind.OBJECT, 7, b"k")
    sealed = bytearray(bench.store.peek(stored_key))
    sealed[-1] ^= 1
    bench.store.poke(stored_key, bytes(sealed))
    for work in (bench.put(b"k", b"new"), bench.delete(b"k")):
        with pytest.raises(CorruptObject):
            await work
    with pytest.raises(CorruptObject):
        bench.get(b"k")


# -- conditions -------------------------------------------------------------------------------------

OLD = etag_of(b"old")
CONDITIONS = [
    # condition, etag, refusal without an object, with one
    (Condition.NONE, "", None, None),
    (Condition.NONE, "ignored", None, None),
    (Condition.IF_ABSENT, "", None, Status.PRECONDITION_FAILED),
    (Condition.IF_PRESENT, "", Status.NOT_FOUND, None),
    (Condition.IF_ETAG, OLD, Status.NOT_FOUND, None),
    (Condition.IF_ETAG, "another", Status.NOT_FOUND, Status.PRECONDITION_FAILED),
    (Condition.IF_ETAG, "", Status.NOT_FOUND, Status.PRECONDITION_FAILED),
]


@pytest.mark.parametrize(("condition", "etag", "without", "with_object"), CONDITIONS)
@pytest.mark.parametrize("state", ["never", "deleted", "there"])
async def test_condition_of_a_put(
    bench: Bench, condition: int, etag: str, without: Status | None, with_object: Status | None, state: str
) -> None:
    if state != "never":
        await bench.put(b"k", b"old")
    if state == "deleted":
        await bench.delete(b"k")
    expected = with_object if state == "there" else without
    before = bench.get(b"k")
    put = bench.put(b"k", b"new", condition=condition, etag=etag)
    if expected is None:
        await put
        assert bench.get(b"k") == b"new"
    else:
        await refused(expected, put)
        assert bench.get(b"k") == before


@pytest.mark.parametrize(("condition", "etag", "without", "with_object"), CONDITIONS)
@pytest.mark.parametrize("state", ["never", "deleted", "there"])
async def test_condition_of_a_delete(
    bench: Bench, condition: int, etag: str, without: Status | None, with_object: Status | None, state: str
) -> None:
    if state != "never":
        await bench.put(b"k", b"old")
    if state == "deleted":
        await bench.delete(b"k")
    expected = with_object if state == "there" else without
    before = bench.get(b"k")
    delete = bench.delete(b"k", condition=condition, etag=etag)
    if expected is None:
        assert await delete is (state == "there")
        assert bench.get(b"k") is None
    else:
        await refused(expected, delete)
        assert bench.get(b"k") == before


# -- repetition -------------------------------------------------------------------------------------


async def test_repeated_put_gets_its_first_result_and_undoes_nothing(bench: Bench) -> None:
    first = await bench.put(b"k", b"one", number=1)
    bench.now_ms += 10
    await bench.put(b"k", b"two", number=2)
    bench.now_ms += 10
    assert await bench.put(b"k", b"one", number=1) == first
    assert bench.get(b"k") == b"two"


async def test_repeated_conditional_put_is_not_refused_for_its_own_write(bench: Bench) -> None:
    first = await bench.put(b"k", b"one", number=1, condition=Condition.IF_ABSENT)
    assert await bench.put(b"k", b"one", number=1, condition=Condition.IF_ABSENT) == first
    second = await bench.put(b"k", b"two", 2, Condition.IF_ETAG, etag_of(b"one"))
    assert await bench.put(b"k", b"two", 2, Condition.IF_ETAG, etag_of(b"one")) == second


async def test_repeated_put_after_a_delete_stays_deleted(bench: Bench) -> None:
    await bench.put(b"k", b"one", number=1)
    await bench.delete(b"k", number=2)
    await bench.put(b"k", b"one", number=1)
    assert bench.get(b"k") is None


async def test_repeated_delete_spares_what_was_written_since(bench: Bench) -> None:
    await bench.put(b"k", b"one", number=1)
    assert await bench.delete(b"k", number=2) is True
    await bench.put(b"k", b"new", number=3)
    assert await bench.delete(b"k", number=2) is True
    assert await bench.delete(b"k", 2, Condition.IF_ETAG, etag_of(b"one")) is True
    assert bench.get(b"k") == b"new"


async def test_repeated_put_gets_its_result_though_the_bucket_is_shut_now(bench: Bench) -> None:
    first = await bench.put(b"k", b"one", number=1)
    await bench.shut(1)
    assert await bench.put(b"k", b"one", number=1) == first
    await refused(Status.NO_BUCKET, bench.put(b"k", b"two", number=2))


async def test_refused_operation_is_evaluated_again(bench: Bench) -> None:
    await bench.put(b"k", b"one")
    await refused(Status.PRECONDITION_FAILED, bench.put(b"k", b"x", 5, Condition.IF_ABSENT))
    await bench.delete(b"k")
    await bench.put(b"k", b"x", 5, Condition.IF_ABSENT)
    assert bench.get(b"k") == b"x"


async def test_operation_of_one_key_is_unknown_to_another(bench: Bench) -> None:
    await bench.put(b"k", b"one", number=1)
    await bench.put(b"l", b"two", number=1)
    assert bench.get(b"l") == b"two"


KEYS = [b"a", b"b"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put if absent", "put if etag", "delete", "delete if etag", "again", "wait"]),
        st.sampled_from(KEYS),
        st.integers(0, 5),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=80)
def test_register_behaves_as_a_dictionary_in_which_repetitions_do_nothing(
    plan: list[tuple[str, bytes, int]],
) -> None:
    async def run() -> None:
        bench, model = Bench(), dict.fromkeys(KEYS, b"")
        done: list[tuple[Any, bytes, Any]] = []
        for number, (step, key, value) in enumerate(plan):
            data = b"%d" % value
            condition, etag = Condition.NONE, ""
            if "absent" in step:
                condition = Condition.IF_ABSENT
            elif "etag" in step:
                condition, etag = Condition.IF_ETAG, etag_of(b"1")
            allowed = not condition or (
                not model[key] if condition == Condition.IF_ABSENT else model[key] == b"1"
            )
            if step == "wait":
                bench.now_ms += value * 1000
            elif step == "again" and done:
                request, body, first = done[value % len(done)]
                assert await bench.write(request, body) == first
            elif step.startswith("put"):
                request = bench.put_of(key, data, number, condition, etag)
                if allowed:
                    done.append((request, data, await bench.write(request, data)))
                    model[key] = data
                else:
                    await refused(
                        Status.PRECONDITION_FAILED if model[key] else Status.NOT_FOUND,
                        bench.write(request, data),
                    )
            elif step.startswith("delete"):
                if not allowed:
                    await refused(
                        Status.PRECONDITION_FAILED if model[key] else Status.NOT_FOUND,
                        bench.delete(key, number, condition, etag),
                    )
                else:
                    assert await bench.delete(key, number, condition, etag) is bool(model[key])
                    model[key] = b""
            for name in KEYS:
                assert (bench.get(name) or b"") == model[name]

    asyncio.run(run())


# -- shut buckets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [INDEXED, HASHED], ids=["indexed", "hashed"])
async def test_shut_bucket_takes_no_writes_but_reads_and_deletes(bench: Bench, place: Place) -> None:
    await bench.put(b"k", b"one", place=place)
    await bench.shut(1, place=place)
    await refused(Status.NO_BUCKET, bench.put(b"k", b"two", place=place))
    assert bench.get(b"k", place) == b"one"
    assert await bench.delete(b"k", place=place) is True
    await bench.shut(1, False, place=place)
    await bench.put(b"k", b"three", place=place)
    assert bench.get(b"k", place) == b"three"


async def test_shut_is_for_one_bucket_only(bench: Bench) -> None:
    await bench.shut(1, key=b"k")
    await bench.put(b"k", b"one", place=Place(9, 16))
    await bench.put(b"k", b"one", place=HASHED)


async def test_shut_hashed_bucket_refuses_in_the_whole_slice(bench: Bench) -> None:
    """One mark stands for all 65,536 locators of a group."""
    await bench.write(Shut(iid_of_part(HASHED, 0xA3F), 8, 0, 0, 1, True))
    refusals = 0
    for number in range(20_000):
        key = b"key %d" % number
        iid = iid_of_record(HASHED, key)
        if slice16_of(iid) == 0xA3F:
            await refused(Status.NO_BUCKET, bench.put(key, b"", place=HASHED))
            refusals += 1
    assert refusals


async def test_overtaken_deletion_cannot_reopen_or_shut(bench: Bench) -> None:
    await bench.shut(1)
    await bench.shut(2)
    await refused(Status.PRECONDITION_FAILED, bench.shut(1, False))
    await refused(Status.NO_BUCKET, bench.put(b"k", b""))
    await bench.shut(2, False)
    await refused(Status.PRECONDITION_FAILED, bench.shut(1))
    await bench.put(b"k", b"")


async def test_late_repetition_of_shutting_does_not_shut_again(bench: Bench) -> None:
    await bench.shut(1)
    await bench.shut(1, False)
    await refused(Status.PRECONDITION_FAILED, bench.shut(1))
    await bench.put(b"k", b"")
    await bench.shut(1, False)
    await bench.shut(2)
    await bench.shut(2)
    await refused(Status.NO_BUCKET, bench.put(b"k", b""))


# -- blobs ------------------------------------------------------------------------------------------


def blob_request(content: bytes, reference: bytes = b"") -> PutBlob:
    digest = blake3(content).digest()
    return PutBlob(iid_of(position_of_blob(digest), 0), digest, reference)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES])
async def test_blob_is_stored_once(bench: Bench, size: int) -> None:
    content = bytes(size)
    request = blob_request(content)
    assert await bench.write(request, content) is False
    assert await bench.write(request, content) is True
    assert bench.read(GetBlob(request.iid, request.digest)) == ([], content)
    assert bench.store.usage().records == 2, "the blob and its reference"


async def test_each_reference_is_kept_once(bench: Bench) -> None:
    for reference in (b"one", b"two", b"two", b""):
        await bench.write(blob_request(b"blob", reference), b"blob")
    request = blob_request(b"blob")
    locator = locator_of(request.iid)
    with bench.store.read() as txn:
        assert bytes(txn.get(reference_key(locator, request.digest, b"one")) or b"") == (
            NOW.to_bytes(8, "big") + b"one"
        )
    assert bench.store.usage().records == 4


async def test_blob_that_does_not_match_its_digest_is_refused(bench: Bench) -> None:
    await refused(Status.BAD_REQUEST, bench.write(blob_request(b"blob"), b"blub"))
    assert bench.store.usage().records == 0


async def test_blob_that_is_not_there(bench: Bench) -> None:
    request = blob_request(b"blob")
    read_refused(Status.NOT_FOUND, bench, GetBlob(request.iid, request.digest))


async def test_rotten_blob_is_mended_by_the_next_put(bench: Bench) -> None:
    """Else no object with this content could be stored any more."""
    request = blob_request(b"blob", b"one")
    await bench.write(request, b"blob")
    stored_key = blob_key(locator_of(request.iid), request.digest)
    bench.store.poke(stored_key, b"rotten bytes")
    with pytest.raises(CorruptObject):
        bench.read(GetBlob(request.iid, request.digest))
    assert await bench.write(blob_request(b"blob", b"two"), b"blob") is False
    assert bench.read(GetBlob(request.iid, request.digest)) == ([], b"blob")


# -- tombstones -------------------------------------------------------------------------------------


def queue_of(bench: Bench) -> list[bytes]:
    return bench.keys(TOMBSTONES_FIRST, TOMBSTONES_END)


async def test_old_tombstones_go_and_young_ones_stay(bench: Bench) -> None:
    for number in range(5):
        await bench.put(b"%d" % number, b"")
        await bench.delete(b"%d" % number)
        bench.now_ms += 1000
    assert await bench.collect(NOW) == 0
    assert await bench.collect(NOW + 2001) == 3
    assert len(queue_of(bench)) == 2 and bench.records() == 2
    assert await bench.collect(NOW + 10**6) == 2
    assert bench.records() == 0


async def test_live_record_is_never_collected(bench: Bench) -> None:
    await bench.put(b"k", b"one")
    await bench.delete(b"k")
    await bench.put(b"k", b"two")
    assert await bench.collect(NOW + 10**6) == 1
    assert bench.get(b"k") == b"two" and not queue_of(bench)


async def test_tombstone_that_was_renewed_stays(bench: Bench) -> None:
    """Deleted, written again, deleted again: the older entry of the queue takes nothing away."""
    await bench.put(b"k", b"one")
    await bench.delete(b"k")
    bench.now_ms += 5000
    await bench.put(b"k", b"two", number=7)
    await bench.delete(b"k", number=8)
    assert await bench.collect(NOW + 1) == 1
    assert await bench.delete(b"k", number=8) is True, "the second delete is still remembered"
    assert await bench.collect(NOW + 5001) == 2
    assert bench.records() == 0 and not queue_of(bench)


async def test_collection_takes_a_batch_at_a_time(bench: Bench) -> None:
    for number in range(7):
        await bench.put(b"%d" % number, b"")
        await bench.delete(b"%d" % number)
    assert [await bench.collect(NOW + 1, 3) for _ in range(4)] == [3, 3, 1, 0]


async def test_clock_of_1970_collects_nothing(bench: Bench) -> None:
    await bench.put(b"k", b"")
    await bench.delete(b"k")
    assert await bench.collect(-RECENT_OPS_MS) == 0


async def test_rotten_tombstone_does_not_hold_up_the_others(bench: Bench) -> None:
    for key in (b"a", b"b", b"c"):
        await bench.put(key, b"")
        await bench.delete(key)
    stored_key = record_key(locator_of(iid_of_record(INDEXED, b"b")), Kind.OBJECT, 7, b"b")
    bench.store.poke(stored_key, b"rotten bytes")
    assert await bench.collect(NOW + 1) == 3
    assert not queue_of(bench)
    assert bench.records() == 1
    assert bench.store.peek(stored_key) == b"rotten bytes", "it stays, to be found"


# -- coverage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "runs"),
    [
        (set(), []),
        ({5}, [[5, 6]]),
        ({1, 2, 3, 7, 9, 10}, [[1, 4], [7, 8], [9, 11]]),
        (set(range(4096)), [[0, 4096]]),
        ({0xFFFF}, [[0xFFFF, 0x10000]]),
    ],
)
def test_coverage_is_runs_of_slices(active: set[int], runs: list[list[int]]) -> None:
    assert msgpack.unpackb(encode_coverage(active, 3)) == [3, runs]


# -- several replicas -------------------------------------------------------------------------------

B1, B2, B3 = (make_ballot(counter, 1, 1) for counter in (1, 2, 3))


class Plane(Bench):
    """One of three planes."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = b""
        self.acceptor = Acceptor(replicas=3, worker=0, workers=1, ballots=Ballots(1, 1))
        self.acceptor.activate(set(range(0x3000)))

    async def ask(self, request: Any, body: bytes = b"") -> tuple[list[Any], bytes]:
        fields, answer = await self.store.submit(
            lambda txn: self.acceptor.write(request, txn, body, self.now_ms)
        )
        return fields, bytes(answer)

    async def prepare(self, ballot: bytes, key: bytes = b"k", cfg: int = 1) -> tuple[list[Any], bytes]:
        """What is promised, but for the hold."""
        iid = iid_of_record(INDEXED, key, 2)
        (*fields, self.hold), value = await self.ask(Prepare(iid, Kind.OBJECT, 7, 16, key, cfg, ballot))
        return fields, value

    async def accept(
        self, ballot: bytes, value: Value | bytes, reserved: bytes = NO_BALLOT, cfg: int = 1
    ) -> None:
        iid = iid_of_record(INDEXED, b"k", 2)
        body = value if isinstance(value, bytes) else b"".join(value.encode())
        assert await self.ask(Accept(iid, Kind.OBJECT, 7, 16, b"k", cfg, ballot, reserved), body) == ([], b"")

    def held(self) -> tuple[list[Any], bytes]:
        return self.read(Get(iid_of_record(INDEXED, b"k", 2), Kind.OBJECT, 7, 16, b"k", False))


@pytest.fixture
async def plane() -> Plane:
    return Plane()


async def outrun(ballot: bytes, work: Any) -> None:
    with pytest.raises(Refusal) as caught:
        await work
    assert (caught.value.status, caught.value.text) == (Status.OUTRUN, ballot.hex())


VALUE = Value(LIVE, NOW, metadata_of(b"data"), b"data")


async def test_both_phases(plane: Plane) -> None:
    assert await plane.prepare(B1) == ([1, NO_BALLOT, NO_BALLOT], b"")
    assert plane.held() == ([1, NO_BALLOT, NONE, 0, b""], b"")
    await plane.accept(B1, VALUE)
    assert plane.held() == ([1, B1, LIVE, NOW, metadata_of(b"data")], b"data")
    fields, value = await plane.prepare(B2)
    assert fields == [1, B1, NO_BALLOT] and value == b"".join(bytes(part) for part in VALUE.encode())


async def test_shard_that_is_held_takes_what_was_counted_and_says_so(plane: Plane) -> None:
    hold = make_hold(3, B1)
    iid, shard = iid_of_record(INDEXED, b"k", 2), shard_of_key(b"k", 16)
    await plane.prepare(B1)
    assert plane.hold == b""
    assert await plane.ask(Hold(iid, 7, 16, shard, hold, State.SET, 3)) == ([1], b"")
    body = b"".join(VALUE.encode())
    with pytest.raises(Refusal) as caught:
        await plane.accept(B1, VALUE)
    assert (caught.value.status, caught.value.text) == (Status.HELD, hold.hex())
    await plane.ask(Accept(iid, Kind.OBJECT, 7, 16, b"k", 1, B1, NO_BALLOT, hold), body)
    await plane.ask(Hold(iid, 7, 16, shard, hold, State.COUNTED, 3))
    await plane.prepare(B2)
    assert plane.hold == hold + bytes([State.COUNTED])
    with pytest.raises(Refusal):
        await plane.accept(B2, Value(TOMBSTONE, NOW))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"replicas": 1}, Status.RECOUNT),
        ({"shard": 15 - shard_of_key(b"k", 16)}, Status.MISDIRECTED),
        ({"hold": make_hold(1, make_ballot((NOW + 90_000_000) * 1000, 1, 1))}, Status.BAD_REQUEST),
    ],
)
async def test_hold_that_makes_no_sense_is_refused(
    plane: Plane, change: dict[str, Any], status: Status
) -> None:
    message = Hold(iid_of_record(INDEXED, b"k", 2), 7, 16, shard_of_key(b"k", 16), make_hold(1, B1), 1, 3)
    with pytest.raises(Refusal) as caught:
        await plane.ask(replace(message, **change))
    assert caught.value.status == status


async def test_late_ballots_are_told_what_outran_them(plane: Plane) -> None:
    await plane.prepare(B2)
    await outrun(B2, plane.prepare(B1))
    await outrun(B2, plane.prepare(B2))
    await outrun(B2, plane.accept(B1, VALUE))
    await plane.accept(B2, VALUE, B3)
    await outrun(B3, plane.prepare(B3))
    assert plane.held()[0][1] == B2


async def test_accept_that_comes_twice_is_a_success_whatever_came_between(plane: Plane) -> None:
    await plane.accept(B1, VALUE)
    await plane.prepare(B3)
    await plane.shut(1)
    await plane.accept(B1, VALUE)
    await outrun(B3, plane.prepare(B2))


async def test_promise_outlives_the_process(plane: Plane) -> None:
    await plane.prepare(B2)
    plane.acceptor = Acceptor(replicas=3, worker=0, workers=1, ballots=Ballots(1, 2))
    plane.acceptor.activate(set(range(0x3000)))
    await outrun(B2, plane.accept(B1, VALUE))


async def test_other_configuration_gets_no_vote(plane: Plane) -> None:
    for cfg, status in ((0, Status.STALE), (2, Status.BEHIND)):
        await refused(status, plane.prepare(B1, cfg=cfg))
        await refused(status, plane.accept(B1, VALUE, cfg=cfg))
    assert plane.store.usage().records == 0


async def test_ballot_of_the_far_future_gets_no_vote(plane: Plane) -> None:
    """One proposer with a broken clock would shut everybody else out."""
    future = make_ballot((NOW + 1) * 1000 + BALLOT_AHEAD_US_MAX, 1, 1)
    await refused(Status.BAD_REQUEST, plane.prepare(future))
    await refused(Status.BAD_REQUEST, plane.accept(future, VALUE))


async def test_shut_bucket_promises_and_accepts_nothing(plane: Plane) -> None:
    await plane.shut(1)
    await plane.prepare(B1)
    for value in (VALUE, Value(TOMBSTONE, NOW), Value()):
        await refused(Status.NO_BUCKET, plane.accept(B1, value))
    await plane.shut(1, False)
    await plane.accept(B1, VALUE)


async def test_value_that_is_none_is_not_accepted(plane: Plane) -> None:
    with pytest.raises(CorruptObject):
        await plane.accept(B1, b"rotten")
    assert plane.held()[0][1] == NO_BALLOT


async def test_rotten_slot_is_silent(plane: Plane) -> None:
    """To answer "nothing here" would forget what was promised and accepted."""
    await plane.accept(B1, VALUE)
    iid = iid_of_record(INDEXED, b"k", 2)
    plane.store.poke(record_key(locator_of(iid), Kind.OBJECT, 7, b"k"), b"rotten bytes")
    for work in (plane.prepare(B2), plane.accept(B2, VALUE)):
        with pytest.raises(CorruptObject):
            await work
    with pytest.raises(CorruptObject):
        plane.held()


async def test_replicated_record_is_not_written_past_its_proposer(plane: Plane) -> None:
    await refused(Status.SILENT, plane.put(b"k", b"data"))
    await refused(Status.SILENT, plane.delete(b"k"))


# -- configurations ---------------------------------------------------------------------------------


async def test_slice_that_is_owned_and_does_not_vote_is_silent(plane: Plane) -> None:
    """It says so: whoever asks need not dial the address again."""
    slice16 = slice16_of(iid_of_record(INDEXED, b"k", 2))
    await plane.accept(B1, VALUE)
    plane.acceptor.served.hush(slice16)
    await refused(Status.SILENT, plane.prepare(B2))
    await refused(Status.SILENT, plane.accept(B2, VALUE))
    with pytest.raises(Refusal) as caught:
        plane.held()
    assert caught.value.status == Status.SILENT
    plane.acceptor.served.vote(slice16, 3)
    assert plane.held()[0][:2] == [3, B1]


async def test_every_answer_of_a_plane_says_its_cfg(plane: Plane) -> None:
    plane.acceptor.activate(set(range(0x3000)), cfg=5)
    assert plane.held()[0][0] == 5
    assert (await plane.prepare(B1, cfg=5))[0][0] == 5
    position = shard_locator(7, 3) << TAIL_BITS | 1
    scan = Scan(iid_of(position, 2), Kind.OBJECT, 7, 16, 3, b"", b"", b"", 10, True)
    assert plane.read(scan)[0][2] == 5
    assert (await plane.ask(Shut(iid_of(position, 2), 7, 16, 3, 1, True)))[0][0] == 5
    content = b"content"
    digest = blake3(content).digest()
    put = PutBlob(iid_of(position_of_blob(digest), 2), digest, b"")
    assert (await plane.ask(put, content))[0] == [False, 5]


async def test_records_are_pulled_under_their_cfg_only(plane: Plane) -> None:
    await plane.accept(B1, VALUE)
    iid = iid_of_record(INDEXED, b"k", 2)
    group = slice16_of(iid) & 0xFFF
    for cfg, status in ((0, Status.STALE), (2, Status.BEHIND)):
        with pytest.raises(Refusal) as caught:
            plane.read(Pull(iid, pack_stands([(group, cfg)]), b""))
        assert caught.value.status == status
    with pytest.raises(Refusal) as caught:
        plane.read(Pull(iid | 7 << 60, pack_stands([(group, 1)]), b""))
    assert caught.value.status == Status.MISDIRECTED
    (truncated, last, _), body = plane.read(Pull(iid, pack_stands([(group, 1)]), b""))
    assert not truncated and last == end_key(group) and b"data" in body


async def test_floor_is_the_promise_of_what_is_not_there(plane: Plane) -> None:
    slice16 = slice16_of(iid_of_record(INDEXED, b"k", 2))
    await plane.store.submit(lambda txn: raise_floor(txn, slice16, B2))
    await outrun(B2, plane.prepare(B1))
    await outrun(B2, plane.accept(B1, VALUE))
    assert await plane.prepare(B3) == ([1, NO_BALLOT, B2], b"")
