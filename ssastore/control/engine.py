"""One control store at work: changes in turn, waiting for changes, leases that end by themselves.

The same for both adapters; they differ in ``persist``, which makes a change durable
before it is applied.  Without it nothing here waits, so a store in memory takes each
change in one step of the event loop.

Invariants: what a reader sees is durable; one change is under way at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ssastore.control.state import Change, ControlState, check_key, check_prefix
from ssastore.env import Compare, Event, Item, Write, spawn
from ssastore.errors import EnvironmentProblem, Unavailable

_EXPIRY_RETRY_MS = 1000
"Wait after a failed try to end leases; a full disk does not get better by asking it all the time."

Persist = Callable[[Change], Awaitable[None]]


def loop_now_ms() -> int:
    """Milliseconds of the running event loop's clock, which a simulator may own."""
    return int(asyncio.get_running_loop().time() * 1000)


class ControlEngine:
    """Runs a ``ControlState``. Used from one event loop."""

    def __init__(
        self,
        state: ControlState,
        *,
        now_ms: Callable[[], int] = loop_now_ms,
        persist: Persist | None = None,
    ) -> None:
        """``persist`` raises EnvironmentProblem when nothing of the change was kept.

        Anything else that it raises leaves open whether the file is ahead of the state, and the
        engine refuses everything from then on: the file must be loaded again.
        """
        self._state = state
        self._now_ms = now_ms
        self._persist = persist
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._refusal = ""
        self._arm()

    async def get(self, key: str) -> Item | None:
        check_key(key)
        await self._settle()
        return self._state.get(key)

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        check_prefix(prefix)
        await self._settle()
        return self._state.items(prefix), self._state.revision

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        async with self._turn:
            await self._end_due()
            change = self._state.plan_transact(compares, writes)
            if change is not None and change.writes:
                await self._commit(change)
            return None if change is None else change.revision

    async def grant(self, ttl_ms: int) -> int:
        async with self._turn:
            await self._end_due()
            change = self._state.plan_grant(ttl_ms)
            await self._commit(change)
            return change.next_lease - 1

    async def keep_alive(self, lease: int) -> bool:
        async with self._turn:
            await self._end_due()
            return self._state.keep_alive(lease, self._now_ms())

    async def revoke(self, lease: int) -> None:
        async with self._turn:
            await self._end_due()
            change = self._state.plan_end([lease])
            if change:
                await self._commit(change)

    async def next_events(self, prefix: str, after_revision: int) -> tuple[Sequence[Event], int]:
        """Changes under a prefix after a revision and the revision they reach; waits for the next change.

        The events may be empty: then go on from the revision that was returned, so that a watch
        of a quiet prefix does not fall behind the history.

        Raises:
            WatchCompacted: see ``ControlState.events``.
            Unavailable: the engine was stopped.
        """
        check_prefix(prefix)
        await self._settle()
        if after_revision == self._state.revision:
            await self._changed.wait()
            await self._settle()
        return self._state.events(prefix, after_revision), self._state.revision

    def wake(self) -> None:
        """Let every ``next_events`` return."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Refuse everything from now on; a change that is under way is finished."""
        self._refuse("it was closed")

    def _refuse(self, reason: str) -> None:
        self._refusal = reason
        self._arm()
        self.wake()

    async def _settle(self) -> None:
        """End the leases that are due, so that nobody reads a key of an ended lease."""
        if self._refusal or self._state.due(self._now_ms()):
            async with self._turn:
                await self._end_due()

    async def _end_due(self) -> None:
        if self._refusal:
            raise Unavailable(f"the control store does not answer: {self._refusal}")
        change = self._state.plan_end(self._state.due(self._now_ms()))
        if change:
            await self._commit(change)

    async def _commit(self, change: Change) -> None:
        if self._persist:
            try:
                await self._persist(change)
            except EnvironmentProblem:
                raise
            except BaseException:
                self._refuse("a commit ended in an unknown state; start its server again")
                raise
        self._state.apply(change, self._now_ms())
        self._arm()
        self.wake()

    def _arm(self, wait_ms_min: int = 1) -> None:
        """Set the timer to the next deadline."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        deadline = self._state.next_deadline_ms()
        if deadline is not None and not self._refusal:
            wait_s = max(wait_ms_min, deadline - self._now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        spawn("control leases", self._expire())

    async def _expire(self) -> None:
        try:
            await self._settle()
            self._arm()
        except (EnvironmentProblem, Unavailable):
            self._arm(_EXPIRY_RETRY_MS)  # Whoever calls in the meantime is told why.
