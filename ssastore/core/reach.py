"""Whether anything at all is heard from a majority of a name's planes. Coroutines on a Caller.

A call that waits for planes must not wait for its whole deadline when nothing will ever
come: on the minority's side of a cut network it is told so within two seconds.  A
plane that refuses connections is another matter.  Its host is there, its node starts
again, and who goes on trying gets through.  So what counts is silence: no answer and
no "nobody listens here" either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ssastore.core.caller import Caller
from ssastore.core.quorum import HEDGE_S
from ssastore.env import spawn
from ssastore.errors import NoMajority, OutcomeUnknown
from ssastore.keyspace import iid_of, slice16_of

SILENCE_MS = 1_200
"""How long a plane must be silent to count as out of reach: a dial's first packet is sent again after 1 s.
With the time before anybody looks, and some to spare, below the 2 s in which a minority's side answers."""

PAUSE_S_MAX = 1.0
"""Between two looks at a plane that was heard; it grows to this. Each is a dial, for each call that waits.
A cut that was there when the call began is always seen by the first look."""

CUT_OFF = "no majority of the planes is heard at all: cut off from them, or not the service prefix any more?"


GRACE_S = 0.4
"""What a write that is under way, and not in doubt yet, gets from then on. Its proposer may be on our side:
that knows within ``coordinator.MATE_BUDGET_MS`` that nothing was written, and its word leaves no doubt."""


def _never() -> bool:
    return False


class Watch:
    """What is known of the planes of one call while it runs: listens to them from HEDGE_S on.

    A class, as every write passes here, and a timer: most calls are over long before that.
    """

    def __init__(self, reach: Reach, position: int, replicas: int) -> None:
        self.is_cut_off = False
        self._reach = reach
        self._position = position
        self._replicas = replicas
        self._silent: set[int] = set()
        self._listeners: list[asyncio.Task[None]] = []
        self._attempt: Attempt | None = None

    def __enter__(self) -> Watch:
        self._timer = asyncio.get_running_loop().call_later(HEDGE_S, self._begin)
        return self

    def __exit__(self, *failure: object) -> None:
        self._timer.cancel()
        for task in self._listeners:
            task.cancel()

    def _begin(self) -> None:
        self._listeners += [spawn(f"listen to plane {p}", self._listen(p)) for p in range(self._replicas)]

    async def _listen(self, plane: int) -> None:
        pause_s = HEDGE_S
        while True:
            if await self._reach.is_silent(iid_of(self._position, plane)):
                self._silent.add(plane)
                if len(self._silent) > self._replicas // 2:
                    self._tell()
                    return
                pause_s = HEDGE_S
            else:
                self._silent.discard(plane)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _tell(self) -> None:
        if not self.is_cut_off and self._attempt is not None:
            self._attempt.end_soon()
        self.is_cut_off = True

    def attempt(self, *, may_apply: Callable[[], bool] = _never, has_grace: bool = False) -> Attempt:
        """Something that is ended when it shows that no majority is heard; ``has_grace``: GRACE_S later.

        ``may_apply`` tells at the end whether something was sent that may have an effect.

        Raises:
            OutcomeUnknown: so it was ended, and it may apply.
            NoMajority: so it was ended otherwise.
        """
        self._attempt = Attempt(may_apply=may_apply, has_grace=has_grace)
        return self._attempt


class Attempt:
    """The block that ``Watch.attempt`` stands before."""

    def __init__(self, *, may_apply: Callable[[], bool], has_grace: bool) -> None:
        self._may_apply = may_apply
        self._has_grace = has_grace
        self._timer: asyncio.TimerHandle | None = None
        self._is_ended = self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()

    async def __aexit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_ended:
            return
        # As asyncio.timeout does: somebody else's cancellation stays one.
        if self._task.uncancel() > self._cancelling or kind is not asyncio.CancelledError:
            return
        if self._may_apply():
            raise OutcomeUnknown("no majority of the planes is heard, and one was not done") from None
        raise NoMajority(CUT_OFF) from None

    def end_soon(self) -> None:
        """No majority is heard."""
        if self._has_grace and self._may_apply():
            self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_ended = True
            self._task.cancel()


class Reach:
    """Asks planes whether they are there, each slice at most once at a time."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._asked: dict[int, asyncio.Task[bool]] = {}

    async def is_silent(self, iid: int) -> bool:
        """Whether nothing was heard from an address for SILENCE_MS."""
        number = slice16_of(iid)
        asked = self._asked.get(number)
        if asked is None:
            asked = spawn("is anybody there", self._caller.is_silent(iid, SILENCE_MS))
            self._asked[number] = asked
            asked.add_done_callback(lambda _: self._asked.pop(number))
        return await asyncio.shield(asked)

    def watch(self, position: int, replicas: int) -> Watch:
        """Listen to all planes of a name while the block runs."""
        return Watch(self, position, replicas)

    @asynccontextmanager
    async def limit(self, position: int, replicas: int) -> AsyncIterator[None]:
        """End what is done inside when no majority is heard. For what may end at any place: not writes.

        Raises:
            NoMajority: so it was ended.
        """
        with self.watch(position, replicas) as watch:
            async with watch.attempt():
                yield
