"""One page of a listing: as many entries as were asked for, and whether more follow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ssastore.core.objects import CommonPrefix

Entry = TypeVar("Entry")


@dataclass(slots=True)
class Page(Generic[Entry]):
    """Entries and common prefixes in order; ``last`` is the last of either, None on an empty page."""

    entries: list[Entry] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: Entry | CommonPrefix | None = None
    is_truncated: bool = False


async def page_of(listing: AsyncIterator[Entry | CommonPrefix], limit: int) -> Page[Entry]:
    """Take ``limit`` entries, 1 or more, and look whether there is another one. Ends the listing."""
    page: Page[Entry] = Page()
    count = 0
    try:
        async for entry in listing:
            if count == limit:
                page.is_truncated = True
                break
            count += 1
            page.last = entry
            if isinstance(entry, CommonPrefix):
                page.prefixes.append(entry.prefix)
            else:
                page.entries.append(entry)
    finally:
        await listing.aclose()  # type: ignore[attr-defined]  # it is an async generator
    return page
