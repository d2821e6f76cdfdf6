"""What runs next, and when: processes with something ready, timers, the seed's choice among them.

Time stands still while callbacks run and jumps to the next timer when none is
ready, so a run of an hour takes as long as its callbacks.

* Between processes there is no order: a random one of those that have something
  ready runs one callback.
* Inside a process ``call_soon`` is first in, first out, as asyncio documents and
  production code may rely on.  Only steps of *tasks* that stand next to one another
  in the queue are shuffled: which of two woken tasks runs first is nobody's promise.
* Timers that are due at the same instant come in random order.
* A process may lose the processor for a while after any callback (``deschedule``),
  so that what production does at one instant is not done at one instant.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from ssastore.sim.process import Process
from ssastore.sim.seeds import Stream

_SHUFFLED_MAX = 4
"How many task steps at the head of a queue are taken for simultaneous."


class Schedule:
    """Virtual time and the order of things. ``now_ns`` is the world's time."""

    def __init__(self, draw: Stream) -> None:
        self.now_ns = 0
        self.runnable: list[Process] = []
        "Processes that have something ready and are not held."
        self.deschedule_every = 0
        "Mean number of callbacks until a process loses the processor; 0: never."
        self.deschedule_ns = 0
        "For how long, on average."
        self._draw = draw
        self._random = draw.random
        self._serial = 0
        self._process_count = 0
        self._timers: list[tuple[int, float, int, Process | None, Any]] = []
        "(due, tie, serial, process or None, TimerHandle or (function, arguments))."

    # -- processes ----------------------------------------------------------------------------------

    def add(self, process: Process) -> None:
        """Let a process run from now on."""
        process.mark = self._process_count & 0xFFFF
        self._process_count += 1
        if process.owner is not None:
            self._new_quantum(process)

    def kill(self, process: Process) -> None:
        """Never run anything of this process again."""
        process.is_dead = True
        process.ready.clear()
        self._unlist(process)

    def hold(self, process: Process) -> None:
        """Let nothing of this process run until as many ``release``."""
        process.holds += 1
        self._unlist(process)

    def release(self, process: Process) -> None:
        """Take one ``hold`` back."""
        assert process.holds > 0
        process.holds -= 1
        self._list(process)

    def _list(self, process: Process) -> None:
        if process.ready and not process.holds and not process.is_listed:
            process.is_listed = True
            self.runnable.append(process)

    def _unlist(self, process: Process) -> None:
        if process.is_listed:
            process.is_listed = False
            self.runnable.remove(process)

    def _new_quantum(self, process: Process) -> None:
        process.steps_left = 1 + self._draw.span_ns(self.deschedule_every) if self.deschedule_every else 0

    def deschedule(self, process: Process) -> None:
        """Its quantum is used up: others first."""
        self._new_quantum(process)
        if not process.is_dead:
            self.hold(process)
            self.at(self.now_ns + self._draw.span_ns(self.deschedule_ns), self.release, process)

    # -- queues -------------------------------------------------------------------------------------

    def later(self, span_ns: int, process: Process, timer: asyncio.TimerHandle) -> None:
        """Into the process's queue after some time."""
        self._serial += 1
        heappush(self._timers, (self.now_ns + span_ns, self._random(), self._serial, process, timer))

    def at(self, due_ns: int, event: Callable[..., object], *args: Any) -> None:
        """Let something happen to the world at an instant: a packet arrives, a host loses power."""
        assert due_ns >= self.now_ns
        self._serial += 1
        heappush(self._timers, (due_ns, self._random(), self._serial, None, (event, args)))

    def next(self) -> tuple[Process, asyncio.Handle]:
        """One of the runnable processes, of which there must be some, and its next callback."""
        runnable = self.runnable
        count = len(runnable)
        at = int(self._random() * count) if count > 1 else 0
        process = runnable[at]
        ready = process.ready
        handle = ready.popleft()
        if not ready:
            runnable[at] = runnable[-1]
            runnable.pop()
            process.is_listed = False
        # ``_is_task_step``, written out: a fifth of a run's time is spent between these lines.
        elif isinstance(getattr(handle._callback, "__self__", None), Task):  # type: ignore[attr-defined]
            handle = self._one_of_the_steps(handle, ready)
        return process, handle

    def _one_of_the_steps(self, handle: asyncio.Handle, ready: deque[asyncio.Handle]) -> asyncio.Handle:
        """``handle`` or one of the task steps that follow it without anything between."""
        count = 1
        for later in ready:
            if count == _SHUFFLED_MAX or not _is_task_step(later):
                break
            count += 1
        if count > 1 and (chosen := int(self._random() * count)):
            handle, ready[chosen - 1] = ready[chosen - 1], handle
        return handle

    def advance(self) -> bool:
        """Go to the instant of the next timer and make everything of it ready; False: there is none."""
        timers = self._timers
        due_ns = -1
        while timers and (due_ns < 0 or timers[0][0] == due_ns):
            at_ns, _, _, process, what = heappop(timers)
            if process is None:
                due_ns = self.now_ns = at_ns
                event, args = what
                event(*args)
            elif not (process.is_dead or what._cancelled):
                due_ns = self.now_ns = at_ns
                process.ready.append(what)
                self._list(process)
        return due_ns >= 0

    def clear(self) -> None:
        """Forget all timers."""
        self._timers.clear()


def _is_task_step(handle: asyncio.Handle) -> bool:
    # A task puts its own steps into the queue, and whoever it waits for its waking up: both are bound to it.
    return isinstance(getattr(handle._callback, "__self__", None), Task)  # type: ignore[attr-defined]
