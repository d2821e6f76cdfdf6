"""Layers of records over a base."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from ssastore.store.table import MISSING, Missing, Records, Sealed, Table, keys_of, overlaid

keys = st.binary(max_size=2)
layer = st.dictionaries(keys, st.none() | st.binary(max_size=2), max_size=10)


def over(
    base: dict[bytes, bytes],
    layers: list[Records],
    first: bytes,
    end: bytes,
    mutations: Callable[[], int] | None = None,
) -> list[tuple[bytes, Sealed]]:
    def look(key: bytes) -> bytes | Missing | None:
        return next((records[key] for records in layers if key in records), MISSING)

    below = iter(sorted((key, value) for key, value in base.items() if first <= key < end))
    return list(overlaid(lambda at: keys_of(layers, at, end), look, below, mutations, first))


@given(st.dictionaries(keys, st.binary(max_size=2), max_size=10), st.lists(layer, max_size=3), keys, keys)
def test_layers_hide_what_lies_below(
    base: dict[bytes, bytes], layers: list[Records], first: bytes, end: bytes
) -> None:
    merged: Records = dict(base)
    for records in reversed(layers):
        merged |= records
    expected = sorted(
        (key, value) for key, value in merged.items() if value is not None and first <= key < end
    )
    for mutations in (None, lambda: 0):
        assert over(base, layers, first, end, mutations) == expected


def test_changes_ahead_are_seen_and_those_behind_are_not() -> None:
    records: Records = {b"b": b"1"}
    changes = 0

    def base() -> Iterator[tuple[bytes, Sealed]]:
        yield from [(b"a", b"0"), (b"c", b"0"), (b"e", b"0")]

    seen = []
    found = overlaid(
        lambda at: keys_of([records], at, b"z"),
        lambda key: records.get(key, MISSING),
        base(),
        lambda: changes,
        b"",
    )
    for key, _ in found:
        seen.append(key)
        if key == b"b":
            records |= {b"a": None, b"aa": b"2", b"c": None, b"d": b"2"}
            changes += 1
    assert seen == [b"a", b"b", b"d", b"e"]


@given(st.lists(st.tuples(st.dictionaries(keys, st.binary(max_size=1)), keys, keys), max_size=6))
def test_table_lists_its_keys_in_order_while_it_grows(
    steps: list[tuple[dict[bytes, bytes], bytes, bytes]],
) -> None:
    table = Table()
    for added, first, end in steps:
        table.records.update(added)
        wanted = sorted(key for key in table.records if first <= key < end)
        assert list(table.keys(first, end)) == list(table.copy().keys(first, end)) == wanted
