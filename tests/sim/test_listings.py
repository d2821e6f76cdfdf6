"""A simulated start reads of a listing what differs; it learns what production would."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssastore.core.custody import Custody
from ssastore.core.groups import GROUP_PREFIX, GroupRecord
from ssastore.core.held import Listing, slices_by_group
from ssastore.env import Item
from ssastore.sim.cluster import SimCustody, layout_of


def told(listing: Listing) -> tuple[object, ...]:
    """All of it, and the order: it decides in which order slices begin to vote."""
    return list(listing.untouched.items()), list(listing.cfgs.items()), listing.others


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("changed", [[], [7], [0, 12, 4095]])
def test_what_differs_is_read_as_all_of_it(nodes: int, changed: list[int]) -> None:
    layout = layout_of(nodes, 3)
    before = layout.control.items(GROUP_PREFIX)
    items = list(before)
    for group in changed:
        record = GroupRecord.decode(items[group].value)
        items[group] = Item(items[group].key, replace(record, cfg=2).encode(), 9)
    for name in sorted(layout.holdings):
        mine = slices_by_group(frozenset(layout.holdings[name].slices))
        SimCustody.read_listing(before, mine)
        assert told(SimCustody.read_listing(items, mine)) == told(Custody.read_listing(items, mine))
        assert len(SimCustody.read_listing(items, mine).others) == len(changed)


def test_a_record_that_is_written_again_as_it_was_keeps_its_place() -> None:
    layout = layout_of(3, 3)
    before = layout.control.items(GROUP_PREFIX)
    mine = slices_by_group(frozenset(layout.holdings["node0"].slices))
    items = list(before)
    items[5] = Item(items[5].key, items[5].value, 9)
    SimCustody.read_listing(before, mine)
    assert told(SimCustody.read_listing(items, mine)) == told(Custody.read_listing(items, mine))
