"""The records that the rows of a listing name: read some at a time, given back in the order of the rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Row = TypeVar("Row")
Record = TypeVar("Record")

READS_AT_ONCE = 32
"A listing of a thousand takes as long as thirty reads, and leaves room for others."


async def read_rows(
    rows: AsyncIterator[Row], read: Callable[[Row], Awaitable[Record | None]]
) -> AsyncGenerator[Record, None]:
    """What ``read`` makes of each row, in the order of the rows, without None. Raises what both raise."""
    batch: list[Row] = []
    is_more = True
    while is_more:
        row = await anext(rows, None)
        is_more = row is not None
        if row is not None:
            batch.append(row)
        if len(batch) == READS_AT_ONCE or not is_more:
            for record in await asyncio.gather(*map(read, batch)):
                if record is not None:
                    yield record
            batch.clear()
