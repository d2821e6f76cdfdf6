"""What is stored of slices that are others' is found, whether it has a standing or not."""

from __future__ import annotations

from ssastore.core.numbers import number_of_slice, slice_number
from ssastore.core.records import record_key
from ssastore.core.recut import halves_of
from ssastore.core.strays import stored_beside, strays_among
from ssastore.keyspace import GROUP_BITS, slice_of
from ssastore.messages import Kind
from ssastore.store.memory import MemoryStore

LOW, HIGH = (slice_number(1, half) for half in halves_of(0x777, 17))


async def test_what_is_stored_beside_what_is_kept() -> None:
    store = MemoryStore()
    stored = (0x0000, 0x0001, 0x1777, 0x2FFF, 0xEFFF)

    def put(txn: object) -> None:
        for slice16 in stored:
            for more in (0, 0xFFFF):
                txn.put(record_key(slice16 << 16 | more, Kind.OBJECT, 1, b"k"), b"v")  # type: ignore[attr-defined]
        txn.put(b"\xf0\x00\x00\x00bookkeeping", b"v")  # type: ignore[attr-defined]

    await store.submit(put)
    with store.read() as txn:
        assert stored_beside(txn, frozenset()) == list(stored)
        assert stored_beside(txn, frozenset({0x0001, 0x2FFF})) == [0x0000, 0x1777, 0xEFFF]
        assert stored_beside(txn, frozenset({0x0000, 0x0002, HIGH})) == [0x0001, 0x2FFF, 0xEFFF]
        assert stored_beside(txn, frozenset(stored)) == []
        assert stored_beside(txn, frozenset(range(0x2FFF))) == [0x2FFF, 0xEFFF], (
            "a row of kept ones is passed in one step"
        )
    await store.close()


def test_a_stray_has_nothing_in_common_with_what_is_kept() -> None:
    whole = number_of_slice(slice_of(1, 0x777))
    assert whole == 1 << GROUP_BITS | 0x777
    assert strays_among([whole, LOW, 5], {HIGH}) == [5, LOW]
    assert strays_among([LOW, HIGH], {whole}) == []
    assert strays_among([LOW, HIGH], {LOW}) == [HIGH]
    assert strays_among([5, 3], {5}) == [3]
