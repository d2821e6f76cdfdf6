"""Whether anything at all is heard from a majority of a name's planes. Coroutines on a Caller.

A call that waits for planes must not wait for its whole deadline when nothing will ever
come: on the minority's side of a cut network it is told so within two seconds.  A
plane that refuses connections is another matter.  Its host is there, its node starts
again, and who goes on trying gets through.  So what counts is silence: no answer and
no "nobody listens here" either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ssastore.core.caller import Caller
from ssastore.core.quorum import HEDGE_S
from ssastore.env import spawn
from ssastore.errors import NoMajority, OutcomeUnknown
from ssastore.keyspace import iid_of, slice16_of

SILENCE_MS = 1_200
"""How long a plane must be silent to count as out of reach: a dial's first packet is sent again after 1 s.
With the time before anybody looks, and some to spare, below the 2 s in which a minority's side answers."""

CUT_OFF = "no majority of the planes is heard at all: cut off from them?"


class Watch:
    """What is known of the planes of one call while it runs."""

    def __init__(self) -> None:
        self.is_cut_off = False
        self._attempt: asyncio.Timeout | None = None

    def tell(self) -> None:
        """No majority is heard: an attempt that is under way ends here."""
        self.is_cut_off = True
        if self._attempt is not None:
            self._attempt.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def attempt(self, *, may_apply: bool) -> AsyncIterator[None]:
        """Something that is ended when it shows that no majority is heard.

        Raises:
            OutcomeUnknown: so it was ended, and ``may_apply`` says that it may have had its effect.
            NoMajority: so it was ended otherwise.
        """
        try:
            async with asyncio.timeout(None) as self._attempt:
                yield
        except TimeoutError:
            if not self.is_cut_off:
                raise
            if may_apply:
                raise OutcomeUnknown("no majority of the planes is heard, and one was not done") from None
            raise NoMajority(CUT_OFF) from None
        finally:
            self._attempt = None


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

    @contextmanager
    def watch(self, position: int, replicas: int) -> Iterator[Watch]:
        """Listen to all planes of a name while the block runs."""
        watch = Watch()
        listeners: list[asyncio.Task[None]] = []
        silent: set[int] = set()

        async def listen(plane: int) -> None:
            while True:
                if await self.is_silent(iid_of(position, plane)):
                    silent.add(plane)
                    if len(silent) > replicas // 2:
                        watch.tell()
                        return
                else:
                    silent.discard(plane)
                await asyncio.sleep(HEDGE_S)

        def begin() -> None:
            listeners.extend(spawn(f"listen to plane {plane}", listen(plane)) for plane in range(replicas))

        # A timer, not a task: most calls are over long before.
        timer = asyncio.get_running_loop().call_later(HEDGE_S, begin)
        try:
            yield watch
        finally:
            timer.cancel()
            for task in listeners:
                task.cancel()

    @asynccontextmanager
    async def limit(self, position: int, replicas: int) -> AsyncIterator[None]:
        """End what is done inside when no majority is heard. For what may end at any place: not writes.

        Raises:
            NoMajority: so it was ended.
        """
        with self.watch(position, replicas) as watch:
            async with watch.attempt(may_apply=False):
                yield
