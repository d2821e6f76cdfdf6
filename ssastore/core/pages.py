"""The records of slices as they travel to who rebuilds them: pages of one plane, in key order. Pure.

A page's rows are in the order of their *plain keys*: stored keys with the plane's digit
zero, so that the pages of all planes can be laid side by side.

    row: key length u16 | value length u32 | plain key | value

A blob's value is left out: it is fetched by its digest, from whoever has it.  Every
slice ends with a row whose kind is above all others; its value is the slice's floor,
read in the transaction of the rows before it.  So who has that row has the whole slice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from xxhash import xxh3_64_intdigest

from ssastore.core.floors import read_floor
from ssastore.core.numbers import locators_of_slice, parts_in_order, slice_number
from ssastore.core.records import slice_range
from ssastore.env import ReadTxn
from ssastore.errors import CorruptObject
from ssastore.limits import PULL_PAGE_BYTES, PULL_PAGE_ROWS, PULL_SCAN_BYTES_MAX
from ssastore.messages import Kind
from ssastore.wire import Body

END_KIND = 0xFF
"Kind of the row that ends a slice."
KIND_AT = 4
"Where the kind stands in a key: behind the locator."

_BLOB = int(Kind.BLOB)
_ROW = struct.Struct(">HI")
_GONE = 0xFFFF_FFFF
"Length of a value in the row of a key that is not stored any more: only a page of changes has such."

Rows = dict[bytes, Body]
"Values by plain key; views into the page."

Entries = dict[bytes, Body | None]
"The same of changes; None where nothing is stored any more."


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one plane. ``last`` is the last plain key; beyond it nothing was looked at if ``truncated``."""

    truncated: bool
    last: bytes
    checksum: int
    body: Body

    def rows(self) -> Rows:
        """Raises CorruptObject: not what was sent."""
        rows = self.entries()
        if None in rows.values():
            raise CorruptObject("a page of records has a row without a value")
        return cast(Rows, rows)

    def entries(self) -> Entries:
        """The rows of a page of changes. Raises CorruptObject."""
        if xxh3_64_intdigest(self.body) != self.checksum:
            raise CorruptObject("a page of records fails its checksum")
        body, total = memoryview(self.body), len(self.body)
        rows: Entries = {}
        at = 0
        while at < total:
            if at + _ROW.size > total:
                raise CorruptObject("a page of records is cut short")
            key_length, value_length = _ROW.unpack_from(body, at)
            at += _ROW.size
            is_gone = value_length == _GONE
            value_at = at + key_length
            end = value_at if is_gone else value_at + value_length
            if end > total or key_length <= KIND_AT:
                raise CorruptObject("a page of records is cut short")
            rows[bytes(body[at:value_at])] = None if is_gone else body[value_at:end]
            at = end
        return rows


def plain_key(stored_key: bytes) -> bytes:
    """A stored key without its plane."""
    return bytes([stored_key[0] & 0x0F]) + stored_key[1:]


def stored_key_of(plain: bytes, plane: int) -> bytes:
    """Inverse of ``plain_key``."""
    return bytes([plain[0] | plane << 4]) + plain[1:]


def end_key(part: int) -> bytes:
    """Plain key of the row that ends a part: above all of its records."""
    _, end = locators_of_slice(slice_number(0, part))
    return (end - 1).to_bytes(4, "big") + bytes([END_KIND])


def pull_page(txn: ReadTxn, plane: int, parts: Sequence[int], after: bytes) -> Page:
    """The next rows of the parts' slices in one plane, behind a plain key.

    Raises:
        CorruptObject: a record is rotten. It must not be left out: it could be the only copy.
    """
    body = bytearray()
    read = 0
    last = after
    for count, (key, value) in enumerate(_rows(txn, plane, parts, after)):
        sent = b"" if key[KIND_AT] == _BLOB else value
        size = len(body) + _ROW.size + len(key) + len(sent)
        is_full = size > PULL_PAGE_BYTES or count == PULL_PAGE_ROWS
        if count and (is_full or read > PULL_SCAN_BYTES_MAX):
            return _page(True, last, body)
        _add(body, key, sent)
        read += len(value)
        last = key
    return _page(False, last, body)


def changes_page(txn: ReadTxn, keys: Sequence[bytes]) -> tuple[int, Page]:
    """What is stored under keys now, as many of them as fit a page; how many, and the page.

    Raises:
        CorruptObject: a record is rotten.
    """
    body = bytearray()
    for index, key in enumerate(keys):
        value = txn.get(key)
        sent = b"" if value is not None and key[KIND_AT] == _BLOB else value
        size = len(body) + _ROW.size + len(key) + len(sent or b"")
        if body and size > PULL_PAGE_BYTES:
            return index, _page(True, b"", body)
        _add(body, plain_key(key), sent)
    return len(keys), _page(False, b"", body)


def _add(body: bytearray, key: bytes, value: Body | None) -> None:
    """Add a row: a value is copied once, from where it is stored."""
    body += _ROW.pack(len(key), _GONE if value is None else len(value))
    body += key
    if value is not None:
        body += value


def _page(truncated: bool, last: bytes, body: bytearray) -> Page:
    return Page(truncated, last, xxh3_64_intdigest(body), memoryview(body).toreadonly())


def _rows(txn: ReadTxn, plane: int, parts: Sequence[int], after: bytes) -> Iterator[tuple[bytes, Body]]:
    for part in parts_in_order(parts):
        ending = end_key(part)
        if ending <= after:
            continue
        start, end = slice_range(slice_number(plane, part))
        first = start
        if after:
            first = max(first, stored_key_of(after, plane) + b"\0")
        for key, value in txn.scan(first, end):
            yield plain_key(key), value
        yield ending, read_floor(txn, start)
