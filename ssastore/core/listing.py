"""Ordered listing: a page of one shard, and the merge of all shards. Pure but for the fetches.

A shard is one contiguous range in key order, so a page is a range scan.  With a
delimiter everything below a common prefix is skipped by one seek, not read.  A
page's body is a msgpack array of rows:

    [key, modified_ms, etag, size]                an object
    [key, modified_ms, etag, size, name]          one that is a version (``core.versions``)
    [key, modified_ms, etag, size, name, owner]   one that says whose it is; name None: no version
    [common prefix]                               a roll-up

With several replicas one plane's page may lack what a majority has, or show what it
has not; so a page then also has witnesses, and the pages of F+1 planes are merged:

    [key, modified_ms, etag, size, ballot], and the same with name, or name and owner, before the ballot
    [key, ballot]                      a tombstone, or a promise without a value
    [common prefix, key, ballot]       a roll-up, and the first object below it

Rows on which all F+1 agree are so; about the others the register is asked.

A listing of a bucket merges the shards' pages.  It never goes past a shard whose
next page is not there yet, so a listing is complete or it fails: never short.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgpack

from ssastore.core.metadata import listed_packed
from ssastore.core.numbers import locators_of_slice
from ssastore.core.records import record_key
from ssastore.core.register import LIVE, peek_slot
from ssastore.env import ReadTxn
from ssastore.limits import SCAN_PAGE_BYTES_MAX, SCAN_PAGE_ITEMS_MAX
from ssastore.messages import Scan

Row = list[Any]

_ROW_OVERHEAD_BYTES = 64
_name = itemgetter(0)


def end_of_prefix(prefix: bytes) -> bytes | None:
    """The first byte string after all that start with ``prefix``; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def scan_page(txn: ReadTxn, start: bytes, request: Scan) -> tuple[list[Any], bytes]:
    """One page: ([truncated, last key seen], body). ``start`` is the stored key of the empty key.

    Tombstones count towards the work of a page but not its rows, so a page can be
    empty and truncated; the next one goes on after the last key seen.
    """
    prefix, delimiter = request.prefix, request.delimiter
    end = end_of_prefix(start + prefix)
    assert end is not None, "locator and kind in front are never all ones"
    limit = min(request.limit, SCAN_PAGE_ITEMS_MAX)
    rows: list[Row] = []
    seek = max(start + prefix, start + request.after + b"\0") if request.after else start + prefix
    last = request.after
    if delimiter and (rolled := _common_prefix(request.after, prefix, delimiter)) == request.after != b"":
        after_rolled = end_of_prefix(start + rolled)
        assert after_rolled is not None
        seek = after_rolled
    work = size = 0
    while seek is not None and seek < end:
        skip_to: bytes | None = None
        for stored_key, value in txn.scan(seek, end):
            if len(rows) >= limit or size >= SCAN_PAGE_BYTES_MAX or work >= 4 * SCAN_PAGE_ITEMS_MAX:
                return [True, last], msgpack.packb(rows)
            work += 1
            key = stored_key[len(start) :]
            accepted, state, modified_ms, metadata, _ = peek_slot(value)
            common = _common_prefix(key, prefix, delimiter) if delimiter else b""
            if state != LIVE:
                # A cut after a roll-up's name skips all of the roll-up, which was not shown here.
                last = key if key != common else key + b"\0"
                if request.with_witness:
                    rows.append([key, accepted])
                    size += len(key) + _ROW_OVERHEAD_BYTES
                continue
            if common:
                rows.append([common, key, accepted] if request.with_witness else [common])
                last = common
                skip_to = end_of_prefix(start + common)
                break
            row: Row = [key, modified_ms, *listed_packed(metadata)]
            if request.with_witness:
                row.append(accepted)
            rows.append(row)
            size += len(key) + len(row[2]) + _ROW_OVERHEAD_BYTES
            last = key
        if skip_to is None:
            break
        seek = skip_to
    return [False, last], msgpack.packb(rows)


async def merge_planes(
    pages: list[Page],
    prefix: bytes,
    delimiter: bytes,
    *,
    resolve: Callable[[bytes], Awaitable[Row | None]],
    holds_any: Callable[[bytes], Awaitable[bool]],
) -> Page:
    """The agreed page of pages with witnesses from F+1 planes.

    It ends at the smallest last key of any page that is cut short: beyond it a plane was not asked.

    Args:
        pages: one from each plane, for the same request; planes that say the same may share one.
        prefix, delimiter: of the request.
        resolve: the agreed row of a key, None when there is no object.
        holds_any: whether any object is below a common prefix, and above where the request begins.
    """
    if len(pages) == 1 and not delimiter:
        (page,) = pages
        return Page([row[:-1] for row in page.rows if len(row) >= 5], page.truncated, page.last)
    ends = [page.last for page in pages if page.truncated]
    horizon = min(ends) if ends else None
    # One plane may roll up what another shows as tombstones: all that belongs to a roll-up is one entry.
    seen: dict[bytes, list[list[Row]]] = {}
    for plane, page in enumerate(pages):
        for row in page.rows:
            if horizon is None or row[0] <= horizon:
                entry = (_common_prefix(row[0], prefix, delimiter) if delimiter else b"") or row[0]
                seen.setdefault(entry, [[] for _ in pages])[plane].append(row)
    rows: list[Row] = []
    last = horizon if horizon is not None else max(page.last for page in pages)
    for entry in sorted(seen):
        found = seen[entry]
        is_agreed = all(rows_of_plane == found[0] for rows_of_plane in found)
        if delimiter and _common_prefix(entry, prefix, delimiter) == entry:
            if len(found[0][-1]) == 3 if is_agreed else await holds_any(entry):
                rows.append([entry])
                # The roll-up is shown: what is left of it is skipped by the next page.
                last = max(last, entry) if not last.startswith(entry) else entry
        elif is_agreed:
            if len(found[0][0]) >= 5:
                rows.append(found[0][0][:-1])
        elif (resolved := await resolve(entry)) is not None:
            rows.append(resolved)
    return Page(rows, horizon is not None, last)


def _common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The roll-up that ``key`` belongs to: up to and with the delimiter after ``prefix``, or empty."""
    if not key.startswith(prefix):
        return b""
    at = key.find(delimiter, len(prefix))
    return key[: at + len(delimiter)] if at >= 0 else b""


def slice_holds(txn: ReadTxn, number: int, kind: int, bucket: int) -> bool:
    """Whether a slice holds a live record of a hashed bucket. One seek per locator in use."""
    locator, stop = locators_of_slice(number)
    last = stop - 1
    end = stop.to_bytes(5, "big")[1:]
    seek = record_key(locator, kind, bucket, b"")
    while True:
        entry = next(iter(txn.scan(seek, end)), None)
        if entry is None:
            return False
        key, value = entry
        locator = int.from_bytes(key[:4], "big")
        wanted = record_key(locator, kind, bucket, b"")
        if key.startswith(wanted):
            if peek_slot(value)[1] == LIVE:
                return True
            seek = key + b"\0"
        elif key < wanted:
            seek = wanted
        elif locator == last:
            return False
        else:
            seek = record_key(locator + 1, kind, bucket, b"")


@dataclass(slots=True)
class Page:
    """A decoded page of one shard."""

    rows: list[Row]
    truncated: bool
    last: bytes


Fetch = Callable[[int, bytes, int], Awaitable[Page]]
"""(shard, after, limit) -> the shard's next page."""


async def merge_runs(
    fetch: Fetch, shards: int, after: bytes, *, limit: int, gather: Callable[..., Awaitable[list[Page]]]
) -> AsyncGenerator[list[Row], None]:
    """Rows of all shards in key order, each common prefix once: some at a time, as far as pages have come.

    Args:
        fetch: reads one page of one shard; raises when the shard cannot be read.
        shards: how many.
        after: exclusive start.
        limit: rows that the caller will take, about; sizes the pages.
        gather: runs fetches side by side (``asyncio.gather`` in production).
    """
    # A key goes to a random shard, so each will give about limit / shards of the answer. The margin, two
    # standard deviations, makes a second round trip an exception; more would be read and thrown away.
    share = min(SCAN_PAGE_ITEMS_MAX, limit // shards + 2 * int((limit / shards) ** 0.5) + 2)
    pages = await gather(*[fetch(shard, after, share) for shard in range(shards)])
    places = [0] * shards
    previous: bytes | None = None
    while True:
        # Beyond the end of any page that is cut short that shard may have more.
        horizon = min((page.last for page in pages if page.truncated), default=None)
        found: list[Row] = []
        for shard, page in enumerate(pages):
            start = places[shard]
            end = len(page.rows)
            if horizon is not None:
                end = bisect_right(page.rows, horizon, start, key=_name)
            found += page.rows[start:end]
            places[shard] = end
        found.sort(key=_name)
        run: list[Row] = []
        for row in found:
            if row[0] != previous:
                previous = row[0]
                run.append(row)
        # The caller goes on after ``limit`` rows, or does not.
        for at in range(0, len(run), limit):
            yield run[at : at + limit]
        if horizon is None:
            return
        ended = [shard for shard, page in enumerate(pages) if page.truncated and page.last == horizon]
        for shard, page in zip(
            ended, await gather(*[fetch(shard, horizon, share) for shard in ended]), strict=True
        ):
            pages[shard], places[shard] = page, 0


async def merge_shards(
    fetch: Fetch, shards: int, after: bytes, *, limit: int, gather: Callable[..., Awaitable[list[Page]]]
) -> AsyncGenerator[Row, None]:
    """As ``merge_runs``, row by row."""
    async for run in merge_runs(fetch, shards, after, limit=limit, gather=gather):
        for row in run:
            yield row
