"""Order of events in a store: changes run on the event loop, become durable in the log, reach LMDB later.

    event loop   run run run | run run ...      | settle, run run ...
    disk                     frame              | frame

Changes run as they come, into a batch that is open.  It closes when the batch before it is durable, so there
is one frame on its way to the disk at a time, and everything that came meanwhile is in the next.  Its callers
hear when it is durable, and only then do readers see it.

Two things leave this path, both with the help of a thread:

- A *checkpoint* brings the table (what the log holds) into LMDB, while new batches go to the other log file.
- A *direct commit* runs changes straight on LMDB (``lmdbcommit.py``): large ones, those for which the log or
  the map has no certain room, and all of them while there is no log.  It covers the table, and waits until
  neither a batch nor a checkpoint is under way.

Invariant: what is acknowledged is in LMDB or in a frame after LMDB's log record, and fits into LMDB: the log
takes a batch only when there is twice the room for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from time import perf_counter
from typing import TypeAlias

from ssastore.errors import EnvironmentProblem, SsaStoreError
from ssastore.store.changes import Change, Outcome, Submitted, answer, take_batch, without_trace
from ssastore.store.checkpoint import Checkpoint
from ssastore.store.lmdbcommit import GroupCommit, Logged
from ssastore.store.log import Log
from ssastore.store.logio import Die
from ssastore.store.table import Records
from ssastore.store.views import BatchTxn, State
from ssastore.store.workthread import WorkThread

Ran: TypeAlias = tuple[Submitted, Outcome]
"A change that has run."


class GroupWriter:
    """Queue and thread of one store. All methods belong to the thread of the event loop."""

    def __init__(
        self,
        state: State,
        log: Log | None,
        commit: GroupCommit,
        *,
        name: str,
        die: Die,
    ) -> None:
        """
        Args:
            state: what is durable; a table in it is what the log holds.
            log: None for a store without one.
            commit: for direct commits.
            name: of the thread.
            die: ends the process: what is on the disk is not known any more.
        """
        self._state = state
        self._log = log
        self._commit = commit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Submitted] = deque()
        self._is_due = False
        "A turn is scheduled."
        self._batch: BatchTxn | None = None
        self._ran: list[Ran] = []
        "Changes of the open batch."
        self._in_flight: Records | None = None
        "Of the batch that is being written."
        self._checkpoint: Checkpoint | None = None
        self._wants_direct = False
        "The first change that waits cannot go to the log."
        self._is_direct = False
        "A direct commit is under way."
        self._must_cover = bool(state.table.records)
        "The table could not be brought into LMDB, so the log takes nothing more."
        self._logged_cost = 0
        "What LMDB may need for both tables and the batch in flight."
        self._frozen_cost = 0
        self._cost_max = 0
        self._wrote_at_s = 0.0
        self.writes = 0
        "Batches that are durable in the log."
        self.write_s = 0.0
        "How long they took."
        self.checkpoints = 0
        self.direct_commits = 0
        self._drained: asyncio.Future[None] | None = None
        "Made by close, which waits for it; nothing is accepted from then on."
        self._lmdb_thread = WorkThread(f"store-lmdb {name}", die)
        self._renew()

    def do(self, submitted: Submitted) -> None:
        """Queue a change; see ``env.Store.do``."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._drained is not None:
            loop.call_soon(submitted.then, None, EnvironmentProblem("the store is closed"))
            return
        self._waiting.append(submitted)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._turn)

    async def close(self) -> None:
        """Finish what was submitted, bring it into LMDB, end the thread. May be called again."""
        if self._drained is None:
            self._loop = asyncio.get_running_loop()
            self._drained = self._loop.create_future()
            self._advance()
        await asyncio.shield(self._drained)
        self._lmdb_thread.end()

    # -- the log ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._is_due = False
        self._run()
        self._advance()

    def _run(self) -> None:
        """Run what waits, into the open batch, until that is full or a change cannot go there."""
        waiting, log = self._waiting, self._log
        while waiting and not self._wants_direct and not self._is_direct:
            submitted = waiting[0]
            if log is None or self._must_cover or submitted.size > log.change_bytes_max:
                self._wants_direct = True
                return
            batch = self._batch
            if batch is None:
                try:
                    batch = self._batch = self._new_batch(log)
                except SsaStoreError as error:
                    waiting.popleft()
                    answer(submitted, (None, error))
                    continue
            if batch.is_full:
                return
            outcome = _run(submitted.change, batch)
            if outcome is None:
                # It may fit a batch of its own. One that does not fit even that is not for the log.
                batch.is_full = True
                self._wants_direct = not batch.records
                return
            waiting.popleft()
            self._ran.append((submitted, outcome))
            batch.is_full = batch.bytes >= log.batch_bytes

    def _new_batch(self, log: Log) -> BatchTxn:
        return BatchTxn(
            self._state,
            self._in_flight or {},
            bytes_max=log.batch_bytes_max,
            cost_max=self._cost_max - self._logged_cost,
            page_bytes=self._commit.page_bytes,
        )

    def _advance(self) -> None:
        """Begin whatever can begin now."""
        if self._in_flight is not None or self._is_direct:
            return
        if self._batch is not None and self._ran:
            self._close_batch(self._batch)
        elif self._checkpoint is None:
            if self._wants_direct or (self._drained is not None and self._state.is_logged):
                self._begin_direct()
            elif self._drained is not None and not self._waiting and not self._drained.done():
                self._drained.set_result(None)

    def _close_batch(self, batch: BatchTxn) -> None:
        """Write the open batch to the log, as soon as that has room."""
        ran = self._ran
        if not batch.records:
            # Nothing but refusals; what they were decided on is durable.
            self._batch, self._ran = None, []
            self._settle(ran)
            return
        log = self._log
        assert log is not None
        if not log.has_room(batch.bytes):
            if self._checkpoint is not None:
                return  # Its end brings us here again.
            if self._must_cover:
                self._take_back()
                self._wants_direct = True
                self._begin_direct()
                return
            self._begin_checkpoint(log)
        self._batch, self._ran = None, []
        self._in_flight = batch.records
        self._logged_cost += batch.cost
        self._wrote_at_s = perf_counter()
        log.write(batch.records, partial(self._durable, ran))
        if self._waiting:
            self._run()

    def _durable(self, ran: list[Ran]) -> None:
        """A batch is in the log."""
        log = self._log
        assert self._in_flight is not None and log is not None
        self.writes += 1
        self.write_s += perf_counter() - self._wrote_at_s
        self._state.apply(self._in_flight)
        self._in_flight = None
        is_enough = log.is_half_full or self._logged_cost > self._cost_max // 4
        if is_enough and self._checkpoint is None and not self._must_cover:
            self._begin_checkpoint(log)
        self._advance()  # First: the disk works while the replies are written.
        self._settle(ran)

    def _settle(self, ran: list[Ran]) -> None:
        for submitted, outcome in ran:
            answer(submitted, outcome)
        if not self._is_due:
            assert self._loop is not None
            self._is_due = True
            self._loop.call_soon(self._turn)

    # -- LMDB ---------------------------------------------------------------------------------------

    def _begin_checkpoint(self, log: Log) -> None:
        """Bring the table into LMDB; the log goes on in the other file."""
        self._state.freeze()
        self._frozen_cost = self._logged_cost
        log.switch()
        self._lie_over()
        assert self._state.frozen is not None
        checkpoint = self._commit.checkpoint(self._state.frozen, log.record().encode())
        self._checkpoint = checkpoint
        self._lmdb_thread.do(checkpoint.begin, self._put_some)

    def _put_some(self, _: None = None) -> None:
        checkpoint = self._checkpoint
        assert checkpoint is not None and self._loop is not None
        if checkpoint.put_some():
            self._lmdb_thread.do(checkpoint.commit, self._end_checkpoint)
        else:
            self._loop.call_soon(self._put_some)

    def _end_checkpoint(self, _: None) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        assert checkpoint is not None
        if checkpoint.error is None:
            self.checkpoints += 1
            self._state.frozen = None
            self._logged_cost -= self._frozen_cost
            self._renew()
            self._lie_over()
        else:
            self._must_cover = True
        self._turn()

    def _begin_direct(self) -> None:
        """Run what waits first, or nothing at all, straight on LMDB, behind the tables."""
        self._wants_direct, self._is_direct = False, True
        self._batch = None
        submitted = take_batch(self._waiting) if self._waiting else []
        logged = None
        if self._state.is_logged:
            assert self._log is not None
            logged = Logged(self._state.merged(), self._log.record().encode())
        work = partial(self._commit, [one.change for one in submitted], logged)
        self._lmdb_thread.do(work, partial(self._end_direct, submitted))

    def _end_direct(self, submitted: list[Submitted], done: tuple[list[Outcome], bool]) -> None:
        outcomes, is_covered = done
        self._is_direct = False
        self.direct_commits += 1
        if is_covered and self._state.is_logged:
            assert self._log is not None
            self._log.switch()
            self._state.clear()
            self._must_cover = False
            self._logged_cost = 0
        self._renew()
        self._settle(list(zip(submitted, outcomes, strict=True)))
        if self._drained is not None and not submitted and not self._drained.done():
            self._drained.set_result(None)  # Also when it did not fit: then the log keeps it.

    def _lie_over(self) -> None:
        """The open batch has other layers below it."""
        if self._batch is not None:
            try:
                self._batch.lie_over(self._state, self._in_flight or {})
            except SsaStoreError:
                self._take_back()

    def _take_back(self) -> None:
        """The changes of the open batch run again later."""
        self._waiting.extendleft([submitted for submitted, _ in self._ran[::-1]])
        self._batch, self._ran = None, []

    def _renew(self) -> None:
        """LMDB has changed: read the new state, and see what fits."""
        self._state.renew()
        try:
            self._cost_max = self._commit.room(self._state.snapshot()).data // 2
        except SsaStoreError:
            self._cost_max = 0  # Whoever reads next asks again, and hears why not.


def _run(change: Change, batch: BatchTxn) -> Outcome | None:
    """Run one change of a batch; None when it does not fit there, and has left nothing."""
    writes, bytes_before, cost_before = batch.writes, batch.bytes, batch.cost
    outcome: Outcome
    try:
        outcome = change(batch), None
    except BaseException as error:
        outcome = None, without_trace(error)
    if batch.has_overflowed:
        # Also when the change has swallowed the error.
        batch.undo(bytes_before, cost_before)
        return None
    if batch.writes != writes:
        if outcome[1] is None:
            batch.keep()
        else:
            batch.undo(bytes_before, cost_before)
    return outcome
