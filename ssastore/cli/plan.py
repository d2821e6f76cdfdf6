"""``plan``: what must happen so that the nodes there shall be own everything, each its share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.control import with_control
from ssastore.cli.lost import accept_alive_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssastore.core.cluster import Cluster
    from ssastore.core.plans import Plan
    from ssastore.core.settings import MoveSettings
    from ssastore.env import ControlStore
    from ssastore.keyspace import Slice
    from ssastore.lab.context import Context

_CHANGES_SHOWN = 10
_GROUP_DIGITS = 3


@click.command("plan")
@click.option("--drain", multiple=True, metavar="NODE", help="Own nothing afterwards; may be repeated.")
@click.option(
    "--lost",
    multiple=True,
    metavar="NODE",
    help="Only this: what a node that is gone for good had is rebuilt at the others; repeats.",
)
@click.option(
    "--accept-data-loss",
    is_flag=True,
    help="With --lost: also what too few replicas are left of; targets then wait for `recover`.",
)
@accept_alive_option
@click.option("--weight", multiple=True, metavar="NODE=N", help="Another weight, in this plan; repeats.")
@click.option("--replicas", type=int, help="More planes than now.")
@click.option(
    "--move",
    multiple=True,
    metavar="SLICE=NODE",
    help="Only this: a slice, or part of one, to a node; repeats.",
)
@click.option("--merge", multiple=True, metavar="PART", help="Only this: the parts inside as one; repeats.")
@click.option("--hot", is_flag=True, help="Only this: the piece of a slice whose move evens the calls best.")
@click.option("--largest", is_flag=True, help="The same by bytes, as the last scrub has found them.")
@click.option(
    "--over",
    "over_s",
    type=click.FloatRange(0.5, 3600),
    default=5.0,
    show_default=True,
    help="With --hot: count for so many seconds.",
)
@click.option("--out", type=click.Path(), help="Write the plan to this file, to be reviewed.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: the plan itself.")
@click.pass_obj
def plan_command(
    context: str | None,
    drain: tuple[str, ...],
    lost: tuple[str, ...],
    accept_data_loss: bool,
    accept_alive: bool,
    weight: tuple[str, ...],
    replicas: int | None,
    move: tuple[str, ...],
    merge: tuple[str, ...],
    hot: bool,
    largest: bool,
    over_s: float,
    out: str | None,
    as_json: bool,
) -> int:
    """Show how all slices get the owners that they should have.

    Without options: what nodes that were added, or whose weight differs, make necessary. Nothing is
    changed; a plan says for which ownership it was made, and is good for no other.
    """
    from ssastore.cli.lost import require_lost
    from ssastore.core.planfile import encode_plan
    from ssastore.core.settings import read_move_settings
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch
    from ssastore.operating import nodes_after, plan_estimate, sizes_of, told
    from ssastore.rebalance import plan_by_hand, plan_change, plan_lost, read_cluster

    found = find(context)
    require_lost(found, lost, accept_alive=accept_alive)
    _, report = fetch(found.admin_port, "/status")

    async def read(control: ControlStore) -> tuple[Cluster, MoveSettings]:
        return await read_cluster(control), await read_move_settings(control)

    cluster, settings = with_control(found, read)
    sizes = sizes_of(cluster, report)
    if hot or largest:
        if drain or lost or weight or replicas or move or merge or (hot and largest):
            raise click.UsageError("--hot and --largest are plans of their own")
        plan = _even(found, cluster, report, sizes, None if largest else over_s, is_told=not as_json)
    elif move or merge:
        if drain or lost or weight or replicas:
            raise click.UsageError("--move and --merge are a plan of their own")
        wanted = [_move_of(text) for text in move]
        plan = plan_by_hand(cluster, moves=wanted, merges=[_slice_of(text) for text in merge], sizes=sizes)
    elif lost:
        if drain or weight or replicas:
            raise click.UsageError("--lost is a plan of its own")
        absent = [node["name"] for node in report["nodes"] if node["alive"] is False]
        plan = plan_lost(cluster, lost, absent=absent, sizes=sizes, accept_data_loss=accept_data_loss)
    else:
        nodes = nodes_after(cluster, drain, dict(_weight_of(text) for text in weight))
        plan = plan_change(cluster, nodes, replicas=replicas, sizes=sizes)
    text = encode_plan(plan)
    if out is not None:
        Path(out).write_bytes(text)
    if as_json:
        print(text.decode(), end="")
    else:
        _show(plan, out, told(plan_estimate(plan, cluster, sizes, settings), settings), cluster)
    return 0


def _even(
    found: Context,
    cluster: Cluster,
    report: dict[str, Any],
    sizes: dict[int, int],
    over_s: float | None,
    *,
    is_told: bool,
) -> Plan:
    """The move that evens calls, counted for ``over_s``, or bytes; says what it is."""
    from ssastore.cli.hot import cores, hottest, largest, watched
    from ssastore.cli.sizes import size
    from ssastore.rebalance import plan_by_hand

    if over_s is None:
        cooling = largest(cluster, report)
        tell: Callable[[float], str] = size
        told = f"{cooling.source} stores most, {size(cooling.before[0])}"
    else:
        earlier, later, seconds = watched(found.admin_port, over_s)
        cooling = hottest(cluster, earlier, later, seconds)
        tell = lambda rate: f"{rate:.0f} calls/s"  # noqa: E731
        used = cores(earlier, later, seconds, cooling.source)
        told = f"{cooling.source} has most to do, {tell(cooling.before[0])} and {used:.2f} cores of CPU"
    if is_told:
        print(told)
        after = " and ".join(map(tell, cooling.after))
        print(f"{tell(cooling.load)} of it to {cooling.target}, with {cooling.piece}: then {after}")
    return plan_by_hand(cluster, moves=[(cooling.piece, cooling.target)], sizes=sizes)


def _slice_of(text: str) -> Slice:
    """A slice as it is written; a group of three digits is its slice in plane 0. ConfigError: it is none."""
    from ssastore.core.numbers import slice_from_text

    return slice_from_text(f"0{text}" if len(text) == _GROUP_DIGITS else text)


def _move_of(text: str) -> tuple[Slice, str]:
    name, _, target = text.partition("=")
    if not name or not target:
        raise click.BadParameter(f"{text!r} is not SLICE=NODE", param_hint="--move")
    return _slice_of(name), target


def _weight_of(text: str) -> tuple[str, int]:
    name, _, weight = text.partition("=")
    if not name or not weight.isdecimal():
        raise click.BadParameter(f"{text!r} is not NODE=N", param_hint="--weight")
    return name, int(weight)


def _show_left(plan: Plan) -> None:
    """What a plan of recoveries leaves with nodes that are lost."""
    from ssastore.core.plans import RECOVER
    from ssastore.keyspace import GROUPS

    lost = {change.source for change in plan.changes if change.kind == RECOVER}
    for node in plan.figures.nodes:
        if node.name in lost and node.loads[1]:
            print(
                f"{node.name} keeps {node.loads[1] * GROUPS:g} slices: too few of their planes are there, "
                "bring a node back and plan again"
            )


def _show_zones(plan: Plan, cluster: Cluster) -> None:
    """Where a plan of recoveries has to put two planes into one zone."""
    from ssastore.core.layout import layout_of
    from ssastore.core.plans import RECOVER

    if not any(change.kind == RECOVER for change in plan.changes):
        return
    zones = {node.name: node.zone for node in cluster.nodes}
    shared = 0
    for part in plan.apply(layout_of(cluster.groups)).parts:
        found = [zone for owner in part.owners if (zone := zones.get(owner))]
        shared += len(found) - len(set(found))
    if shared:
        print(f"{shared} slices share a zone with another plane of the same data")


def _show(plan: Plan, out: str | None, cost: str, cluster: Cluster) -> None:
    from collections import Counter

    figures = plan.figures
    if not (plan.changes or plan.splits or plan.merges):
        print("nothing to do: every node has its share")
        return
    kinds = Counter(change.kind for change in plan.changes)
    print(
        f"{sum(kinds.values())} changes ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}), "
        f"{figures.moved_groups:g} slices, {cost}"
    )
    print(f"fullest node, of its share: {figures.fullest[0]:.3f} before, {figures.fullest[1]:.3f} after")
    print(f"{'node':12} {'share of slices':>20} {'prefixes':>14}")
    for node in figures.nodes:
        loads = " -> ".join(f"{load / plan.replicas[at] * 100:.2f} %" for at, load in enumerate(node.loads))
        prefixes = " -> ".join(map(str, node.prefixes))
        print(f"{node.name:12} {loads:>20} {prefixes:>14}")
    _show_left(plan)
    _show_zones(plan, cluster)
    for recut in plan.splits[:_CHANGES_SHOWN]:
        print(f"  split    {recut.whole!s:12} into {len(recut.pieces)}")
    for recut in plan.merges[:_CHANGES_SHOWN]:
        print(f"  merge    {recut.whole!s:12} of {len(recut.pieces)}")
    for change in plan.changes[:_CHANGES_SHOWN]:
        print(f"  {change.kind:8} {change.piece!s:12} {change.source or '-'} -> {change.target}")
    if len(plan.changes) > _CHANGES_SHOWN:
        print(f"  and {len(plan.changes) - _CHANGES_SHOWN} more")
    print(f"made for ownership {plan.made_for[:8]}{f', written to {out}' if out else ''}; nothing is changed")
