"""How a client goes at the planes of one name: whom it asks first, how long, when it gives up. Coroutines.

Nobody knows nodes: a plane is its computed address.  Who did not answer lately is asked last,
and nothing is sent that could leave a doubt to who is not heard at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.birth import UNKNOWN_BIRTH
from ssastore.core.caller import Caller
from ssastore.core.quorum import HEDGE_S
from ssastore.core.reach import CUT_OFF, Reach
from ssastore.core.suspects import Suspects
from ssastore.errors import (
    HeldElsewhere,
    NoMajority,
    ObjectNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    QuotaExceeded,
    SsaStoreError,
    Unavailable,
)
from ssastore.keyspace import iid_of
from ssastore.limits import RETRY_CAP_MS
from ssastore.messages import Count, Delete, Get, Put, Read, Scan
from ssastore.wire import Body, Header

Request = Get | Read | Put | Delete | Scan | Count

PLANE_BUDGET_MS = 1_000
"How long one plane is tried before the next: a call has time for all of them."


def _departure(message: Put | Delete | Read | Count) -> Callable[[], bool]:
    """Tells later whether a call may have left: with its birth, which it gets when it is sent.

    Of one that was given its birth before (by a gateway that knows when it was signed) nobody can tell.
    """
    if isinstance(message, (Read, Count)):
        return lambda: False
    if message.born_ms != UNKNOWN_BIRTH:
        return lambda: True
    return lambda: message.born_ms != UNKNOWN_BIRTH


class Approach:
    """What one client has learnt of planes by asking them."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._suspects = Suspects(lambda: asyncio.get_running_loop().time())
        self.reach = Reach(caller)

    def failed(self, iid: int) -> None:
        """Nothing came of a question that did not come by here."""
        self._suspects.failed(iid)

    def answered(self, iid: int) -> None:
        """An answer came to a question that did not come by here."""
        self._suspects.answered(iid)

    async def propose(
        self, message: Put | Delete | Read | Count, position: int, data: Body, replicas: int
    ) -> tuple[Header, Body]:
        """Ask the proposer at one plane after the other, as one operation.

        Until the deadline, or until nothing is heard from a majority of planes.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._caller.deadline_ms / 1000
        # An attempt of somebody before us may have been taken, however ours end.
        in_doubt = not isinstance(message, (Read, Count)) and message.attempt > 1
        has_left = _departure(message)
        is_short = False
        "A proposer has said that it reaches no majority: others may be out of our reach, too."
        cause: SsaStoreError = Unavailable("no plane was asked")
        turn = 0
        planes = self.in_order(position, replicas)
        with self.reach.watch(position, replicas) as watch:
            while (left_s := deadline - loop.time()) > 0 and not watch.is_cut_off:
                message.iid = iid_of(position, planes[turn % replicas])
                within_ms = max(1, min(PLANE_BUDGET_MS, int(left_s * 1000)))
                try:
                    if is_short or self._suspects.has_failed(message.iid):
                        async with watch.attempt():
                            await self._check_heard(message.iid, HEDGE_S if turn < replicas else None)
                    async with watch.attempt(may_apply=has_left, has_grace=not in_doubt):
                        return await self.ask(message, within_ms, data)
                except (Unavailable, OutcomeUnknown) as error:
                    cause = error
                    in_doubt = in_doubt or isinstance(error, OutcomeUnknown)
                    is_short = is_short or isinstance(error, NoMajority)
                except (PreconditionFailed, ObjectNotFound, QuotaExceeded):
                    raise  # By one who looked for the earlier attempts, too.
                except HeldElsewhere as error:
                    # Another plane's worker would take the shard over, and begin to count it anew.
                    cause = error
                    turn -= 1
                    await asyncio.sleep(RETRY_CAP_MS / 1000)
                except SsaStoreError as error:
                    # Said of this attempt; an earlier one may have been taken all the same.
                    if in_doubt:
                        raise OutcomeUnknown(str(error)) from None
                    raise
                turn += 1
                if in_doubt and not isinstance(message, (Read, Count)):
                    message.attempt += 1  # Once in doubt every further attempt is a repetition.
                if turn % replicas == 0 and not watch.is_cut_off:
                    await asyncio.sleep(RETRY_CAP_MS / 1000)
        if in_doubt:
            raise OutcomeUnknown(str(cause))
        raise NoMajority(CUT_OFF) if watch.is_cut_off else Unavailable(str(cause))

    async def _check_heard(self, iid: int, within_s: float | None) -> None:
        """Raise Unavailable rather than send to who is not heard now. What is not sent leaves no doubt.

        ``within_s``: there is somebody else to ask who may know more.
        """
        try:
            async with asyncio.timeout(within_s):
                is_silent = await self.reach.is_silent(iid)
        except TimeoutError:
            is_silent = True
        if is_silent:
            self._suspects.failed(iid)
            raise Unavailable("the node of this plane is not heard")

    async def ask(self, message: Request, within_ms: int | None, data: Body = b"") -> tuple[Header, Body]:
        """One plane's answer; remembers who does not answer, or not before others were asked instead."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            reply = await self._caller.call(message, message.iid, data, within_ms=within_ms)
        except NoMajority:
            self._suspects.answered(message.iid)
            raise
        except (Unavailable, OutcomeUnknown, asyncio.CancelledError):
            if loop.time() - started >= HEDGE_S:
                self._suspects.failed(message.iid)
            raise
        self._suspects.answered(message.iid)
        return reply

    def in_order(self, position: int, replicas: int) -> list[int]:
        """Planes in the order in which they are asked: from 0, those that did not answer lately last."""
        if self._suspects.is_empty:
            return list(range(replicas))
        return sorted(range(replicas), key=lambda plane: self._suspects.is_suspect(iid_of(position, plane)))
