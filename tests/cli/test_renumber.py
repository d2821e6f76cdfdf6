"""What ``renumber`` says while it waits, and what it was that it waited for."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network

import pytest

from ssastore.cli import renumber as module
from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLUSTER_KEY, ClusterRecord
from ssastore.core.renumbering import order_renumbering, switched, withdrawn
from ssastore.env import Write
from ssastore.errors import ConfigError

OLD, NEW = IPv6Network("2001:db8:5a:1::/64"), IPv6Network("2001:db8:77:5::/64")


async def _write(control: MemoryControlStore, record: ClusterRecord) -> None:
    await control.transact([], [Write(CLUSTER_KEY, record.encode())])


async def test_who_waits_for_a_prefix_is_told_when_somebody_turns_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exit code of 0 would mean to a script that the cluster is where it sent it."""
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    control = MemoryControlStore()
    await _write(control, ClusterRecord("ab" * 16, str(OLD), 3, 1))
    await order_renumbering(control, NEW)
    waiting = asyncio.ensure_future(module._follow(control, NEW, is_shown=False))
    await asyncio.sleep(0.01)
    await _write(control, withdrawn(await order_renumbering(control, OLD)))
    with pytest.raises(ConfigError, match=f"somebody turned back meanwhile: the service is at {OLD}"):
        await waiting


async def test_who_waits_for_a_prefix_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    control = MemoryControlStore()
    await _write(control, ClusterRecord("ab" * 16, str(OLD), 3, 1))
    record = await order_renumbering(control, NEW)
    waiting = asyncio.ensure_future(module._follow(control, NEW, is_shown=False))
    await asyncio.sleep(0.01)
    await _write(control, withdrawn(switched(record)))
    assert (await waiting).network == NEW
