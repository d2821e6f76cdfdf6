"""At which prefixes a cluster answers for good: one for each site that clients may enter it by.

Of one cluster with nodes at several places, each site has a /64 of its own, and every slice an address in
each: the low 64 bits are the same.  Nodes accept all of them; which /64 leads into which site, and what
happens to the one of a site that is lost, is the business of the routers (bgp.md).  Where an object's
replicas lie the zones of nodes say, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Network

from ssastore.core.cluster import CLUSTER_KEY, ClusterRecord, check_nodes
from ssastore.core.clusterreading import read_nodes
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError


async def order_sites(control: ControlStore, further: Sequence[IPv6Network]) -> ClusterRecord:
    """Let the cluster answer at these prefixes beside its first one, and at no others; its record then.

    Raises:
        ConfigError: the cluster has nodes there, was renumbered, or there is none.
        Unavailable: the control store does not answer.
    """
    while True:
        item = await control.get(CLUSTER_KEY)
        if item is None:
            raise ConfigError("the control store holds no cluster")
        record = ClusterRecord.decode(item.value)
        changed = replace(record, sites=tuple([str(site) for site in further]))
        check_nodes(changed.networks, await read_nodes(control))
        if changed == record:
            return record
        compare = Compare(CLUSTER_KEY, item.revision)
        if await control.transact([compare], [Write(CLUSTER_KEY, changed.encode())]) is not None:
            return changed
