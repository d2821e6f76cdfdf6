"""The acceptors of one name as a proposer sees them, and how it asks them all. Coroutines.

A plane counts once a phase, however often it answers.  What it says is a value, an
exception of its own, or one of those that say why it could not be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ssastore.core.register import NO_BALLOT, Ballot, Value
from ssastore.env import spawn
from ssastore.errors import BucketNotFound, OutcomeUnknown, SsaStoreError, StoreFull, Unavailable

T = TypeVar("T")


class Outrun(Exception):
    """An acceptor has promised or accepted a higher ballot: ``seen``."""

    def __init__(self, seen: Ballot) -> None:
        super().__init__(f"outrun by ballot {seen.hex()}")
        self.seen = seen


class Stale(Exception):
    """An acceptor knows another configuration of the group than the round was begun under."""


class Uncounted(Stale):
    """The name is in a shard whose writes are counted, and this round's are not, or by somebody else."""


@dataclass(frozen=True, slots=True)
class Promise:
    """An acceptor's answer to PREP."""

    cfg: int
    accepted: Ballot
    floor: Ballot
    value: bytes | memoryview
    hold: bytes = b""
    "Where writes are counted: under which hold all that this plane has was; else empty."
    is_held: bool = False
    "Whether this plane takes counted values only."


class Bill(Protocol):
    """What a call is charged, where its bucket has a quota (``core.counting``)."""

    @property
    def is_open(self) -> bool:
        """Whether writes are counted, by this worker."""
        ...

    @property
    def is_counted(self) -> bool:
        """Whether all that the planes hold was reckoned with."""
        ...

    async def open(self) -> None:
        """Begin to count. Raises SsaStoreError."""
        ...

    async def counted(self) -> None:
        """Wait until all is reckoned with. Raises HeldElsewhere: that takes long, Uncounted: others do it."""
        ...

    async def charge(self, old: Value, new: Value) -> bool:
        """Before a value is sent: let it count; False when the quota forbids it. Raises as ``counted``.

        What is charged stays charged unless one of the next two is called.
        """
        ...

    def settle(self) -> None:
        """The value was chosen, over the old one."""
        ...

    def release(self) -> None:
        """Nothing was sent, or nothing will come of it."""
        ...


class Planes(Protocol):
    """The acceptors of one name, one a plane.

    Both calls raise Outrun, Stale, Uncounted, or OSError / SsaStoreError when the plane cannot be asked;
    OutcomeUnknown when it was asked to accept and did not answer.  ``count`` and ``cfg`` belong together: so
    many planes has the group under that configuration, which is the one that they are asked under.  A round
    is held on what ``now`` returns when it begins, and on nothing else: a majority of one count means nothing
    under another configuration.
    """

    @property
    def count(self) -> int: ...

    @property
    def cfg(self) -> int: ...

    @property
    def bill(self) -> Bill | None:
        """None: nothing is counted, as far as is known, or this is no call."""
        ...

    def now(self) -> Planes:
        """The planes as they are known now. Raises Unavailable: none of them votes here."""
        ...

    async def prepare(self, plane: int, ballot: Ballot) -> Promise: ...

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        """``hold`` is that of the promise that an old value came with; the bill knows that of a new one."""
        ...


async def majority(count: int, ask: Callable[[int], Awaitable[T]]) -> list[T]:
    """The first F+1 answers, one a plane. Those still under way go on by themselves.

    Raises:
        Outrun: a plane was outrun and no majority is left; the highest ballot seen.
        Stale: the same, of a plane with another cfg.
        Unavailable: too many planes cannot be asked.
    """
    need = count // 2 + 1
    answers: list[T] = []
    errors: list[Exception] = []
    enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask_one(plane: int) -> None:
        try:
            answers.append(await ask(plane))
        except (Outrun, Stale, OSError, SsaStoreError) as error:
            errors.append(error)
        except asyncio.CancelledError:
            enough.cancel()
            raise
        except Exception as error:
            if enough.done():
                raise
            enough.set_exception(error)
            return
        if (len(answers) == need or len(answers) + len(errors) == count) and not enough.done():
            enough.set_result(None)

    for plane in range(count):
        spawn("ask a plane", ask_one(plane))
    await enough
    if len(answers) >= need:
        return answers[:need]
    seen = max((error.seen for error in errors if isinstance(error, Outrun)), default=NO_BALLOT)
    stale = next((error for error in errors if isinstance(error, Uncounted)), None) or next(
        (error for error in errors if isinstance(error, Stale)), None
    )
    failures = [error for error in errors if not isinstance(error, (Outrun, Stale))]
    if seen != NO_BALLOT:
        raise Outrun(seen)
    if stale is not None:
        raise stale
    for refusal in (BucketNotFound, StoreFull):
        # A majority says no, and no plane has said yes, or may have.
        refused = [error for error in failures if isinstance(error, refusal)]
        in_doubt = answers or any(isinstance(error, OutcomeUnknown) for error in failures)
        if len(refused) >= need and not in_doubt:
            raise refused[0]
    raise Unavailable(f"{len(answers)} of {count} planes answered: {'; '.join(map(str, failures))}")
