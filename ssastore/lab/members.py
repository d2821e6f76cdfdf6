"""Nodes that join a running lab, end, or come back: what the command line asks of ``ssastore up``.

    lab/ask/NAME   written by who asks, removed when it is done; with ``error`` when it cannot be,
                   and then removed by who asked, or overwritten by the next when that one has gone

By the control store, as everybody in the lab reaches it already and nobody outside does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from ssastore.env import Compare, ControlStore, Item, WatchCompacted, Write
from ssastore.errors import ConfigError, SsaStoreError, Unavailable

log = logging.getLogger(__name__)

ASK_PREFIX = "lab/ask/"
ADD, KILL, START, REMOVE = "add", "kill", "start", "remove"

_POLL_S = 0.1
_RETRY_S = 1.0
_ABANDONED_S = 5 * _POLL_S
"Who asked and still waits has taken a refusal away by then."


@dataclass(frozen=True, slots=True)
class Ask:
    """One wish. ``zone`` and ``weight`` are those of a node that joins."""

    what: str
    zone: str = ""
    weight: int = 1
    error: str = ""
    "Why it could not be done."

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(value: bytes) -> Ask:
        """Inverse of ``encode``. ConfigError: not such a record."""
        try:
            found = Ask(**json.loads(value))
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"a wish to the lab: not such a record: {error}") from error
        texts = (found.what, found.zone, found.error)
        if not all(type(text) is str for text in texts) or type(found.weight) is not int:
            raise ConfigError("a wish to the lab: not such a record: what, zone and error are texts")
        return found


Deed = Callable[[str, Ask], Awaitable[None]]
"Does what is asked of a node. Raises ConfigError when it cannot."


async def ask(control: ControlStore, name: str, wish: Ask, within_s: float) -> None:
    """Ask the lab for something about a node, and wait until it is done.

    Raises:
        ConfigError: the lab cannot do it, and why.
        Unavailable: not done in time; it goes on.
    """
    key = ASK_PREFIX + name
    free = Compare(key, await _abandoned(control, key))
    if await control.transact([free], [Write(key, wish.encode())]) is None:
        raise ConfigError(f"the lab is still busy with {name}")
    deadline = asyncio.get_running_loop().time() + within_s
    while (item := await control.get(key)) is not None:
        if error := _refusal(item):
            await control.transact([Compare(key, item.revision)], [Write(key, None)])
            raise ConfigError(error)
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(f"the lab is not done with {name} after {within_s:g} s")
        await asyncio.sleep(_POLL_S)


async def _abandoned(control: ControlStore, key: str) -> int:
    """The revision of a refusal that nobody takes away; 0 when there is none."""
    item = await control.get(key)
    if item is None or not _refusal(item):
        return 0
    await asyncio.sleep(_ABANDONED_S)
    again = await control.get(key)
    return item.revision if again is not None and again.revision == item.revision else 0


def _refusal(item: Item) -> str:
    """Why a wish cannot be done; empty while nothing is known against it."""
    try:
        return Ask.decode(item.value).error
    except ConfigError as error:
        return str(error)


async def end_old_wishes(control: ControlStore) -> None:
    """At a lab's start: what an earlier one did not do is not done now, and who still waits is told."""
    items, _ = await control.list(ASK_PREFIX)
    for item in items:
        told = None if _refusal(item) else Ask("", error="the lab was started again").encode()
        await control.transact([Compare(item.key, item.revision)], [Write(item.key, told)])


class Clerk:
    """Carries out what is asked. ``deeds`` by what is asked; each gets the node's name and the wish."""

    def __init__(self, control: ControlStore, deeds: dict[str, Deed]) -> None:
        self._control = control
        self._deeds = deeds

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                items, revision = await self._control.list(ASK_PREFIX)
                for item in items:
                    await self._answer(item)
                watch: Any = self._control.watch(ASK_PREFIX, revision)
                async with aclosing(watch):
                    async for event in watch:
                        if event.value is not None:
                            await self._answer(Item(event.key, event.value, event.revision))
            except WatchCompacted:
                continue
            except (SsaStoreError, OSError) as error:
                log.warning("wish.not_heard", extra={"reason": str(error)})
            await asyncio.sleep(_RETRY_S)

    async def _answer(self, item: Item) -> None:
        name, unchanged = item.key.removeprefix(ASK_PREFIX), [Compare(item.key, item.revision)]
        wish = Ask("")
        try:
            wish = Ask.decode(item.value)
            if wish.error:
                return
            deed = self._deeds.get(wish.what)
            if deed is None:
                raise ConfigError(f"the lab does not know how to {wish.what}")
            await deed(name, wish)
        except (SsaStoreError, OSError, ValueError) as error:
            refused = Ask(wish.what, wish.zone, wish.weight, str(error) or type(error).__name__)
            await self._control.transact(unchanged, [Write(item.key, refused.encode())])
        else:
            await self._control.transact(unchanged, [Write(item.key, None)])
