"""Group records as one worker looks at them: all at its start, and one as it is seen from a slice. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ssastore.core.groups import MOVING, GroupRecord, group_of_key
from ssastore.core.numbers import group_of_slice, part_of_slice, slice_number
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
    if held.record.split is None:
        return held
    view = held.record.at(part_of_slice(number))
    assert view is not None
    return Held(view, held.revision)


class Share(NamedTuple):
    """What one worker has to do with a group; of each the numbers of slices."""

    owned: tuple[int, ...]
    outgoing: list[int]
    "Those of ``owned`` that are being handed over."
    incoming: list[int]
    "Handed over to it."
    filling: list[int]
    "Made by it of others'."


def share_of_node(record: GroupRecord, node: str, is_of_lane: Callable[[int], bool]) -> Share:
    """The slices of a group that are a worker's, and those that become its own."""
    owned: list[int] = []
    outgoing: list[int] = []
    incoming: list[int] = []
    filling: list[int] = []
    for view in record.views():  # A start does this some thousand times.
        part = view.part
        for plane, found in enumerate(view.planes):
            if found.owner != node and found.target != node:
                continue
            number = slice_number(plane, part)
            if not is_of_lane(number):
                continue
            if found.owner == node:
                owned.append(number)
                if found.state == MOVING:
                    outgoing.append(number)
            elif found.target_plane:
                filling.append(slice_number(found.target_plane, part))
            else:
                incoming.append(number)
    return Share(tuple(owned), outgoing, incoming, filling)
