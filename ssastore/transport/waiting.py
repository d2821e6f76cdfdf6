"""Waiting for a reply, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ssastore.transport.connection import Reply


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of one call. ``is_patient``: nobody else can be asked, so it is tried until the end."""

    deadline: float
    is_patient: bool


async def until(deadline: float, asked: asyncio.Future[Reply]) -> Reply:
    """The reply, or TimeoutError. By a timer alone: ``asyncio.timeout`` costs more, at every vote."""
    if asked.done():
        return asked.result()
    timer = asked.get_loop().call_at(deadline, _expire, asked)
    try:
        return await asked
    finally:
        timer.cancel()


def _expire(asked: asyncio.Future[Reply]) -> None:
    if not asked.done():
        asked.set_exception(TimeoutError("no answer in time"))
