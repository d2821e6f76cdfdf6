"""``python -m bench.scale``: the planner from 10 to 10,000 nodes, beside other schemes. No cluster runs.

    python -m bench.scale                  the table
    python -m bench.scale --json           the same as lines of JSON
    python -m bench.scale --write docs/explanation     tables, curve and plots: scale.md and scale-*.svg

Everything but the planning time is a calculation that comes out the same anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from bench.plot import Line, log_plot
from bench.schemes import Row, rows_at
from ssastore.core.cluster import NodeRecord, node_key
from ssastore.core.goals import Policy
from ssastore.core.groups import GroupRecord, PlaneOwner, group_key
from ssastore.core.layout import PLANE_UNITS, Layout
from ssastore.core.plans import Figures, common_pieces, make_plan
from ssastore.core.replan import first_layout, replan
from ssastore.keyspace import GROUPS, slice_of

COUNTS = (10, 100, 1000, 10_000)
REPLICAS = 3
OURS = "ssastore, R=3"
GROUP_SIZE = slice_of(0, 0).size
SERIES_NODES, SERIES_CHANGES = 1000, 100
DEFAULT = Policy()
POLICIES = (
    DEFAULT,
    replace(DEFAULT, under=0.03),
    replace(DEFAULT, under=0.20, pieces=2),
    replace(DEFAULT, under=0.35, pieces=1),
    *(replace(DEFAULT, over=over) for over in (0.02, 0.08)),
    *(replace(DEFAULT, grains=grains) for grains in (12, 98)),
    *(replace(DEFAULT, pieces=pieces) for pieces in (16,)),
)
TEMPLATE = Path(__file__).with_name("scale.md.in")


@dataclass(frozen=True, slots=True)
class Ours:
    """Our figures at one count of nodes."""

    row: Row
    added_max_over_mean: float
    newcomer_prefixes: int
    lost_max_over_mean: float
    parts: int
    plan_seconds: float
    "Planning one node more: replan and make_plan."
    fresh_seconds: float
    control_bytes: int


@dataclass(frozen=True, slots=True)
class Series:
    """What a policy gives at first, for one node more, and after many changes."""

    policy: Policy
    fresh: tuple[float, float]
    "max/mean, mean prefixes."
    added_prefixes: int
    "Of the new node."
    added_moved: float
    max_over_mean: float
    min_over_mean: float
    prefixes_mean: float
    prefixes_max: int
    moved: float
    "All changes together, measured by the least that they could move."
    parts: int


def nodes_of(count: int) -> list[NodeRecord]:
    """Nodes of one weight in one zone."""
    return [NodeRecord(f"n{at:05}", f"fd00::{at + 1:x}") for at in range(count)]


def our_row(count: int) -> Ours:
    """Plan for ``count`` nodes, one more, and one less."""
    nodes, more = nodes_of(count), nodes_of(count + 1)
    began = time.perf_counter()
    fresh = first_layout(nodes, REPLICAS)
    fresh_seconds = time.perf_counter() - began
    began = time.perf_counter()
    grown = replan(fresh, more, REPLICAS)
    added = make_plan(fresh, grown, more).figures
    plan_seconds = time.perf_counter() - began
    shrunk = replan(fresh, nodes[:-1], REPLICAS)
    lost = make_plan(fresh, shrunk, nodes[:-1], lost=[nodes[-1].name]).figures
    prefixes = fresh.prefixes()
    last = next(node for node in lost.nodes if node.name == nodes[-1].name)
    row = Row(
        OURS,
        count,
        added.fullest[0] * count / (count + 1),
        max(fresh.loads().values()) * GROUPS / PLANE_UNITS,
        sum(prefixes.values()) / count,
        max(prefixes.values()),
        added.moved_groups * (count + 1) / (REPLICAS * GROUPS),
        lost.moved_groups / (last.loads[0] * GROUPS),
    )
    newcomer = next(node for node in added.nodes if node.name == more[-1].name)
    return Ours(
        row,
        added.fullest[1],
        newcomer.prefixes[1],
        lost.fullest[1],
        len(fresh.parts),
        plan_seconds,
        fresh_seconds,
        control_bytes(fresh, nodes),
    )


def control_bytes(layout: Layout, nodes: Sequence[NodeRecord]) -> int:
    """Keys and values of all records; a part of a group is counted as a record like a group's."""
    found = sum(len(node_key(node.name)) + len(node.encode()) for node in nodes)
    for part in layout.parts:
        record = GroupRecord(part.piece.group, tuple(PlaneOwner(owner) for owner in part.owners))
        found += len(group_key(record.group)) + len(record.encode())
    return found


def series(count: int, policy: Policy, *, changes: int, seed: int) -> Series:
    """Additions and removals of one node, half and half by chance, each planned for itself."""
    random = Random(seed)
    nodes = nodes_of(count)
    fresh = layout = first_layout(nodes, REPLICAS, policy)
    more = nodes_of(count + 1)
    grown = make_plan(fresh, replan(fresh, more, REPLICAS, policy), more).figures
    all_moved = least = 0.0
    for step in range(changes):
        if random.random() < 0.5:
            nodes.append(NodeRecord(f"x{step:05}", f"fd01::{step + 1:x}"))
            least += REPLICAS * GROUPS / len(nodes)
        else:
            gone = nodes.pop(random.randrange(len(nodes))).name
            least += layout.loads()[gone] * GROUPS / PLANE_UNITS
        after = replan(layout, nodes, REPLICAS, policy)
        all_moved += moved_groups(layout, after)
        layout = after
    loads, prefixes = layout.loads(), layout.prefixes()
    mean = sum(loads.values()) / len(nodes)
    first = fresh.loads().values()
    return Series(
        policy,
        (max(first) * count / sum(first), sum(fresh.prefixes().values()) / count),
        _newcomer(grown),
        grown.moved_groups * (count + 1) / (REPLICAS * GROUPS),
        max(loads.values()) / mean,
        min(loads.values()) / mean,
        sum(prefixes.values()) / len(nodes),
        max(prefixes.values()),
        all_moved / least,
        len(layout.parts),
    )


def moved_groups(before: Layout, after: Layout) -> float:
    """Slices with another owner, in /80s."""
    return sum(
        sum(map(str.__ne__, old, new)) * piece.size / GROUP_SIZE
        for piece, old, new in common_pieces(before, after)
    )


def _newcomer(figures: Figures) -> int:
    return next(node.prefixes[1] for node in figures.nodes if not node.loads[0])


# -- text -------------------------------------------------------------------------------------------


def table(ours: Sequence[Ours], rows: Sequence[Row]) -> str:
    """Both tables in Markdown."""
    lines = [
        "| nodes | scheme | max/mean | fullest has | prefixes mean | max | one added moves | one lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in sorted([*[our.row for our in ours], *rows], key=lambda row: row.nodes):
        mean = "" if found.prefixes_mean is None else f"{found.prefixes_mean:.1f}"
        most = "" if found.prefixes_max is None else f"{found.prefixes_max}"
        lines.append(
            f"| {found.nodes} | {found.scheme} | {found.max_over_mean:.3f} | {found.largest:.5g} | {mean} "
            f"| {most} | {found.added:.2f} | {found.lost:.2f} |"
        )
    lines += [
        "",
        "| nodes | first layout | planning one more | parts | control store | max/mean one added | one lost "
        "| newcomer's prefixes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for our in ours:
        lines.append(
            f"| {our.row.nodes} | {our.fresh_seconds:.2f} s | {our.plan_seconds:.2f} s | {our.parts} "
            f"| {our.control_bytes / 1e6:.2f} MB | {our.added_max_over_mean:.3f} "
            f"| {our.lost_max_over_mean:.3f} | {our.newcomer_prefixes} |"
        )
    return "\n".join(lines)


def curve(found: Sequence[Series]) -> str:
    """The policies, the default first, in Markdown."""
    lines = [
        "| grains | under | over | pieces | first: max/mean | prefixes | newcomer: moves | prefixes "
        "| after 100: max/mean | min/mean | prefixes mean | max | moves | parts |",
        "|" + "---|" * 14,
    ]
    for one in found:
        policy, mark = one.policy, "**" if one.policy == DEFAULT else ""
        lines.append(
            f"| {mark}{policy.grains}{mark} | {policy.under:.2f} | {policy.over:.2f} | {policy.pieces} "
            f"| {one.fresh[0]:.3f} | {one.fresh[1]:.1f} | {one.added_moved:.2f} | {one.added_prefixes} "
            f"| {one.max_over_mean:.3f} | {one.min_over_mean:.3f} | {one.prefixes_mean:.1f} "
            f"| {one.prefixes_max} | {one.moved:.3f} | {one.parts} |"
        )
    return "\n".join(lines)


def _lines(rows: Sequence[Row], figure: str) -> list[Line]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = getattr(row, figure)
        if value is not None:
            found.setdefault(row.scheme, []).append((row.nodes, value))
    return [Line(name, tuple(points)) for name, points in found.items()]


def write(folder: Path, ours: Sequence[Ours], rows: Sequence[Row], found: Sequence[Series]) -> None:
    """The page and its plots."""
    every = [*[our.row for our in ours], *rows]
    load = log_plot("Largest load over mean", "max/mean", _lines(every, "max_over_mean"), top=2.0)
    prefixes = log_plot(
        "Prefixes a node announces", "mean", _lines(every, "prefixes_mean"), top=20.0, bottom=0.0
    )
    (folder / "scale-load.svg").write_text(load)
    (folder / "scale-prefixes.svg").write_text(prefixes)
    page = TEMPLATE.read_text().replace("@TABLE@", table(ours, rows)).replace("@CURVE@", curve(found))
    (folder / "scale.md").write_text(page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="The planner on paper.")
    parser.add_argument("--nodes", type=int, nargs="+", default=COUNTS, choices=range(4, 20_001), metavar="N")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of the table")
    parser.add_argument("--curve", action="store_true", help="also the policies over 100 changes (minutes)")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="write page and plots; implies --curve")
    options = parser.parse_args(arguments)
    ours = [our_row(count) for count in options.nodes]
    rows = [row for count in options.nodes for row in rows_at(count)]
    found = []
    if options.curve or options.write:
        for policy in POLICIES:
            found.append(series(SERIES_NODES, policy, changes=SERIES_CHANGES, seed=1))
            print(f"policy {policy}", file=sys.stderr)
    if options.json:
        records = [*map(asdict, ours), *map(asdict, rows), *map(asdict, found)]
        for record in records:
            print(json.dumps(record.pop("row", {}) | record))
    else:
        print(table(ours, rows) + ("\n\n" + curve(found) if found else ""))
    if options.write:
        write(options.write, ours, rows, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
