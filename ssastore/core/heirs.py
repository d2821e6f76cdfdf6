"""What an environment notes on its disk when slices of its own are split or merged. Pure; one transaction.

    split     a part inherits the standing of the slice that it was cut from, which is complete for nothing
              from then on: a record that is older than the split gives nobody a vote
    merge     the standings of the parts go; that of the whole was noted before

A mark of a shut bucket that is hashed stands once in a slice, in its first locator (``core.shuts``): heirs
take over what they would not find there.  The floor is one for all parts of a /80 that are here
(``core.floors``), and so the highest of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ssastore.core.numbers import WHOLE_SLICES, covers, locators_of_slice, whole_of
from ssastore.core.records import shut_range, standing_key
from ssastore.core.shuts import take_mark
from ssastore.core.standing import UNTOUCHED, Standing, write_standing
from ssastore.core.survey import walk
from ssastore.env import WriteTxn


class Legacy(NamedTuple):
    """What is to be noted."""

    standings: dict[int, Standing]
    heirs: list[int]
    "Slices that do not vote before it is."
    marks: list[tuple[int, int]]
    "Slices whose marks others take over, with those."
    gone: list[int]
    "Slices that have no standing any more."


def split_legacy(owned: Iterable[int], known: Mapping[int, Standing]) -> Legacy:
    """What parts that an environment owns inherit, as long as they have no standing of their own."""
    legacy = Legacy({}, [], [], [])
    ancestors: dict[int, Standing] = {}
    for number in owned:
        if number < WHOLE_SLICES or number in known:
            continue
        ancestor = _ancestor(number, known)
        ancestors[ancestor] = standing = known.get(ancestor, UNTOUCHED)
        legacy.standings[number] = standing
        legacy.heirs.append(number)
        legacy.marks.append((ancestor, number))
    for ancestor, standing in ancestors.items():
        legacy.standings[ancestor] = Standing(0, standing.cfg)
    return legacy


def merge_legacy(number: int, known: Mapping[int, Standing]) -> Legacy:
    """What a slice inherits from its former parts, as long as those have standings."""
    parts = sorted(part for part in known if part >= WHOLE_SLICES and part != number and covers(number, part))
    standings = {number: known.get(number, UNTOUCHED)}
    return Legacy(standings, [number] if parts else [], [(part, number) for part in parts], parts)


def note_legacy(txn: WriteTxn, legacy: Legacy) -> None:
    """Note it. Raises CorruptObject before anything is written."""
    marks = [(heir, _marks_of(txn, source, heir)) for source, heir in legacy.marks]
    for number, found in marks:
        for rest, mark in found:
            take_mark(txn, locators_of_slice(number)[0].to_bytes(4, "big") + rest, mark)
    for number, standing in legacy.standings.items():
        write_standing(txn, number, standing)
    for number in legacy.gone:
        txn.delete(standing_key(number))


def _marks_of(txn: WriteTxn, source: int, heir: int) -> Sequence[tuple[bytes, bytes]]:
    first = locators_of_slice(source)[0]
    if first == locators_of_slice(heir)[0]:
        return []
    found = walk(txn, *shut_range(first))
    # A rotten one is repaired from other planes, whose heirs have it as well.
    return [(key[4:], bytes(value)) for key, value in found if value is not None]


def _ancestor(number: int, known: Mapping[int, Standing]) -> int:
    """The shortest way up to a slice with a standing; else the /80."""
    around = [other for other in known if other >= WHOLE_SLICES and other != number and covers(other, number)]
    return max(around, default=whole_of(number))
