"""A program that runs on a simulated host: its ready callbacks, and whether it may run them.

Every callback, task and timer belongs to the process in whose context it was
made: the variable ``PROCESS`` travels with asyncio's contexts, so production code
does not know of it.  A process that is killed takes its callbacks with it; what
its tasks wait for never comes, and no ``finally`` of theirs runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar, copy_context
from typing import Any

from ssastore.sim.clock import HostClock


class Process:
    """One run of a program. Only the loop changes its queues.

    Args:
        name: for the story and the trace.
        clock: of the host that it runs on.
        owner: the host; None for the world, which watches and makes faults.
    """

    __slots__ = (
        "clock",
        "context",
        "holds",
        "is_dead",
        "is_listed",
        "mark",
        "name",
        "owner",
        "ready",
        "steps_left",
    )

    def __init__(self, name: str, clock: HostClock, owner: Any = None) -> None:
        self.name = name
        self.clock = clock
        self.owner = owner
        self.mark = 0
        "In the trace of steps: given by the schedule, in order of creation."
        self.ready: deque[asyncio.Handle] = deque()
        self.holds = 0
        "How many reasons there are not to run it: paused by a fault, descheduled."
        self.is_listed = False
        "Whether the loop has it among those that can run."
        self.is_dead = False
        self.steps_left = 0
        "Callbacks until the scheduler takes the processor away; below 1: never."
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return f"<process {self.name}>"


PROCESS: ContextVar[Process | None] = ContextVar("ssastore_sim_process", default=None)
"The process whose code is running; None outside of all."
