"""One page of a listing: as many entries as were asked for, and whether more follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
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


async def page_of(runs: AsyncGenerator[Sequence[Entry | CommonPrefix], None], limit: int) -> Page[Entry]:
    """Take ``limit`` entries, 1 or more, and look whether there is another one. Ends the listing."""
    found: list[Entry | CommonPrefix] = []
    try:
        async for run in runs:
            found += run
            if len(found) > limit:
                break
    finally:
        await runs.aclose()
    shown = found[:limit]
    return Page(
        [entry for entry in shown if not isinstance(entry, CommonPrefix)],
        [entry.prefix for entry in shown if isinstance(entry, CommonPrefix)],
        shown[-1] if shown else None,
        len(found) > limit,
    )
