"""The seal of stored values, against the worked example of docs/reference/store-format.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64

from ssastore.errors import CorruptObject, InvalidKey, ObjectTooLarge
from ssastore.limits import STORED_KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX
from ssastore.store.datadir import LOCK_BYTES, lock_text
from ssastore.store.longkeys import branch, heads_of
from ssastore.store.seal import SEAL_BYTES, seal, shown, unseal

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "store-format.md"


def test_worked_example_is_what_the_code_writes() -> None:
    """Each line of the example is computed here again and must stand in the document."""
    document = DOCUMENT.read_text(encoding="utf-8")
    long_key = b"k" * 500 + b"/tail"
    (head,), stored = heads_of(long_key)
    lines = [
        f"seed   {xxh3_64(b'cat').hexdigest()}",
        f"value  {seal(b'cat', (b'hello',)).hex()}",
        f"branch {branch(1, head).hex()}",
        f"stored {stored.hex()}",
        f"value  {seal(long_key, (b'hello',)).hex()}",
        f"lock   {lock_text(4711).hex()}",
    ]
    for line in lines:
        assert line in document, line
    assert len(lock_text(4711)) == LOCK_BYTES


@given(st.binary(min_size=1, max_size=STORED_KEY_BYTES_MAX), st.lists(st.binary(max_size=600), max_size=4))
def test_unseal_gives_back_the_parts(key: bytes, parts: list[bytes]) -> None:
    sealed = seal(key, tuple(parts))
    value = b"".join(parts)
    assert sealed == seal(key, (value,)) == seal(key, tuple(map(memoryview, parts)))
    assert len(sealed) == SEAL_BYTES + len(value)
    assert unseal(key, memoryview(sealed)) == value


@given(st.binary(max_size=300), st.data())
def test_any_flipped_bit_is_found(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(b"key", (value,)))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptObject):
        unseal(b"key", memoryview(sealed))


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_value_belongs_to_its_key(key: bytes, other: bytes) -> None:
    if key != other:
        with pytest.raises(CorruptObject):
            unseal(other, memoryview(seal(key, (b"value",))))


@pytest.mark.parametrize("size", range(SEAL_BYTES))
def test_less_than_a_seal_is_no_record(size: int) -> None:
    with pytest.raises(CorruptObject):
        unseal(b"key", memoryview(seal(b"key", (b"",)))[:size])


def test_limits() -> None:
    seal(b"k" * STORED_KEY_BYTES_MAX, (bytes(STORED_VALUE_BYTES_MAX),))
    with pytest.raises(InvalidKey, match="1201"):
        seal(b"k" * (STORED_KEY_BYTES_MAX + 1), (b"",))
    with pytest.raises(InvalidKey):
        seal(b"", (b"",))
    with pytest.raises(ObjectTooLarge, match=str(STORED_VALUE_BYTES_MAX + 1)):
        seal(b"k", (bytes(STORED_VALUE_BYTES_MAX), b"x"))


def test_message_names_the_key_in_bounded_length() -> None:
    assert shown(b"ab") == "6162"
    assert shown(b"a" * 64) == "61" * 64
    assert shown(b"a" * 65) == "61" * 64 + "... (65 bytes)"
