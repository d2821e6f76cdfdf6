"""Prefixes of further sites: in the record, by an operator's order, and not beside a renumbering."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLUSTER_KEY, OPENING, ClusterRecord, NodeRecord, OtherPrefix, node_key
from ssastore.core.renumbering import order_renumbering
from ssastore.core.sites import order_sites
from ssastore.env import Write
from ssastore.errors import ConfigError

FIRST, SECOND, THIRD = (IPv6Network(f"2001:db8:5a:{number}::/64") for number in (1, 3, 5))
RECORD = ClusterRecord("0123456789abcdef" * 2, str(FIRST), 3, 1)
NODE = NodeRecord("n1", "2001:db8:5a:9::1")


async def control_with(record: ClusterRecord = RECORD) -> MemoryControlStore:
    control = MemoryControlStore()
    await control.transact([], [Write(CLUSTER_KEY, record.encode()), Write(node_key("n1"), NODE.encode())])
    return control


def test_a_record_with_sites_has_a_format_of_its_own_and_comes_back() -> None:
    record = replace(RECORD, sites=(str(SECOND), str(THIRD)))
    fields = json.loads(record.encode())
    assert fields["format"] == 3 and fields["sites"] == [str(SECOND), str(THIRD)]
    assert ClusterRecord.decode(record.encode()) == record
    assert record.networks == (FIRST, SECOND, THIRD) and record.network == FIRST
    assert json.loads(replace(record, sites=()).encode())["format"] == 1


@pytest.mark.parametrize(
    "sites",
    [
        *(None, "2001:db8::/64", [1], [None], [{}], ["2001:db8::/63"], [str(FIRST)], [str(SECOND)] * 2),
        [f"2001:db8:0:{number:x}::/64" for number in range(1, 17)],
    ],
)
def test_other_sites_are_refused(sites: Any) -> None:
    fields = json.loads(replace(RECORD, sites=(str(SECOND),)).encode()) | {"sites": sites}
    with pytest.raises(ConfigError):
        ClusterRecord.decode(json.dumps(fields).encode())


async def test_an_order_says_all_of_them_and_may_be_repeated() -> None:
    control = await control_with()
    for further in ([SECOND], [SECOND], [SECOND, THIRD], []):
        record = await order_sites(control, further)
        assert record.networks == (FIRST, *further)
        item = await control.get(CLUSTER_KEY)
        assert item is not None and ClusterRecord.decode(item.value) == record


async def test_a_prefix_that_nodes_have_addresses_in_is_refused() -> None:
    control = await control_with()
    with pytest.raises(ConfigError, match="n1"):
        await order_sites(control, [IPv6Network("2001:db8:5a:9::/64")])


async def test_sites_and_another_prefix_are_not_had_together() -> None:
    """Clients are told one prefix when a cluster is renumbered: they would leave the other sites."""
    control = await control_with()
    await order_sites(control, [SECOND])
    with pytest.raises(ConfigError, match="several sites is not renumbered"):
        await order_renumbering(control, THIRD)
    for told in (replace(RECORD, serial=1), replace(RECORD, other=OtherPrefix(str(THIRD), OPENING, 1))):
        with pytest.raises(ConfigError, match="renumbered has one site"):
            await order_sites(await control_with(told), [SECOND])


async def test_without_a_cluster_there_are_no_sites() -> None:
    with pytest.raises(ConfigError, match="holds no cluster"):
        await order_sites(MemoryControlStore(), [SECOND])
