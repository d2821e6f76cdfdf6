"""What is kept of several planes' states: the highest of everything."""

from __future__ import annotations

from itertools import permutations

import pytest

from ssastore.core.merge import merge_rows, merge_values
from ssastore.core.pages import END_KIND, Rows, end_key
from ssastore.core.records import record_key
from ssastore.core.register import LIVE, NO_BALLOT, Slot, Value, decode_slot, make_ballot
from ssastore.errors import CorruptObject
from ssastore.messages import Kind

B = [NO_BALLOT, *[make_ballot(counter, 1, 1) for counter in range(1, 6)]]


def slot(promise: int, accepted: int, data: bytes = b"") -> bytes:
    value = b"".join(Value(LIVE, 1, b"", data).encode()) if accepted else b""
    return b"".join(Slot(B[promise], B[accepted], value).encode())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([slot(1, 1, b"a"), slot(2, 2, b"b")], slot(2, 2, b"b")),
        ([slot(5, 1, b"a"), slot(3, 2, b"b")], slot(5, 2, b"b")),
        ([slot(4, 0), slot(2, 2, b"b")], slot(4, 2, b"b")),
        ([slot(4, 0), slot(3, 0)], slot(4, 0)),
        ([slot(1, 1, b"a"), slot(5, 0), slot(3, 3, b"c")], slot(5, 3, b"c")),
        ([slot(2, 2, b"b")], slot(2, 2, b"b")),
    ],
)
def test_slots(values: list[bytes], expected: bytes) -> None:
    for order in permutations(values):
        for kind in (Kind.OBJECT, Kind.UPLOAD, Kind.PART):
            assert merge_values(kind, order) == expected


def test_promise_is_never_below_what_is_accepted() -> None:
    merged = decode_slot(merge_values(Kind.OBJECT, [slot(1, 3, b"x"), slot(2, 0)]), NO_BALLOT)
    assert merged.promise == B[3] == merged.accepted


def test_shut_marks_by_deletion_then_by_step() -> None:
    def mark(attempt: int, shut: bool) -> bytes:
        return attempt.to_bytes(8, "big") + bytes([shut])

    steps = [mark(1, True), mark(1, False), mark(2, True), mark(2, False), mark(10, True)]
    for index, later in enumerate(steps):
        for earlier in steps[: index + 1]:
            assert (
                merge_values(Kind.SHUT, [earlier, later])
                == later
                == merge_values(Kind.SHUT, [later, earlier])
            )
    with pytest.raises(CorruptObject):
        merge_values(Kind.SHUT, [b"", b"x"])


def test_references_keep_their_latest_time_and_floors_are_the_highest() -> None:
    old, new = (5).to_bytes(8, "big") + b"zz", (6).to_bytes(8, "big") + b"aa"
    assert merge_values(Kind.REF, [old, new]) == new == merge_values(Kind.REF, [new, old])
    assert merge_values(END_KIND, [B[1], B[3], NO_BALLOT]) == B[3]


def test_unknown_kinds_are_refused() -> None:
    """To drop them would lose what a later version wrote."""
    with pytest.raises(CorruptObject, match="unknown kind"):
        merge_values(0x77, [b"x"])


def test_rows_are_a_union_up_to_the_horizon() -> None:
    keys = [record_key(0x00A << 16, Kind.OBJECT, 1, name) for name in (b"a", b"b", b"c", b"d")]
    one: Rows = {keys[0]: slot(1, 1, b"a"), keys[2]: slot(1, 1, b"c"), keys[3]: slot(1, 1, b"d")}
    other: Rows = {keys[1]: slot(1, 1, b"b"), keys[2]: slot(2, 2, b"C"), end_key(0x00A): B[1]}
    merged = merge_rows([one, other], keys[2])
    assert merged == {keys[0]: one[keys[0]], keys[1]: other[keys[1]], keys[2]: other[keys[2]]}
    assert list(merged) == sorted(merged)
    assert list(merge_rows([one, other], None)) == [*keys, end_key(0x00A)]
