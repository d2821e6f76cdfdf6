"""How much of an event loop a scrub takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssastore.core.scrub import Pace


class _Loop:
    """The running loop's time, which passes only by work and by rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.rested = 0.0
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    def time(self) -> float:
        return self.now

    async def _sleep(self, delay: float) -> None:
        self.now += max(delay, 0.0)
        self.rested += max(delay, 0.0)


def run(coroutine: Any) -> None:
    """Without an event loop: nothing in it waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize(
    ("size", "work_s", "rested_s"),
    [
        (1 << 20, 0.001, 100.0),  # 100 MiB at 1 MiB/s: bytes are the limit.
        (1 << 10, 0.020, 18.0),  # small records: a tenth of the time is work.
        (1 << 10, 0.000, 0.098),
    ],
)
def test_bytes_and_time_are_both_limited(
    monkeypatch: pytest.MonkeyPatch, size: int, work_s: float, rested_s: float
) -> None:
    loop = _Loop(monkeypatch)
    pace = Pace(1 << 20)

    async def work() -> None:
        for _ in range(100):
            with pace.working():
                loop.now += work_s
            await pace.spend(size)

    run(work())
    assert loop.rested == pytest.approx(rested_s, rel=0.15)
