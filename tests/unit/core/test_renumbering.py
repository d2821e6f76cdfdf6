"""Another service /64: what becomes of the record, and that no step is taken before its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import (
    CLOSING,
    CLUSTER_KEY,
    OPENING,
    ClusterRecord,
    NodeRecord,
    OtherPrefix,
    node_key,
)
from ssastore.core.clusterreading import read_record
from ssastore.core.clusterview import ClusterView
from ssastore.core.renumbering import (
    Renumberer,
    order_renumbering,
    renumbered,
    switched,
    waiting,
    withdrawn,
)
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.limits import GUARD_EVERY_MS, RENUMBER_NOTE_S, RENUMBER_TTL_S, RENUMBER_TTL_S_MAX
from tests.registermodel import run_virtually

A, B, C = (IPv6Network(f"2001:db8:5a:{digit}::/64") for digit in "abc")
RECORD = ClusterRecord("ab" * 16, str(A), 3, 1)
OPENED = renumbered(RECORD, B, 60)
SWITCHED = switched(OPENED)
STAGES = [RECORD, OPENED, SWITCHED, withdrawn(SWITCHED)]


# -- the record -------------------------------------------------------------------------------------


def test_each_step_changes_what_is_live_and_what_is_told() -> None:
    live = [(record.networks, record.network, record.serial) for record in STAGES]
    assert live == [((A,), A, 0), ((A, B), A, 0), ((B, A), B, 1), ((B,), B, 1)]


@pytest.mark.parametrize("record", STAGES)
def test_a_record_of_each_step_is_read_as_it_was_written(record: ClusterRecord) -> None:
    assert ClusterRecord.decode(record.encode()) == record
    changed = waiting(OPENED, ["n1", "n2"], 60)
    assert ClusterRecord.decode(changed.encode()) == changed


def test_json_of_a_cluster_that_is_renumbered() -> None:
    """These texts are stored. A cluster that never was renumbered has the first format, as before."""
    assert json.loads(RECORD.encode())["format"] == 1
    found = json.loads(SWITCHED.encode())
    assert found["format"] == 2 and found["serial"] == 1 and found["service"] == "2001:db8:5a:b::/64"
    assert found["other"] == {
        "service": "2001:db8:5a:a::/64",
        "phase": "closing",
        "left_s": 60,
        "waits_for": [],
    }
    assert json.loads(withdrawn(SWITCHED).encode())["other"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"serial": -1},
        {"serial": True},
        {"other": {}},
        {"other": []},
        {"other": {"service": str(A), "phase": "closing", "left_s": 1, "waits_for": [], "more": 1}},
        {"other": {"service": str(B), "phase": "closing", "left_s": 1, "waits_for": []}},
        {"other": {"service": "2001:DB8:5a:a::/64", "phase": "closing", "left_s": 1, "waits_for": []}},
        {"other": {"service": str(A), "phase": "open", "left_s": 1, "waits_for": []}},
        {"other": {"service": str(A), "phase": "closing", "left_s": -1, "waits_for": []}},
        {"other": {"service": str(A), "phase": "closing", "left_s": 1.5, "waits_for": []}},
        {
            "other": {
                "service": str(A),
                "phase": "closing",
                "left_s": RENUMBER_TTL_S_MAX + 1,
                "waits_for": [],
            }
        },
        {"other": {"service": str(A), "phase": "closing", "left_s": 1, "waits_for": "n1"}},
        {"other": {"service": str(A), "phase": "closing", "left_s": 1, "waits_for": [3]}},
        {"serial": 0},
        {"more": 1},
    ],
)
def test_what_is_no_such_record_is_refused(change: dict[str, Any]) -> None:
    fields = json.loads(SWITCHED.encode()) | change
    with pytest.raises(ConfigError):
        ClusterRecord.decode(json.dumps(fields).encode())


def test_given_again_only_the_time_changes() -> None:
    assert renumbered(OPENED, B, None) == OPENED
    assert renumbered(OPENED, B, 5) == replace(OPENED, other=OtherPrefix(str(B), OPENING, 5))
    assert renumbered(SWITCHED, B, None) == SWITCHED
    assert renumbered(SWITCHED, B, 5) == replace(SWITCHED, other=OtherPrefix(str(A), CLOSING, 5))
    done = withdrawn(SWITCHED)
    assert renumbered(done, B, 5) == done and renumbered(RECORD, A, None) == RECORD


def test_without_a_time_the_former_prefix_stays_for_five_minutes() -> None:
    other = renumbered(RECORD, B, None).other
    assert other is not None and other.left_s == RENUMBER_TTL_S == 300


def test_turned_back_before_the_switch_clients_are_told_again_where_the_service_is() -> None:
    """Some may have been started with the other prefix already: they must not stay there."""
    back = renumbered(OPENED, A, None)
    assert back.network == A and back.serial == 1 and back.other == OtherPrefix(str(B), CLOSING, 60)


def test_turned_back_after_the_switch_the_former_prefix_is_confirmed_anew() -> None:
    back = renumbered(SWITCHED, A, 7)
    assert back.network == B and back.other == OtherPrefix(str(A), OPENING, 7)
    again = switched(back)
    assert (again.network, again.serial) == (A, 2) and again.other == OtherPrefix(str(B), CLOSING, 7)


@pytest.mark.parametrize("record", [OPENED, SWITCHED])
def test_a_third_prefix_has_to_wait(record: ClusterRecord) -> None:
    with pytest.raises(
        ConfigError, match="on its way from 2001:db8:5a:a::/64 to 2001:db8:5a:b::/64"
    ) as found:
        renumbered(record, C, None)
    assert "ssastore renumber 2001:db8:5a:a::/64" in str(found.value)


@given(st.lists(st.sampled_from(["A", "B", "C", "switch", "withdraw"]), max_size=12))
def test_whatever_is_ordered_there_are_two_prefixes_at_most_and_a_new_one_has_a_new_serial(
    steps: list[str],
) -> None:
    """And no prefix is told that was not opened before, nor taken away while it is told."""
    record = RECORD
    for step in steps:
        before = record
        if step == "switch":
            record = switched(record) if record.other and record.other.phase == OPENING else record
        elif step == "withdraw":
            record = withdrawn(record) if record.other and record.other.phase == CLOSING else record
        else:
            try:
                record = renumbered(record, {"A": A, "B": B, "C": C}[step], 1)
            except ConfigError:
                assert before.other is not None
        assert ClusterRecord.decode(record.encode()) == record
        assert record.network in before.networks and len(record.networks) <= 2
        assert record.serial >= before.serial
        assert record.network == before.network or record.serial > before.serial


# -- who changes it ---------------------------------------------------------------------------------


class World:
    """A control store with a cluster and three nodes, which say what the test wants."""

    def __init__(self) -> None:
        self.control = MemoryControlStore()
        self.heard: dict[IPv6Network, dict[str, int | None]] = {}
        self.asked = 0

    async def form(self) -> None:
        nodes = [NodeRecord(f"n{number}", f"fd00::{number}") for number in (1, 2, 3)]
        writes = [Write(node_key(node.name), node.encode()) for node in nodes]
        await self.control.transact([], [Write(CLUSTER_KEY, RECORD.encode()), *writes])
        self.view = ClusterView(self.control)
        await self.view.load()
        self.following = asyncio.ensure_future(self.view.run())
        await asyncio.sleep(0)

    def coordinator(self) -> Renumberer:
        async def heard(service: IPv6Network) -> dict[str, int | None]:
            self.asked += 1
            return self.heard.get(service, {})

        return Renumberer(lambda: self.view.record, heard)

    async def play(self, coordinator: Renumberer, seconds: float) -> float:
        """Let it coordinate for so long; when the former prefix was withdrawn, if it was."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while loop.time() - started < seconds:
            if coordinator.is_due:
                await coordinator.round(self.control)
            await asyncio.sleep(GUARD_EVERY_MS / 1000)
            if (await read_record(self.control)).other is None:
                return loop.time() - started
        return 0.0

    async def record(self) -> ClusterRecord:
        return await read_record(self.control)

    def answers(self, service: IPv6Network, *serials: int | None) -> None:
        self.heard[service] = {f"n{number}": serial for number, serial in enumerate(serials, 1)}


def play(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        world = World()
        await world.form()
        try:
            await scenario(world)
        finally:
            world.following.cancel()
            await asyncio.gather(world.following, return_exceptions=True)

    run_virtually(run)


def test_it_is_switched_when_every_node_answers_there_and_withdrawn_when_the_time_is_over() -> None:
    async def scenario(world: World) -> None:
        await order_renumbering(world.control, B, 30)
        coordinator = world.coordinator()
        world.answers(B, 0, 0, None)
        await world.play(coordinator, 100)
        record = await world.record()
        assert record.network == A and record.other is not None and record.other.waits_for == ("n3",)
        world.answers(B, 0, 0, 0)
        await world.play(coordinator, 2)
        record = await world.record()
        assert record.network == B and record.other == OtherPrefix(str(A), CLOSING, 30)
        world.answers(B, 1, 1, 1)
        assert 27 < await world.play(coordinator, 100) < 32

    play(scenario)


def test_it_stays_while_somebody_tells_clients_the_former_prefix_and_not_for_who_is_gone() -> None:
    async def scenario(world: World) -> None:
        await order_renumbering(world.control, B, 5)
        coordinator = world.coordinator()
        world.answers(B, 0, 0, 0)
        await world.play(coordinator, 2)
        world.answers(B, 1, None, 0)
        assert not await world.play(coordinator, 60)
        other = (await world.record()).other
        assert other is not None and other.waits_for == ("n3",) and other.left_s == 0
        world.answers(B, 1, None, 1)
        assert await world.play(coordinator, 3)

    play(scenario)


def test_who_succeeds_a_coordinator_counts_what_is_noted_as_left_and_never_less() -> None:
    async def scenario(world: World) -> None:
        await order_renumbering(world.control, B, 60)
        world.answers(B, 0, 0, 0)
        first = world.coordinator()
        await world.play(first, 2)
        world.answers(B, 1, 1, 1)
        assert not await world.play(first, 45)
        other = (await world.record()).other
        assert other is not None and 60 - 45 <= other.left_s <= 60 - 45 + RENUMBER_NOTE_S + 2
        left_s, second = other.left_s, world.coordinator()
        assert left_s <= await world.play(second, 100) < left_s + 3

    play(scenario)


def test_a_time_that_is_given_meanwhile_begins_then() -> None:
    async def scenario(world: World) -> None:
        await order_renumbering(world.control, B, 1000)
        world.answers(B, 0, 0, 0)
        coordinator = world.coordinator()
        await world.play(coordinator, 2)
        world.answers(B, 1, 1, 1)
        await world.play(coordinator, 29)
        await order_renumbering(world.control, B, 20)
        assert 20 <= await world.play(coordinator, 100) < 23

    play(scenario)


def test_without_a_second_prefix_nobody_is_asked() -> None:
    async def scenario(world: World) -> None:
        await world.play(world.coordinator(), 20)
        assert world.asked == 0

    play(scenario)


def test_a_prefix_with_nodes_in_it_is_refused_and_nothing_is_written() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError, match="address fd00::1 of node n1 lies inside the service fd00::/64"):
            await order_renumbering(world.control, IPv6Network("fd00::/64"))
        assert await world.record() == RECORD

    play(scenario)


def test_what_others_change_at_the_same_time_stays() -> None:
    """The record also says how many replicas there are to be."""

    async def scenario(world: World) -> None:
        real, control = world.control.transact, world.control
        meanwhile = [replace(RECORD, replicas=5)]

        async def transact(compares: Any, writes: Any) -> int | None:
            if meanwhile:
                await real([], [Write(CLUSTER_KEY, meanwhile.pop().encode())])
            return await real(compares, writes)

        control.transact = transact  # type: ignore[method-assign]
        found = await order_renumbering(control, B)
        assert found.replicas == 5 and found.networks == (A, B) and await world.record() == found

    play(scenario)


def test_a_step_of_a_record_that_was_changed_meanwhile_is_not_taken() -> None:
    """Turned back while nodes are asked: the coordinator must not switch to what is being closed."""

    async def scenario(world: World) -> None:
        await order_renumbering(world.control, B, 10)
        coordinator = world.coordinator()

        async def heard(service: IPv6Network) -> dict[str, int | None]:
            await order_renumbering(world.control, A)
            return {"n1": 0}

        coordinator._heard = heard
        await coordinator.round(world.control)
        record = await world.record()
        assert record.network == A and record.other == OtherPrefix(str(B), CLOSING, 10)

    play(scenario)
