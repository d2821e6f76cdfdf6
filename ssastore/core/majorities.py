"""Which groups have a majority of their planes, by who owns what and who answers. Pure.

A group, or a part of one that is split, can be read and written while more than half of its planes vote.  A
plane counts when the worker that serves it answers, and votes as far as anybody can tell: its record is not
RECOVERING, and the worker is silent for no slice without its record saying so (a quarantined one: a worker
tells how many these are, not which, so then none of its slices counts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ssastore.core.cluster import Cluster
from ssastore.core.groups import GROUP_NAMES, RECOVERING
from ssastore.core.numbers import part_piece, parts_in_order
from ssastore.core.standing import State
from ssastore.keyspace import GROUPS, LANES

Worker = tuple[str, int]
"Name of a node, number of its worker."


@dataclass(frozen=True, slots=True)
class Majorities:
    """Of the groups of a cluster; a group that is split counts as its parts."""

    parts: int
    "How many there are."
    lost: tuple[int, ...]
    "Those without a majority, by number (``core.numbers``), in address order."
    degraded: int
    "Those with a majority, and not with all planes."


class Planes:
    """Which workers serve the planes of every group: found once for each layout of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        workers = {node.name: node.workers for node in cluster.nodes}
        self._parts: dict[tuple[Worker | None, ...], list[int]] = {}
        "Parts by the workers of their planes; None for a plane that is RECOVERING. Few rows for all groups."
        self._recovering: Counter[Worker] = Counter()
        for group in cluster.groups:
            lane = group.group % LANES
            for view in group.views():
                row: list[Worker | None] = []
                for plane in view.planes:
                    worker = plane.owner, lane % workers.get(plane.owner, 1)
                    if plane.state == RECOVERING:
                        self._recovering[worker] += 1
                    row.append(None if plane.state == RECOVERING else worker)
                self._parts.setdefault(tuple(row), []).append(view.part)

    def voters(self, silent: Mapping[Worker, Mapping[str, int]]) -> set[Worker]:
        """The workers whose slices count.

        Args:
            silent: by worker that answers, how many of its slices are in which state that does not vote
                (``custody.describe``).
        """
        return {worker for worker, states in silent.items() if not self._is_distrusted(worker, states)}

    def _is_distrusted(self, worker: Worker, states: Mapping[str, int]) -> bool:
        unsure = states.get(State.QUARANTINED.value, 0) + states.get(State.UNKNOWN.value, 0)
        return unsure > 0 or states.get(State.RECOVERING.value, 0) > self._recovering[worker]

    def majorities(self, voting: Collection[Worker]) -> Majorities:
        """What is left while exactly these workers serve."""
        lost: list[int] = []
        count = degraded = 0
        for row, parts in self._parts.items():
            count += len(parts)
            votes = sum(worker in voting for worker in row)
            if votes <= len(row) // 2:
                lost += parts
            elif votes < len(row):
                degraded += len(parts)
        return Majorities(count, tuple(parts_in_order(lost)), degraded)


def part_name(part: int) -> str:
    """A group's, as in ``a3f``, or a part's, for people."""
    return GROUP_NAMES[part] if part < GROUPS else str(part_piece(part))
