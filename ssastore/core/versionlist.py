"""Listing of versions: objects and what was kept beside them, in order of key, the newest first. Coroutines.

Objects are read before versions of the same keys: what is replaced meanwhile was kept before, so it
shows in one of the two.  So it goes by windows of objects, and the versions are read anew for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ssastore.core.keeping import Keeping
from ssastore.core.listing import Page, Row, merge_shards
from ssastore.core.place import Place
from ssastore.core.registers import Registers
from ssastore.core.versionnames import (
    NULL,
    id_of,
    is_null,
    name_in,
    split_version_key,
    time_of,
    version_key,
    whole_name,
)
from ssastore.messages import Kind

_IN_NAMES = frozenset("0123456789abcdef" + NULL)
_AFTER_NAMES = b"\0\xff"
"What follows a key in a stored one that lies behind all of its versions."


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One version, or a marker."""

    key: str
    version: str
    "Its id."
    modified_ms: int
    etag: str
    size: int
    is_latest: bool
    is_marker: bool
    owner: str = ""
    "Whose the record says that it is; empty when it says nothing."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    prefix: str = ""
    delimiter: str = ""
    key_marker: str = ""
    "Only what comes after this key, or common prefix."
    id_marker: str = ""
    "Of that key those versions still that come after this one."


class VersionList:
    """Listings of one bucket."""

    def __init__(self, registers: Registers, kept: Keeping, place: Place, wanted: Wanted) -> None:
        self._registers = registers
        self._kept = kept
        self._place = place
        self._wanted = wanted
        self._prefix = wanted.prefix.encode()
        self._delimiter = wanted.delimiter.encode()
        # Only a delimiter that no name can hold is left to the scan of versions.
        is_clear = not set(wanted.delimiter) <= _IN_NAMES and "\0" not in wanted.delimiter
        self._scan_delimiter = self._delimiter if is_clear else b""

    async def entries(self, window: int) -> AsyncGenerator[ListedVersion | str, None]:
        """Versions, and common prefixes as text, each once. ``window`` is how many are wanted, about."""
        if "\0" in self._wanted.prefix:
            return
        after = self._wanted.key_marker.encode()
        versions_after = await self._versions_after()
        is_resumed = bool(self._wanted.id_marker)
        while True:
            rows: list[Row] = []
            async with aclosing(self._rows(Kind.OBJECT, after, window)) as objects:
                async for row in objects:
                    rows.append(row)
                    if len(rows) == window:
                        break
            horizon: bytes | None = rows[-1][0] if len(rows) == window else None
            group = _Group(b"", is_fresh=False)
            async with aclosing(self._merged(rows, versions_after, horizon, window)) as merged:
                async for entry, is_object, found in merged:
                    if found is None:
                        yield entry.decode()
                        continue
                    if entry != group.key:
                        group = _Group(entry, is_fresh=not (is_resumed and entry == after))
                    if (listed := group.add(found, is_object=is_object)) is not None:
                        yield listed
            if horizon is None:
                return
            after, is_resumed = horizon, False
            versions_after = horizon if self._rolled(horizon) == horizon else horizon + _AFTER_NAMES

    async def _versions_after(self) -> bytes:
        """Stored key of a version after which those begin that are wanted."""
        key, version_id = self._wanted.key_marker.encode(), self._wanted.id_marker
        if not key or self._rolled(key) == key:
            return key
        if not version_id:
            return key + _AFTER_NAMES
        if version_id != NULL:
            return version_key(key, version_id)
        found = await self._registers.state(self._place, Kind.OBJECT, key, head_only=True)
        if found.is_live and is_null(name_in(found)):
            return version_key(key, name_in(found))
        async for name in self._kept.names(self._place, key):
            if is_null(name):
                return version_key(key, name)
        return key + _AFTER_NAMES

    def _rolled(self, key: bytes) -> bytes:
        """The common prefix that a key belongs to, or nothing."""
        if not self._delimiter or not key.startswith(self._prefix):
            return b""
        at = key.find(self._delimiter, len(self._prefix))
        return key[: at + len(self._delimiter)] if at >= 0 else b""

    def _rows(self, kind: Kind, after: bytes, window: int) -> AsyncGenerator[Row, None]:
        delimiter = self._scan_delimiter if kind is Kind.VERSION else self._delimiter

        async def fetch(shard: int, start: bytes, limit: int) -> Page:
            return await self._registers.shards.page(
                self._place, kind, shard, prefix=self._prefix, after=start, delimiter=delimiter, limit=limit
            )

        return merge_shards(fetch, self._place.shards, after, limit=window, gather=asyncio.gather)

    async def _merged(
        self, rows: list[Row], versions_after: bytes, horizon: bytes | None, window: int
    ) -> AsyncGenerator[tuple[bytes, bool, Row | None], None]:
        """(key or common prefix, whether it is an object's row, row) up to ``horizon``; None of a prefix."""
        at, shown = 0, b""
        async with aclosing(self._rows(Kind.VERSION, versions_after, window)) as versions:
            async for version in versions:
                key = split_version_key(version[0])[0] if len(version) > 1 else version[0]
                rolled = self._rolled(key)
                entry = rolled or key
                if horizon is not None and entry > horizon:
                    break
                while at < len(rows) and rows[at][0] <= entry:
                    row, at = rows[at], at + 1
                    if len(row) == 1:
                        shown = row[0]
                    yield row[0], True, row if len(row) > 1 else None
                if rolled:
                    if entry != shown:
                        yield entry, False, None
                    shown = entry
                    continue
                yield entry, False, version
        for row in rows[at:]:
            yield row[0], True, row if len(row) > 1 else None


class _Group:
    """The versions of one key, as they come."""

    def __init__(self, key: bytes, *, is_fresh: bool) -> None:
        self.key = key
        self._is_first = is_fresh
        "Whether nothing newer was seen."
        self._current: str | None = None
        self._has_null = False

    def add(self, row: Row, *, is_object: bool) -> ListedVersion | None:
        """What a row shows; None when that was seen."""
        stored, modified_ms, etag, size, *more = row
        if is_object:
            name = whole_name(more[0], modified_ms) if more and more[0] is not None else ""
            self._current = name
        else:
            name = split_version_key(stored)[1]
            if name == self._current:
                return None
        # An older "null" version is one that was replaced, and is about to be deleted.
        if is_null(name) and self._has_null:
            return None
        self._has_null = self._has_null or is_null(name)
        is_marker = not (is_object or etag)
        # What is current is an object's row, or a marker: only between the steps of a delete there is none.
        is_latest = is_object or (self._is_first and is_marker)
        self._is_first = False
        at_ms = time_of(name) if name else modified_ms
        owner = more[1] if len(more) == 2 else ""
        return ListedVersion(self.key.decode(), id_of(name), at_ms, etag, size, is_latest, is_marker, owner)
