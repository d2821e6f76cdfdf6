"""What the routes of a node's host are at this moment: for the report of one of its workers.

It is read where it has its effect, and not taken from who keeps it: from the kernel's tables, by our mark on
routes.  What a node announces by itself is known to its supervisor alone, which notes it in a file beside
the node's data: what is announced, and how the session with each neighbour is.

    accepted    prefixes that the kernel delivers to this host (`local`)
    sent_on     prefixes that it sends on to their new owner
    announced   prefixes that routers are told; None: by somebody else
    neighbours  by address of a router that is told by BGP: the state of the session
    why         what could not be read, in words
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from ssastore.env import Route
from ssastore.errors import RouteRefused
from ssastore.routes.bgpspeaker import BgpRoutes
from ssastore.routes.netlink import ANNOUNCED, TABLE_MAIN, NetlinkRoutes

PREFIXES_TOLD = 4096
"More are not listed: a report has to stay small."
_NOTE_EVERY_S = 1.0
_KEPT_S = 2.0
"What was read is told again for so long: 4,096 routes take 30 ms of a worker's loop, and anybody may ask."
_STALE_S = 10.0
"A note that is older says nothing about now."
_FILE_NAME = "announced.json"


class Settings(Protocol):
    """Of a node."""

    @property
    def manage_routes(self) -> bool: ...

    @property
    def simulated(self) -> bool: ...

    @property
    def announce(self) -> str: ...

    @property
    def data_dir(self) -> str: ...


class SeenRoutes:
    """Of the host on which it is made."""

    def __init__(self, settings: Settings) -> None:
        self._announce = settings.announce
        self._note = note_path(settings.data_dir)
        self._accepted: NetlinkRoutes | None = None
        self._announced: NetlinkRoutes | None = None
        self._told: dict[str, Any] = {}
        self._until_s = 0.0
        if settings.manage_routes and not settings.simulated:
            self._accepted = NetlinkRoutes()
            if settings.announce == "kernel":
                self._announced = NetlinkRoutes(TABLE_MAIN, ANNOUNCED)

    def describe(self) -> dict[str, Any] | None:
        """See the module; None: the routes of this host are kept by others."""
        if self._accepted is None:
            return None
        now_s = time.monotonic()
        if now_s >= self._until_s:
            self._told, self._until_s = self._read(self._accepted), now_s + _KEPT_S
        return self._told

    def _read(self, accepted: NetlinkRoutes) -> dict[str, Any]:
        try:
            found = accepted.installed()
        except RouteRefused as error:
            return {"why": str(error)}
        told: dict[str, Any] = {
            "accepted": _listed(route for route in found if route.via is None),
            "sent_on": _listed(route for route in found if route.via is not None),
            "announced": None,
            "neighbours": {},
            "why": "",
        }
        if len(found) > PREFIXES_TOLD:
            told["why"] = f"{len(found)} prefixes are too many to be told"
        if self._announced is not None:
            try:
                told["announced"] = _listed(self._announced.installed())
            except RouteRefused as error:
                told["why"] = str(error)
        elif self._announce == "bgp":
            told |= self._noted()
        return told

    def _noted(self) -> dict[str, Any]:
        try:
            is_fresh = time.time() - self._note.stat().st_mtime < _STALE_S
            found = json.loads(self._note.read_bytes()) if is_fresh else {}
            return {"announced": found["announced"], "neighbours": found["neighbours"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {"why": "the node's supervisor does not say what it announces"}


def note_path(data_dir: str) -> Path:
    """Where a supervisor notes what it announces."""
    return Path(data_dir) / _FILE_NAME


async def keep_note(routes: BgpRoutes, path: Path) -> None:
    """Note what is announced and to whom, for ever. A note that cannot be written is one that is missing.

    One that says the same is only touched: a file that is replaced is written to the disk at once (ext4), and
    that is the disk of the data.
    """
    noted = ""
    while True:
        told: dict[str, Any] = {
            "announced": _listed(routes.installed()),
            "neighbours": {str(address): state.value for address, state in routes.states().items()},
        }
        text = json.dumps(told)
        try:
            if text == noted:
                os.utime(path)
            else:
                temporary = path.with_suffix(".new")
                temporary.write_text(text)
                temporary.replace(path)
                noted = text
        except OSError:
            noted = ""
        await asyncio.sleep(_NOTE_EVERY_S)


def _listed(routes: Iterable[Route]) -> list[str]:
    return sorted(route.prefix for route in routes)[:PREFIXES_TOLD]
