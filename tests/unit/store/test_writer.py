"""How changes come together in batches, with a commit that the test holds in its hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from ssastore.env import WriteTxn
from ssastore.errors import EnvironmentProblem
from ssastore.store.changes import Change, Outcome
from ssastore.store.writer import GroupWriter


class HeldCommit:
    """Remembers the batches; each waits until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.bug: BaseException | None = None

    def __call__(self, changes: list[Change]) -> list[Outcome]:
        self.batches.append(len(changes))
        self.began.release()
        self.go.acquire()
        if self.bug is not None:
            raise self.bug
        return [(number, None) for number in range(len(changes))]


def nothing(txn: WriteTxn) -> int:
    return 0


@pytest.fixture
def commit() -> Iterator[HeldCommit]:
    commit = HeldCommit()
    yield commit
    for _ in range(100):
        commit.go.release()


async def test_changes_of_one_turn_share_a_commit(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")
    futures = [writer.submit(nothing, 1) for _ in range(5)]
    commit.go.release()
    assert await asyncio.gather(*futures) == [0, 1, 2, 3, 4]
    assert commit.batches == [5]
    await writer.close()


async def test_changes_during_a_commit_share_the_next(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(commit.began.acquire)
    others = []
    for _ in range(3):
        others.append(writer.submit(nothing, 1))
        await asyncio.sleep(0)
    assert commit.batches == [1] and not first.done()
    commit.go.release(2)
    await asyncio.gather(first, *others)
    assert commit.batches == [1, 3]
    await writer.close()


async def test_what_follows_from_a_reply_joins_those_who_wait(commit: HeldCommit) -> None:
    """64 callers that write one after the other make commits of 64, not of 1 and 63."""
    writer = GroupWriter(commit, "test")

    async def caller() -> None:
        for _ in range(3):
            await writer.submit(nothing, 1)

    commit.go.release(3)
    await asyncio.gather(*(caller() for _ in range(64)))
    assert commit.batches == [64, 64, 64]
    await writer.close()


async def test_next_commit_waits_for_those_who_were_just_answered(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")

    async def caller() -> None:
        await writer.submit(nothing, 1)
        await writer.submit(nothing, 1)

    answered = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    await asyncio.to_thread(commit.began.acquire)
    queued = writer.submit(nothing, 1)
    commit.go.release(2)
    await asyncio.gather(answered, queued)
    assert commit.batches == [1, 2]
    await writer.close()


async def test_close_waits_for_what_is_queued(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(commit.began.acquire)
    second = writer.submit(nothing, 1)
    closing = [asyncio.ensure_future(writer.close()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EnvironmentProblem, match="closed"):
        await writer.submit(nothing, 1)
    assert not closing[0].done()
    commit.go.release(2)
    await asyncio.gather(*closing)
    assert first.done() and second.done() and commit.batches == [1, 1]


async def test_cancelled_close_can_be_called_again(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")
    first = writer.submit(nothing, 1)
    await asyncio.to_thread(commit.began.acquire)
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    closing.cancel()
    commit.go.release()
    await writer.close()
    assert first.done()


async def test_bug_in_the_commit_leaves_nobody_waiting(commit: HeldCommit) -> None:
    writer = GroupWriter(commit, "test")
    commit.bug = ZeroDivisionError("planted")
    commit.go.release()
    outcomes = await asyncio.gather(*(writer.submit(nothing, 1) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EnvironmentProblem] * 2
    assert "planted" in str(outcomes[0])
    commit.bug = None
    commit.go.release()
    await writer.submit(nothing, 1)
    await writer.close()


def test_thread_ends_when_the_loop_is_gone(commit: HeldCommit) -> None:
    name = "writer without a loop"

    async def submit_and_leave() -> None:
        writer = GroupWriter(commit, name)
        writer.submit(nothing, 1)
        await asyncio.to_thread(commit.began.acquire)

    asyncio.run(submit_and_leave())
    (thread,) = (thread for thread in threading.enumerate() if thread.name == name)
    commit.go.release()
    thread.join(timeout=10)
    assert not thread.is_alive()
