"""One call at a time for a name: duelling with oneself only costs rounds."""

from __future__ import annotations

import asyncio

Waiting = dict[bytes, list[asyncio.Future[None]]]
"Who waits for a name that somebody is at."


class Turn:
    """Holds the lock of a name while its block runs. A class: every write passes here."""

    __slots__ = ("_locks", "_name")

    def __init__(self, locks: Waiting, name: bytes) -> None:
        self._locks = locks
        self._name = name

    async def __aenter__(self) -> None:
        waiting = self._locks.get(self._name)
        if waiting is None:
            self._locks[self._name] = []
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It was this one's turn already.
                self._pass_on()
            raise

    async def __aexit__(self, *failure: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        """Let the next one in, in the order in which they came."""
        waiting = self._locks[self._name]
        while waiting:
            turn = waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
        del self._locks[self._name]
