"""One call at a time for a name, in the order in which they came, whoever is cancelled."""

from __future__ import annotations

import asyncio

from ssastore.core.proposer import Proposer
from ssastore.core.register import Ballots
from ssastore.env import spawn
from tests.registermodel import LoopClock, Seeded, run_virtually


def test_calls_for_a_name_take_turns_and_a_cancelled_one_is_skipped() -> None:
    seen: list[str] = []

    async def scenario() -> None:
        proposer = Proposer(Ballots(1, 1), LoopClock(), Seeded(1))

        async def hold(name: bytes, label: str, seconds: float) -> None:
            async with proposer.alone(name):
                seen.append(f"{label} in")
                await asyncio.sleep(seconds)
                seen.append(f"{label} out")
            if label == "a":
                tasks[2].cancel()  # Its turn has just come, and it has not run yet.

        tasks = [spawn(label, hold(b"k", label, 1)) for label in ("a", "b", "c", "d")]
        other = spawn("other", hold(b"other", "other", 0.5))
        await asyncio.sleep(0.2)
        tasks[1].cancel()  # While it waits.
        await asyncio.sleep(0.5)
        assert other.done()
        await asyncio.wait(tasks)
        assert tasks[1].cancelled() and tasks[2].cancelled()
        assert not proposer._locks, "nothing is kept of names that nobody is at"

    run_virtually(scenario)
    assert seen == ["a in", "other in", "other out", "a out", "d in", "d out"]
