"""What may be done through the console: each act is what a command does, by the same code (``operating``).

POST /console/act   {"act": NAME, ...}: {"said"}, or {"error"} and the status of the failure

    pause    {}                    resume   {}                 abort   {}               scrub   {}
    rate     {"rate": "32M"}       drain    {"node"}: what it would do, nothing is changed
    apply    {"node", "made_for"}: the drain that was shown, if ownership is still as it was then

Who may is decided before (``door``); the command that does the same stands in the page (`static/acts.js`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ssastore.console.door import body_of
from ssastore.console.files import json_answer
from ssastore.core.cluster import Cluster
from ssastore.core.plans import Plan
from ssastore.core.settings import read_move_settings
from ssastore.env import ControlStore
from ssastore.errors import ConfigError, NotFound, SsaStoreError, TryLater
from ssastore.operating import (
    abort,
    aborted,
    left_estimate,
    nodes_after,
    pause,
    plan_estimate,
    rate_of,
    resume,
    set_rate,
    sizes_of,
    told,
)
from ssastore.rebalance import order_plan, ordered_moves, plan_change, read_cluster

log = logging.getLogger(__name__)

_PAUSE_S = 2.0
"Shorter than the command waits: the page shows what is still under way by itself."
Report = Callable[[], Awaitable[dict[str, Any]]]
Asked = dict[str, Any]


class Actions:
    """On the cluster of one gateway."""

    def __init__(self, control: ControlStore, report: Report, start_scrub: Report) -> None:
        self._control, self._report, self._start_scrub = control, report, start_scrub
        self._known = {
            "pause": self._pause,
            "resume": self._resume,
            "rate": self._rate,
            "abort": self._abort,
            "scrub": self._scrub,
            "drain": self._drain,
            "apply": self._apply,
        }

    async def act(self, http: web.BaseRequest) -> web.StreamResponse:
        """See the module."""
        asked = await body_of(http)
        name = str(asked.get("act", ""))
        known = self._known.get(name)
        if known is None:
            return json_answer({"error": f"there is no act {name!r}"}, status=404)
        try:
            done = await known(asked)
        except SsaStoreError as error:
            log.info("console.refused", extra={"act": name, "reason": str(error)})
            return json_answer({"error": str(error)}, status=_status_of(error))
        log.info("console.acted", extra={"act": name, "said": done["said"]})
        return json_answer(done)

    async def moves(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """As `ssastore moves`: what is ordered and not done, and how long that takes; None: not known."""
        try:
            settings = await read_move_settings(self._control)
            found = await ordered_moves(self._control)
            cluster = await read_cluster(self._control) if found else None
        except SsaStoreError as error:
            log.info("console.moves_not_known", extra={"reason": str(error)})
            return None
        left = None if cluster is None else left_estimate(cluster, report, found, settings)
        return {
            "is_paused": settings.is_paused,
            "left": len(found),
            "said": told(left, settings),
            "eta_s": None if left is None else round(left.seconds),
        }

    async def _pause(self, _: Asked) -> dict[str, Any]:
        left, moving = await pause(self._control, _PAUSE_S)
        going = f"; {moving} are still on their way to a moment where they can rest" if moving else ""
        return {"said": f"paused; {left} slices are ordered to move{going}"}

    async def _resume(self, _: Asked) -> dict[str, Any]:
        await resume(self._control)
        return {"said": "slices move again"}

    async def _rate(self, asked: Asked) -> dict[str, Any]:
        settings = await set_rate(self._control, rate_of(str(asked.get("rate", "")).strip()))
        return {"said": f"from now on {told(None, settings)}"}

    async def _abort(self, _: Asked) -> dict[str, Any]:
        return {"said": aborted(*await abort(self._control))}

    async def _scrub(self, _: Asked) -> dict[str, Any]:
        begun = await self._start_scrub()
        silent = f"; no answer from {', '.join(begun['silent'])}" if begun["silent"] else ""
        return {"said": f"begun by {len(begun['passes'])} workers{silent}"}

    async def _drain(self, asked: Asked) -> dict[str, Any]:
        cluster, plan = await self._plan(asked)
        if not plan.changes:
            return {"said": f"{asked['node']} owns nothing", "made_for": ""}
        settings = await read_move_settings(self._control)
        sizes = sizes_of(cluster, await self._report())
        cost = told(plan_estimate(plan, cluster, sizes, settings), settings)
        before, after = plan.figures.fullest
        return {
            "said": f"{plan.figures.moved_groups:g} slices leave {asked['node']}, {cost}. "
            f"The fullest node has {before:.2f} of its share now, and {after:.2f} of it then.",
            "made_for": plan.made_for,
        }

    async def _apply(self, asked: Asked) -> dict[str, Any]:
        _, plan = await self._plan(asked)
        if plan.made_for != asked.get("made_for"):
            raise ConfigError("the ownership has changed since this was shown: look again")
        moves = await order_plan(self._control, plan)
        paused = "; moves are paused" if (await read_move_settings(self._control)).is_paused else ""
        return {"said": f"{len(moves)} slices are ordered to leave {asked['node']}{paused}"}

    async def _plan(self, asked: Asked) -> tuple[Cluster, Plan]:
        cluster = await read_cluster(self._control)
        return cluster, plan_change(cluster, nodes_after(cluster, {str(asked.get("node", ""))}))


def _status_of(error: SsaStoreError) -> int:
    if isinstance(error, TryLater):
        return 503
    return 404 if isinstance(error, NotFound) else 409
