"""Long keys over a real LMDB environment, against a dict: the order is what there is to get wrong."""

from __future__ import annotations

from collections.abc import Iterator

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssastore.store.longkeys import (
    BRANCH_BYTES,
    DIRECT,
    MARKER_BYTES,
    MARKER_COUNT,
    LongKeys,
    branch,
    heads_of,
    marker_count,
)

ONE_LEVEL_MAX = DIRECT + DIRECT - BRANCH_BYTES
"Longest key whose record needs one marker only."

# Heads are shared on purpose: one letter fills a key, and the difference comes near a boundary.
boundaries = st.sampled_from([1, 2, DIRECT, DIRECT + 1, ONE_LEVEL_MAX, ONE_LEVEL_MAX + 1, 1198])
keys = st.builds(
    lambda fill, length, tail: fill * (length - 1) + tail,
    st.sampled_from([b"\0", b"m", b"\xff"]),
    boundaries,
    st.binary(min_size=1, max_size=2) | st.sampled_from([b"\0", b"\0\0", b"m\0", b"\xff"]),
)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lmdb.Environment]:
    folder = tmp_path_factory.mktemp("longkeys")
    with lmdb.open(str(folder), map_size=1 << 24, max_dbs=2, sync=False) as env:
        yield env


def check(
    txn: lmdb.Transaction[bytes], main: lmdb._Database, long: lmdb._Database, wanted: set[bytes]
) -> None:
    """The markers are those that the records need, and are counted."""
    markers = {(level > 1, head + b"\0") for key in wanted for level, head in enumerate(heads_of(key)[0], 1)}
    found = {
        (database is long, key)
        for database in (main, long)
        for key, _ in txn.cursor(database)
        if len(key) == MARKER_BYTES
    }
    assert found == markers
    assert marker_count(txn, long) == len(markers)
    records = [key for key, _ in txn.cursor(long) if len(key) > BRANCH_BYTES and len(key) != MARKER_BYTES]
    assert len(records) == sum(len(key) > DIRECT for key in wanted)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), keys), max_size=25), st.lists(keys, max_size=4))
def test_agrees_with_a_dict(
    env: lmdb.Environment, steps: list[tuple[bool, bytes]], bounds: list[bytes]
) -> None:
    long = env.open_db(b"long")
    main = env.open_db(b"main")
    with env.begin(write=True) as txn:
        long_keys = LongKeys(txn, main, long)
        records: dict[bytes, bytes] = {}
        for is_put, key in steps:
            if not is_put:
                was_there = long_keys.delete(key) if len(key) > DIRECT else txn.delete(key, db=main)
                assert was_there is (records.pop(key, None) is not None)
            else:
                records[key] = value = b"%d" % len(records)
                long_keys.put(key, value) if len(key) > DIRECT else txn.put(key, value, db=main)
        check(txn, main, long, set(records))
        for key in (*records, *bounds):
            if len(key) > DIRECT:
                assert long_keys.get(key) == records.get(key)
        edges = [b"", b"\xff" * 1201, *bounds, *records]
        for first in edges:
            for end in edges:
                expected = sorted((key, value) for key, value in records.items() if first <= key < end)
                for mutations in (None, lambda: 0):
                    assert list(long_keys.scan(first, end, mutations)) == expected
        txn.abort()


def test_nothing_is_left_of_deleted_keys(env: lmdb.Environment) -> None:
    long = env.open_db(b"long")
    main = env.open_db(b"main")
    with env.begin(write=True) as txn:
        long_keys = LongKeys(txn, main, long)
        doomed = [b"a" * length for length in (501, 502, 985, 1200)]
        for key in doomed:
            long_keys.put(key, b"x")
        for key in doomed:
            assert long_keys.delete(key)
        assert txn.stat(main)["entries"] == 0
        assert [key for key, _ in txn.cursor(long)] == [MARKER_COUNT]
        txn.abort()


def test_key_that_looks_like_a_deeper_level_stays_apart(env: lmdb.Environment) -> None:
    """Somebody chooses a key whose head is byte for byte what the second level stores for another key."""
    victim = b"v" * 1200
    inner_head = heads_of(victim)[0][1]
    forged = inner_head + victim[ONE_LEVEL_MAX:]
    long = env.open_db(b"long")
    main = env.open_db(b"main")
    with env.begin(write=True) as txn:
        long_keys = LongKeys(txn, main, long)
        long_keys.put(victim, b"victim")
        assert long_keys.get(forged) is None
        long_keys.put(forged, b"forged")
        assert long_keys.get(victim) == b"victim"
        everything = list(long_keys.scan(b"", b"\xff" * 1201, lambda: 0))
        assert everything == sorted([(forged, b"forged"), (victim, b"victim")])
        txn.abort()


def test_lengths_of_stored_keys_fit_lmdb() -> None:
    for length in range(DIRECT + 1, 1201):
        heads, stored = heads_of(b"k" * length)
        assert BRANCH_BYTES < len(stored) <= DIRECT
        assert len(heads) == (1 if length <= ONE_LEVEL_MAX else 2)
        assert all(len(head) == DIRECT for head in heads)


def test_branch_depends_on_level_and_head() -> None:
    assert len({branch(1, b"a"), branch(2, b"a"), branch(1, b"b")}) == 3


def test_marker_count_sorts_apart_from_records() -> None:
    assert len(MARKER_COUNT) < BRANCH_BYTES
