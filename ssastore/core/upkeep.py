"""The background work on one environment, put together: collecting, repair, scrub. Coroutines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ssastore.core.ceiling import RAISE_EVERY_S
from ssastore.core.collect import Collector
from ssastore.core.content import Blobs
from ssastore.core.mend import Mender
from ssastore.core.named import Named
from ssastore.core.repair import Repairer
from ssastore.core.scrub import Scrub
from ssastore.core.sweep import Sweeper
from ssastore.core.titles import Titles
from ssastore.core.tools import Tools
from ssastore.errors import SsaStoreError

log = logging.getLogger(__name__)

_REPAIR_EVERY_S = 0.5
_COLLECT_EVERY_S_MAX = 60.0


class Upkeep:
    """The jobs of one worker's environment. A subclass may exchange a part, to plant a fault."""

    sweeper_type: type[Sweeper] = Sweeper

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        blobs = Blobs(tools.caller)
        self.sweeper = self.sweeper_type(tools, blobs)
        self.repairer = Repairer(tools, blobs, self.sweeper)
        self.collector = Collector(tools)
        titles = Titles(tools.buckets.all)
        self.named = Named(tools, blobs, self.sweeper, titles)
        self.mender = Mender(tools, self.repairer, self.sweeper, self.collector, self.named, titles)
        self.scrub = Scrub(tools, self.mender, self.sweeper, self.collector, self.named, self.repairer.counts)

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Every job by its name. Each runs until it is cancelled."""
        tools = self._tools
        collect_every_s = min(_COLLECT_EVERY_S_MAX, tools.rules.tombstone_kept_ms / 4000)

        async def raise_ceiling() -> None:
            await tools.acceptor.ceiling.keep_ahead(tools.store, tools.clock.now_ms())

        return {
            "collect tombstones": lambda: _every(collect_every_s, self.collector.run),
            "raise the ceiling": lambda: _every(RAISE_EVERY_S, raise_ceiling),
            "repair": lambda: _every(_REPAIR_EVERY_S, self.mender.run),
            "scrub": lambda: _every(0, self.scrub.run),
        }


async def _every(interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do it for ever; what fails today is tried again."""
    while True:
        try:
            await work()
        except SsaStoreError as error:
            log.warning("upkeep.failed", extra={"reason": str(error)})
            await asyncio.sleep(1)
        await asyncio.sleep(interval_s)
