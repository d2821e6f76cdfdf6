"""Group records as one worker looks at them: all at its start, and one as it is seen from a slice. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ssastore.core.groups import MOVING, GroupRecord, group_of_key
from ssastore.core.numbers import group_of_slice, part_of_slice, plane_of_slice, slice_number
from ssastore.env import Item


class Held(NamedTuple):
    """A group's record and the control store's revision of it."""

    record: GroupRecord
    revision: int


class Listing(NamedTuple):
    """The groups of one worker in a listing of all, as far as that needs no judgement of its own."""

    untouched: dict[int, Held]
    "By group, those of which nothing was ever recovered or moved."
    cfgs: dict[int, int]
    "The worker's slices in them, with their configuration."
    others: list[Held]
    "All that were, whoever's they are."
    counts: dict[int, list[int]]
    "The untouched groups, by the number of their planes."


def read_listing(items: Sequence[Item], mine: Mapping[int, tuple[int, ...]]) -> Listing:
    """Sort a listing of group records. ``mine`` has the worker's groups at its start. Raises ConfigError."""
    untouched: dict[int, Held] = {}
    cfgs: dict[int, int] = {}
    others: list[Held] = []
    for item in items:  # A start waits for this loop: most of the records are others'.
        group = group_of_key(item.key)
        if group is None:
            continue
        record = GroupRecord.decode(item.value)
        if record.is_untouched and group not in mine:
            continue
        if record.is_untouched:
            untouched[record.group] = Held(record, item.revision)
            cfgs.update(dict.fromkeys(mine[record.group], record.cfg))
        else:
            others.append(Held(record, item.revision))
    return Listing(untouched, cfgs, others, by_count(untouched))


def by_count(groups: Mapping[int, Held]) -> dict[int, list[int]]:
    """Groups by the number of their planes."""
    found: dict[int, list[int]] = {}
    for group, held in groups.items():
        found.setdefault(len(held.record.planes), []).append(group)
    return found


@lru_cache(maxsize=64)
def slices_by_group(owned: frozenset[int]) -> Mapping[int, tuple[int, ...]]:
    """A worker's slices, by group. Kept: nodes of a simulation start again all the time."""
    found: dict[int, tuple[int, ...]] = {}
    for number in sorted(owned):
        group = group_of_slice(number)
        found[group] = (*found.get(group, ()), number)
    return found


def seen_from(held: Held, number: int) -> Held:
    """A group's record as it is seen from the part of one of its slices."""
    view = held.record.at(part_of_slice(number))
    assert view is not None
    return Held(view, held.revision) if view is not held.record else held


def share_of_node(
    record: GroupRecord, node: str, is_of_lane: Callable[[int], bool]
) -> tuple[tuple[int, ...], list[int], list[int]]:
    """The slices of a group that are a worker's, that are handed over to it, and that it makes of others'."""
    owned: list[int] = []
    incoming: list[int] = []
    filling: list[int] = []
    for view in record.views():
        for plane, found in enumerate(view.planes):
            number = slice_number(plane, view.part)
            if node in (found.owner, found.target) and is_of_lane(number):
                if found.owner == node:
                    owned.append(number)
                elif found.target_plane:
                    filling.append(slice_number(found.target_plane, view.part))
                else:
                    incoming.append(number)
    return tuple(owned), incoming, filling


def is_moving(record: GroupRecord, number: int) -> bool:
    """Whether one of the group's slices is being handed over."""
    view = record.at(part_of_slice(number))
    return view is not None and view.planes[plane_of_slice(number)].state == MOVING
