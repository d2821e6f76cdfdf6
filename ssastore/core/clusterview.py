"""The cluster as the control store says it is, followed change by change. A conversation with a ControlStore.

While the control store is out of reach the view stays as it is; nothing on the data
path waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from ssastore.core.cluster import CLUSTER_KEY, NODE_PREFIX, Cluster, ClusterRecord, NodeRecord, node_key
from ssastore.core.groups import GROUP_PREFIX, GroupRecord
from ssastore.env import ControlStore, Event, WatchCompacted, spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.limits import RECOVERY_RETRY_MS

log = logging.getLogger(__name__)

_FOLLOWED = (CLUSTER_KEY, NODE_PREFIX, GROUP_PREFIX)


class ClusterView:
    """All groups by number and all nodes by name. ``load`` it before anything else."""

    def __init__(self, control: ControlStore) -> None:
        self.groups: dict[int, GroupRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.changed = asyncio.Event()
        "Set with every change; whoever waits for it clears it."
        self.changes = 0
        "How many there were."
        self.record_changed = asyncio.Event()
        "Set when the cluster's own record changes, as by its prefixes. Whoever waits for it clears it."
        self._control = control
        self._revisions: dict[str, int] = {}
        "By prefix: of what is known here."

    async def load(self) -> None:
        """Read everything.

        Raises:
            Unavailable: the control store does not answer.
            ConfigError: it holds no cluster, or a record is not understood.
        """
        for prefix in _FOLLOWED:
            await self._list(prefix)

    async def run(self) -> None:
        """Follow all of it, for ever."""
        tasks = [spawn(f"follow {prefix}", self._follow(prefix)) for prefix in _FOLLOWED]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def cluster(self) -> Cluster:
        """As it is known now; nodes by name, groups by number."""
        nodes = tuple(self.nodes[name] for name in sorted(self.nodes))
        return Cluster(self.record, nodes, tuple(self.groups[group] for group in sorted(self.groups)))

    async def _list(self, prefix: str) -> None:
        items, revision = await self._control.list(prefix)
        if prefix == CLUSTER_KEY:
            values = [item.value for item in items if item.key == CLUSTER_KEY]
            if not values:
                raise ConfigError(
                    "the control store holds no cluster: form one first, or correct its address"
                )
            self.record = ClusterRecord.decode(values[0])
            self.record_changed.set()
        elif prefix == NODE_PREFIX:
            nodes = [NodeRecord.decode(item.value) for item in items]
            self.nodes = {node.name: node for node in nodes}
        else:
            groups = [GroupRecord.decode(item.value) for item in items]
            self.groups = {record.group: record for record in groups}
        self._revisions[prefix] = revision
        self._tell()

    def _tell(self) -> None:
        self.changes += 1
        self.changed.set()

    async def _follow(self, prefix: str) -> None:
        while True:
            try:
                watch: Any = self._control.watch(prefix, self._revisions[prefix])
                async with aclosing(watch):
                    async for event in watch:
                        self._revisions[prefix] = event.revision
                        self._take_event(prefix, event)
            except WatchCompacted:
                await self._list_again(prefix)
            except (SsaStoreError, OSError) as error:
                log.warning("cluster.not_followed", extra={"reason": str(error)})
            await asyncio.sleep(RECOVERY_RETRY_MS / 1000)

    async def _list_again(self, prefix: str) -> None:
        try:
            await self._list(prefix)
        except (SsaStoreError, OSError) as error:
            log.warning("cluster.not_followed", extra={"reason": str(error)})

    def _take_event(self, prefix: str, event: Event) -> None:
        try:
            self._take(prefix, event)
        except ConfigError as error:
            # Written by a program that knows more, or damaged: what is known of it stays.  The watch goes on:
            # a new one would begin behind all that was changed together with it.
            log.error("cluster.record_not_understood", extra={"reason": str(error)})

    def _take(self, prefix: str, event: Event) -> None:
        if prefix == GROUP_PREFIX and event.value is not None:
            record = GroupRecord.decode(event.value)
            self.groups[record.group] = record
        elif prefix == CLUSTER_KEY and event.key == CLUSTER_KEY and event.value is not None:
            self.record = ClusterRecord.decode(event.value)
            self.record_changed.set()
        elif prefix == NODE_PREFIX and event.value is not None:
            node = NodeRecord.decode(event.value)
            self.nodes[node.name] = node
        elif prefix == NODE_PREFIX:
            self.nodes = {name: node for name, node in self.nodes.items() if node_key(name) != event.key}
        self._tell()
