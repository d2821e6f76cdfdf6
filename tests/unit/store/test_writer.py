"""How changes come together in batches, with commits that the test holds in its hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem, StoreFull
from ssastore.store.changes import Abandoned, Change, Outcome
from ssastore.store.writer import LOOP_CHANGE_BYTES_MAX, SLICE_BYTES_MAX, SLICE_OPS_MAX, GroupWriter

LARGE = LOOP_CHANGE_BYTES_MAX + 1


class Disk:
    """Remembers the batches; the sync of each waits until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.runs: list[tuple[int, bool]] = []
        "Calls of ``run``: how many changes, and whether on the event loop's thread."
        self.ended = 0
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.run_errors: list[BaseException | None] = []
        "What the next calls of ``run`` raise; likewise ``sync_errors``."
        self.sync_errors: list[BaseException | None] = []
        self._loop_thread = threading.get_ident()

    def writer(self, name: str = "test") -> GroupWriter:
        return GroupWriter(lambda: HeldAttempt(self), self.end, name)

    def end(self) -> None:
        assert threading.get_ident() == self._loop_thread
        self.ended += 1

    def note_run(self, count: int) -> None:
        self.runs.append((count, threading.get_ident() == self._loop_thread))
        if self.run_errors and (error := self.run_errors.pop(0)) is not None:
            raise error


class HeldAttempt:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._count = 0

    def run(self, changes: list[Change]) -> list[Outcome]:
        if changes:
            self._disk.note_run(len(changes))
        self._count += len(changes)
        transaction: WriteTxn = None  # type: ignore[assignment]
        return [(change(transaction), None) for change in changes]

    def sync(self) -> None:
        disk = self._disk
        assert threading.current_thread().name.startswith("test")
        disk.batches.append(self._count)
        disk.began.release()
        disk.go.acquire()
        if disk.sync_errors and (error := disk.sync_errors.pop(0)) is not None:
            raise error


def nothing(txn: WriteTxn) -> int:
    return 0


def constant(number: int) -> Callable[[WriteTxn], int]:
    return lambda txn: number


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.go.release(100)


async def test_changes_of_one_turn_share_a_commit(disk: Disk) -> None:
    writer = disk.writer()
    futures = [writer.submit(constant(number), 1) for number in range(5)]
    disk.go.release()
    assert await asyncio.gather(*futures) == [0, 1, 2, 3, 4]
    assert disk.batches == [5]
    await writer.close()


async def test_changes_during_a_commit_share_the_next(disk: Disk) -> None:
    writer = disk.writer()
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(disk.began.acquire)
    others = []
    for _ in range(3):
        others.append(writer.submit(nothing, 1))
        await asyncio.sleep(0)
    assert disk.batches == [1] and not first.done()
    disk.go.release(2)
    await asyncio.gather(first, *others)
    assert disk.batches == [1, 3]
    await writer.close()


async def test_what_follows_from_a_reply_joins_those_who_wait(disk: Disk) -> None:
    """64 callers that write one after the other make commits of 64, not of 1 and 63."""
    writer = disk.writer()

    async def caller() -> None:
        for _ in range(3):
            await writer.submit(nothing, 1)

    disk.go.release(3)
    await asyncio.gather(*(caller() for _ in range(64)))
    assert disk.batches == [64, 64, 64]
    await writer.close()


async def test_what_is_queued_does_not_wait_for_those_who_were_just_answered(disk: Disk) -> None:
    """Over a network they come back a millisecond later at best; the disk would be idle until then."""
    writer = disk.writer()

    async def caller() -> None:
        await writer.submit(nothing, 1)
        await writer.submit(nothing, 1)

    answered = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    await asyncio.to_thread(disk.began.acquire)
    queued = writer.submit(nothing, 1)
    disk.go.release(3)
    await asyncio.gather(answered, queued)
    assert disk.batches == [1, 1, 1]
    await writer.close()


async def test_hundreds_that_fail_alone_are_no_recursion(disk: Disk) -> None:
    writer = disk.writer()
    count = 1000
    disk.run_errors += [Abandoned(LookupError("of the batch"))]
    disk.run_errors += [Abandoned(LookupError("its own"))] * count
    outcomes = await asyncio.gather(
        *(writer.submit(nothing, 1) for _ in range(count)), return_exceptions=True
    )
    assert {repr(outcome) for outcome in outcomes} == {"LookupError('its own')"}
    await writer.close()


async def test_close_waits_for_what_is_queued(disk: Disk) -> None:
    writer = disk.writer()
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(disk.began.acquire)
    second = writer.submit(nothing, 1)
    closing = [asyncio.ensure_future(writer.close()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EnvironmentProblem, match="closed"):
        await writer.submit(nothing, 1)
    assert not closing[0].done()
    disk.go.release(2)
    await asyncio.gather(*closing)
    assert first.done() and second.done() and disk.batches == [1, 1]


async def test_cancelled_close_can_be_called_again(disk: Disk) -> None:
    writer = disk.writer()
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(disk.began.acquire)
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    closing.cancel()
    disk.go.release()
    await writer.close()
    assert first.done()


@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("where", ["run", "sync"])
async def test_bug_leaves_nobody_waiting(disk: Disk, where: str, size: int) -> None:
    writer = disk.writer()
    (disk.run_errors if where == "run" else disk.sync_errors).append(ZeroDivisionError("planted"))
    disk.go.release(2)
    outcomes = await asyncio.gather(*(writer.submit(nothing, size) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EnvironmentProblem] * 2
    assert all("planted" in str(outcome) for outcome in outcomes) and outcomes[0] is not outcomes[1]
    assert disk.ended == 1
    await writer.submit(nothing, size)
    await writer.close()


@pytest.mark.parametrize("where", ["run", "sync"])
async def test_known_problem_keeps_its_class(disk: Disk, where: str) -> None:
    writer = disk.writer()
    (disk.run_errors if where == "run" else disk.sync_errors).append(StoreFull("no room"))
    disk.go.release(2)
    outcomes = await asyncio.gather(*(writer.submit(nothing, 1) for _ in range(2)), return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == ["StoreFull('no room')"] * 2
    await writer.close()


@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("where", ["run", "sync"])
async def test_changes_of_an_abandoned_batch_run_alone_and_first(disk: Disk, where: str, size: int) -> None:
    writer = disk.writer()
    errors = disk.run_errors if where == "run" else disk.sync_errors
    errors += [Abandoned(LookupError("of the batch")), None, Abandoned(LookupError("its own")), None]
    order: list[int] = []
    futures = []
    for number in range(5):
        futures.append(writer.submit(constant(number), size))
        futures[-1].add_done_callback(lambda _, number=number: order.append(number))
        if number == 2:
            await asyncio.sleep(0)  # The batch is under way; what follows waits.
    closing = asyncio.ensure_future(writer.close())
    disk.go.release(5)
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    await closing
    assert [repr(outcome) for outcome in outcomes] == ["0", "LookupError('its own')", "2", "3", "4"]
    assert order == [0, 1, 2, 3, 4]
    assert [count for count, _ in disk.runs] == [3, 1, 1, 1, 2] and disk.ended == 5


async def test_end_is_told_before_the_callers(disk: Disk) -> None:
    writer = disk.writer()
    future = writer.submit(nothing, 1)
    seen: list[int] = []
    future.add_done_callback(lambda _: seen.append(disk.ended))
    await asyncio.to_thread(disk.began.acquire)
    assert disk.ended == 0
    disk.go.release()
    await future
    assert seen == [1]
    await writer.close()


@pytest.mark.parametrize("size", [0, 5000, SLICE_BYTES_MAX])
async def test_small_changes_run_on_the_event_loop_in_slices(disk: Disk, size: int) -> None:
    writer = disk.writer()
    count = 3 * SLICE_OPS_MAX if size < SLICE_BYTES_MAX else 3
    futures = [writer.submit(constant(number), size) for number in range(count)]
    for turn in range(4):
        assert len(disk.runs) == turn, "one slice in a turn"
        await asyncio.sleep(0)
    disk.go.release(100)
    assert await asyncio.gather(*futures) == [*range(count)]
    assert disk.runs == [(count // 3, True)] * 3 and disk.batches == [count]
    await writer.close()


async def test_batch_with_a_large_change_runs_on_the_thread(disk: Disk) -> None:
    writer = disk.writer()
    futures = [writer.submit(constant(number), size) for number, size in enumerate([1, LARGE, 1])]
    disk.go.release()
    assert await asyncio.gather(*futures) == [0, 1, 2]
    assert disk.runs == [(3, False)]
    await writer.close()


def test_thread_ends_when_the_loop_is_gone(disk: Disk) -> None:
    name = "test of a writer without a loop"

    async def submit_and_leave() -> None:
        writer = disk.writer(name)
        writer.submit(nothing, 1)
        await asyncio.to_thread(disk.began.acquire)

    asyncio.run(submit_and_leave())
    (thread,) = (thread for thread in threading.enumerate() if thread.name == name)
    disk.go.release()
    thread.join(timeout=10)
    assert not thread.is_alive()
