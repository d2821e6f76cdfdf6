"""``pause``, ``resume``, and what the commands about moves have in common: rate, sizes, estimates."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.control import with_control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ssastore.core.cluster import Cluster
    from ssastore.core.estimate import Estimate
    from ssastore.core.settings import MoveSettings
    from ssastore.env import ControlStore
    from ssastore.lab.context import Context

_POLL_S = 0.25
_GENTLE = "gentle"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Bytes a second: a number, or one with K, M or G for powers of 1024; or "gentle", which is 0."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from ssastore.limits import MOVE_BYTES_PER_S_MAX, MOVE_BYTES_PER_S_MIN

        if value == _GENTLE:
            return 0
        digits, unit = (value[:-1], value[-1:]) if value[-1:].upper() in _UNITS else (value, "")
        if not digits.isdecimal():
            self.fail(f"{value!r} is no number of bytes a second, like 32M, and not gentle", param, ctx)
        rate = int(digits) * _UNITS.get(unit.upper(), 1)
        if not MOVE_BYTES_PER_S_MIN <= rate <= MOVE_BYTES_PER_S_MAX:
            self.fail(f"{value!r} is not in the range 1M to 1024G", param, ctx)
        return rate


rate_option = click.option(
    "--rate",
    "bytes_per_s",
    type=Rate(),
    metavar="BYTES_PER_S",
    help="From now on each worker that slices go to copies as fast as it can, at most so much a second "
    "(like 32M); or `gentle`, as at first: it rests most of the time, so that clients hardly notice.",
)


@click.command("pause")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to wait."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def pause_command(context: str | None, wait_s: float, as_json: bool) -> int:
    """Let nothing move until `ssastore resume`. Orders stay.

    What is sealed already comes to its end; other slices that are being copied are called off and copied
    anew later. Waits until nothing is on its way; exit code 5 when something still is after --wait.
    """
    from ssastore.errors import Unavailable

    left, moving = with_control(context, lambda control: _pause(control, wait_s))
    if as_json:
        print(json.dumps({"paused": True, "left": left, "moving": moving}))
    else:
        print(f"paused; {left} slices are ordered to move")
    if moving:
        raise Unavailable(f"{moving} slices are still on their way after {wait_s:g} s; nothing more is begun")
    return 0


async def _pause(control: ControlStore, wait_s: float) -> tuple[int, int]:
    """Moves that are left, and those of them that are under way nevertheless."""
    import asyncio
    from dataclasses import replace

    from ssastore.core.settings import change_move_settings
    from ssastore.rebalance import MoveState, ordered_moves

    await change_move_settings(control, lambda known: replace(known, is_paused=True))
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        states = [state for _, _, state in await ordered_moves(control)]
        moving = states.count(MoveState.COPYING)
        if not moving or asyncio.get_running_loop().time() > deadline:
            return len(states), moving
        await asyncio.sleep(_POLL_S)


@click.command("resume")
@click.pass_obj
def resume_command(context: str | None) -> int:
    """Let slices move again that `ssastore pause` held up."""
    from dataclasses import replace

    from ssastore.core.settings import change_move_settings

    def change(control: ControlStore) -> Any:
        return change_move_settings(control, lambda known: replace(known, is_paused=False))

    with_control(context, change)
    print("slices move again")
    return 0


async def set_rate(control: ControlStore, bytes_per_s: int | None) -> MoveSettings:
    """Change the rate, if one is given; the settings then. Raises ConfigError, Unavailable."""
    from dataclasses import replace

    from ssastore.core.settings import change_move_settings, read_move_settings

    if bytes_per_s is None:
        return await read_move_settings(control)
    return await change_move_settings(control, lambda known: replace(known, bytes_per_s=bytes_per_s))


def report_of(found: Context) -> dict[str, Any] | None:
    """What the nodes say of themselves; None when the gateway does not answer. Before the lab is entered."""
    from ssastore.errors import Unavailable
    from ssastore.lab.status import fetch

    try:
        report: dict[str, Any] = fetch(found.admin_port, "/status")[1]
    except Unavailable:
        return None
    return report


def sizes_of(cluster: Cluster, report: dict[str, Any]) -> dict[int, int]:
    """Bytes of one plane of a group, about.

    The largest slices of each worker are known from its last scrub; the others share what its node has
    besides.  Of a group that is the mean of its owners'.
    """
    from ssastore.core.numbers import group_of_slice

    largest: dict[tuple[str, int], int] = {}
    per_slice = {}
    for node in report["nodes"]:
        workers = [worker for worker in node["workers"] if worker["ok"]]
        known: Counter[int] = Counter()
        for worker in workers:
            for number, size, _ in worker.get("largest", ()):
                known[group_of_slice(number)] += size
        largest.update(((node["name"], group), size) for group, size in known.items())
        used = sum(worker.get("used_bytes", 0) for worker in workers)
        others = node["slices"] - len(known)
        if used and others > 0:
            per_slice[node["name"]] = max(0, used - known.total()) / others
    sizes = {}
    for record in cluster.groups:
        found = [
            largest.get((owner, record.group), per_slice[owner])
            for owner in record.owners
            if owner in per_slice
        ]
        if found:
            sizes[record.group] = round(sum(found) / len(found))
    return sizes


def workers_of(cluster: Cluster) -> Mapping[str, int]:
    """Worker processes by node name."""
    return {node.name: node.workers for node in cluster.nodes}


def told(found: Estimate | None, settings: MoveSettings) -> str:
    """One line about what is left."""
    rate = "a gentle pace" if settings.is_gentle else f"{settings.bytes_per_s / 2**20:.0f} MiB/s a worker"
    if found is None:
        return f"at {rate}"
    return f"about {found.bytes / 2**20:.1f} MiB to copy, about {found.seconds:.0f} s at {rate}"
