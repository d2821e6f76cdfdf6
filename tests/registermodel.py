"""Proposers and acceptors in memory, on virtual time, with a network that loses, delays and repeats.

One register, several proposers, several planes.  Clients repeat their calls at other
proposers under one operation id, as they do when an answer is lost.  What they were told
must be explained by one order of operations, each applied once.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from ssastore.core.birth import Birth
from ssastore.core.planes import Outrun, Promise
from ssastore.core.proposer import Operation, Proposer
from ssastore.core.register import (
    LIVE,
    NO_BALLOT,
    Ballot,
    Ballots,
    Decision,
    Slot,
    Value,
    decode_slot,
)
from ssastore.env import spawn
from ssastore.errors import OutcomeUnknown, SsaStoreError, Unavailable

APPLIED, REFUSED = 0, 2
NAME = b"k"
PROPOSERS, CLIENTS, CALLS, ATTEMPTS = 3, 4, 4, 3


class _Selector(selectors.SelectSelector):
    """Waits for nothing: time jumps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for something that never comes")
        self.now += max(timeout, 0.0)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio on virtual time."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run_virtually(work: Callable[[], Any]) -> Any:
    """Run a coroutine function on virtual time; leftovers are cancelled."""
    loop = JumpingLoop()
    try:
        result = loop.run_until_complete(work())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        return result
    finally:
        loop.close()


class LoopClock:
    """Implements ``env.Clock`` on the running loop."""

    def now_ms(self) -> int:
        return 1_000_000 + int(asyncio.get_running_loop().time() * 1000)


class Seeded(Random):
    """Implements ``env.Randomness``."""

    def bytes(self, count: int) -> bytes:
        return self.randbytes(count)

    def below(self, bound: int) -> int:
        return self.randrange(bound)


class Network:
    """Planes of one register behind a network that is as bad as the seed says."""

    def __init__(self, seed: int, count: int = 3) -> None:
        self.random = Seeded(seed)
        self.count = count
        self.cfg = 1
        self.bill = None
        self.slots: list[bytes | None] = [None] * count
        self._loss = self.random.choice([0, 0, 0.05, 0.2])
        self._repeated = self.random.choice([0, 0.1])
        self.delay_s = self.random.choice([0.001, 0.02, 0.2])

    async def _travel(self) -> None:
        await asyncio.sleep(self.random.random() * self.delay_s)
        if self.random.random() < self._loss:
            await asyncio.sleep(0.5)
            raise OSError("lost")

    def _apply(self, plane: int, change: Callable[[Slot], Any]) -> Any:
        slot = decode_slot(self.slots[plane], NO_BALLOT)
        answer = change(slot)
        self.slots[plane] = b"".join(slot.encode())
        return answer

    async def ask(self, plane: int, change: Callable[[Slot], Any]) -> Any:
        """One request to one plane and its answer."""
        await self._travel()
        answer = self._apply(plane, change)
        if self.random.random() < self._repeated:

            async def again() -> None:
                await asyncio.sleep(self.random.random() * self.delay_s * 10)
                with suppress(SsaStoreError):  # Nobody hears what becomes of it.
                    self._apply(plane, change)

            spawn("delivered again", again())
        await self._travel()
        return answer

    def now(self) -> Self:
        return self

    async def prepare(self, plane: int, ballot: Ballot) -> Promise:
        def change(slot: Slot) -> tuple[bool, Ballot, Ballot, bytes]:
            return slot.prepare(ballot), slot.seen, slot.accepted, bytes(slot.value)

        promised, seen, accepted, value = await self.ask(plane, change)
        if not promised:
            raise Outrun(seen)
        return Promise(1, accepted, NO_BALLOT, value)

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        taken, seen = await self.ask(plane, lambda slot: (slot.accept(ballot, value, reserved), slot.seen))
        if not taken:
            raise Outrun(seen)


@dataclass
class Call:
    """What a client asked for and was told; an unknown outcome has no result."""

    kind: str
    called: float
    value: bytes = b""
    expected: bytes | None = None
    "With ``cas``: what must be there, None for nothing."
    answered: float = float("inf")
    result: str = ""
    found: bytes | None = None


def decide_write(call: Call) -> Callable[[Value], Decision]:
    """A put, or a put on a condition."""

    def decide(value: Value) -> Decision:
        current = bytes(value.data) if value.is_live else None
        if call.kind == "cas" and current != call.expected:
            return Decision(REFUSED, None)
        return Decision(APPLIED, Value(LIVE, 1, b"", call.value))

    return decide


@dataclass
class Run:
    """One seeded run. ``history`` is complete when it ends."""

    network: Network
    history: list[Call] = field(default_factory=list)

    async def play(self) -> list[Call]:
        """All clients to their ends, and everything that is still under way."""
        random = self.network.random
        self._proposers = [
            Proposer(Ballots(number + 1, 1), LoopClock(), random) for number in range(PROPOSERS)
        ]
        self._values = itertools.count()
        await asyncio.gather(*[self._client() for _ in range(CLIENTS)])
        await asyncio.sleep(5)
        return self.history

    async def _client(self) -> None:
        network, random = self.network, self.network.random
        for _ in range(CALLS):
            await asyncio.sleep(random.random() * network.delay_s * 4)
            call = Call(random.choice(["put", "put", "cas", "get"]), asyncio.get_running_loop().time())
            call.value = b"%d" % next(self._values)
            if self.history:
                call.expected = random.choice([None, *[earlier.value for earlier in self.history]])
            self.history.append(call)
            await self._repeat(call)

    async def _repeat(self, call: Call) -> None:
        """As a client does: a call that was not sent is sent as it was, one in doubt as a repetition."""
        random = self.network.random
        born_ms, op_id = LoopClock().now_ms(), random.randbytes(16)
        attempt, in_doubt = 1, False
        for _ in range(ATTEMPTS):
            attempt += in_doubt
            proposer = random.choice(self._proposers)
            try:
                if call.kind == "get":
                    _, value = await proposer.read(NAME, self.network)
                    call.found, call.result = bytes(value.data) if value.is_live else None, "found"
                else:
                    operation = Operation(op_id, decide_write(call), Birth(born_ms, born_ms), attempt)
                    outcome = await proposer.write(NAME, self.network, operation)
                    if random.random() < 0.2:
                        in_doubt = True  # The answer is lost.
                        continue
                    call.result = "applied" if outcome.result == APPLIED else "refused"
                call.answered = asyncio.get_running_loop().time()
                return
            except OutcomeUnknown:
                in_doubt = True
            except Unavailable:
                continue
        if not in_doubt:
            call.answered, call.result = asyncio.get_running_loop().time(), "not written"


def play(seed: int) -> list[Call]:
    """The history of one seed."""

    async def work() -> list[Call]:
        return await Run(Network(seed)).play()

    history: list[Call] = run_virtually(work)
    return history


def is_linearizable(history: list[Call]) -> bool:
    """Whether one order of instants explains all answers. By search; for about 16 calls."""
    calls = [call for call in history if call.result or call.kind != "get"]
    calls = [call for call in calls if call.result != "not written"]
    answered = sum(1 << i for i, call in enumerate(calls) if call.result)
    seen: set[tuple[int, bytes | None]] = set()
    stack: list[tuple[int, bytes | None]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if done & answered == answered:
            return True
        left = [(i, call) for i, call in enumerate(calls) if not done >> i & 1]
        first_answer = min((call.answered for _, call in left if call.result), default=float("inf"))
        for i, call in left:
            if call.called <= first_answer:
                stack += [(done | 1 << i, after) for after in _after(call, state)]
    return False


def _after(call: Call, state: bytes | None) -> list[bytes | None]:
    """The state that the call can have left behind; nothing when its answer does not fit."""
    if call.kind == "get":
        return [state] if call.found == state else []
    is_met = call.kind == "put" or call.expected == state
    if call.result and is_met is not (call.result == "applied"):
        return []
    return [call.value if is_met else state]
