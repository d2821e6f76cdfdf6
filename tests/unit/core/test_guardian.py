"""What a coordinator does about nodes that are gone: on virtual time, with the recovery itself as a fake."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import CLOSING, CLUSTER_KEY, ClusterRecord, NodeRecord, node_key
from ssastore.core.clusterreading import read_record
from ssastore.core.clusterview import ClusterView
from ssastore.core.election import COORDINATOR_KEY, coordinator_of
from ssastore.core.guardian import FREE, PAUSED, REACHED, RECOVERED, Deeds, Guardian, Watch, judge
from ssastore.core.membership import ABSENT_PREFIX, AbsentRecord, absent_key, alive_key, read_presence
from ssastore.core.renumbering import Renumberer, order_renumbering
from ssastore.core.settings import MOVE_SETTINGS_KEY, RECOVERY_SETTINGS_KEY, MoveSettings, RecoverySettings
from ssastore.env import ControlStore, Write
from ssastore.errors import ConfigError
from ssastore.limits import GUARD_GAP_MS, LEASE_MS, LOST_ORDER_EVERY_MS, RENUMBER_NOTE_S
from ssastore.sim.control import ControlNetwork, VirtualControlStore
from tests.registermodel import LoopClock, run_virtually

AFTER_S = 60
NAMES = ("n1", "n2", "n3", "n4", "n5", "n6")
ORDER_KEY = "ordered/"
RECORD = ClusterRecord("ab" * 16, "2001:db8:5a:1::/64", 3, 1)
OTHER = IPv6Network("2001:db8:77:5::/64")


class Cluster:
    """Six nodes; those that are up have a record that they are. Orders are kept as keys."""

    def __init__(self) -> None:
        self.store = MemoryControlStore()
        self.network = ControlNetwork()
        self.owners = set(NAMES)
        self.reached: set[str] = set()
        self.orders: list[tuple[str, tuple[str, ...]]] = []
        self.left_out: set[str] = set()
        "Of the last order, who was said to be absent."
        self.refuses = ""
        self.takes_s = 0.0
        self.asks_s = 0.0
        self.silent: set[str] = set()
        "Who does not answer at the other prefix."
        self.tasks: list[asyncio.Task[None]] = []
        self.zones = dict.fromkeys(NAMES, "")

    async def form(self) -> None:
        nodes = [NodeRecord(name, f"fd00::{at}", zone=self.zones[name]) for at, name in enumerate(NAMES, 1)]
        await self.store.transact([], [Write(node_key(node.name), node.encode()) for node in nodes])
        await self.store.transact([], [Write(alive_key(name), b"?") for name in NAMES])
        settings = RecoverySettings(AFTER_S).encode()
        await self.store.transact([], [Write(RECOVERY_SETTINGS_KEY, settings)])
        await self.store.transact([], [Write(CLUSTER_KEY, RECORD.encode())])
        self.view = ClusterView(self.store)
        await self.view.load()
        self.tasks.append(asyncio.ensure_future(self.view.run()))

    async def gone(self, *names: str) -> None:
        await self.store.transact([], [Write(alive_key(name), None) for name in names])

    async def back(self, *names: str) -> None:
        await self.store.transact([], [Write(alive_key(name), b"?") for name in names])

    async def renumber(self, service: IPv6Network, ttl_s: int) -> None:
        await order_renumbering(self.store, service, ttl_s)

    def guardian(self, name: str) -> Guardian:
        async def order(
            control: ControlStore, lost: Collection[str], absent: Collection[str]
        ) -> tuple[int, str]:
            self.left_out = set(absent)
            if self.refuses:
                raise ConfigError(self.refuses)
            await asyncio.sleep(self.takes_s)
            # As the real one: a compare-and-set for each, and nothing where it is ordered already.
            count = 0
            for node in lost:
                if await control.get(ORDER_KEY + node) is None:
                    await control.transact([], [Write(ORDER_KEY + node, name.encode())])
                    count += 1
            self.orders.append((name, tuple(lost)))
            return count, f"some wait for {sorted(absent)}" if absent else ""

        async def recall(control: ControlStore, node: str) -> int:
            await control.transact([], [Write(ORDER_KEY + node, None)])
            return 1

        async def reaches(node: str) -> bool:
            await asyncio.sleep(self.asks_s)
            return node in self.reached

        async def heard(service: IPv6Network) -> dict[str, int | None]:
            await asyncio.sleep(self.asks_s)
            return {"n1": self.view.record.serial} | dict.fromkeys(self.silent)

        deeds = Deeds(lambda: self.owners, order, recall, reaches)
        renumberer = Renumberer(lambda: self.view.record, heard)
        control = VirtualControlStore(self.store, self.network)
        return Guardian(control, name, deeds, renumberer, LoopClock())

    def start(self, name: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self.guardian(name).run())
        self.tasks.append(task)
        return task

    async def says(self, name: str) -> str:
        found = (await read_presence(self.store)).absent.get(name)
        return found.says if found is not None else ""

    async def ordered(self) -> list[str]:
        items, _ = await self.store.list(ORDER_KEY)
        return [item.key.removeprefix(ORDER_KEY) for item in items]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def play(scenario: Any, cluster: Cluster | None = None) -> None:
    async def run() -> None:
        found = cluster or Cluster()
        await found.form()
        try:
            await scenario(found)
        finally:
            await found.close()

    run_virtually(run)


def test_what_a_node_had_is_ordered_to_be_recovered_when_it_is_gone_for_long() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await asyncio.sleep(AFTER_S)
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S - 5)
        assert await cluster.ordered() == [] and "after 60 s" in await cluster.says("n2")
        await asyncio.sleep(10)
        assert await cluster.ordered() == ["n2"] and await cluster.says("n2") == RECOVERED
        # What could not be done is tried again from time to time, not all the time.
        await asyncio.sleep(100)
        assert 8 <= len(cluster.orders) <= 100_000 / LOST_ORDER_EVERY_MS + 2
        cluster.owners.remove("n2")
        await asyncio.sleep(5)
        assert await cluster.says("n2") == FREE

    play(scenario)


def test_a_node_that_comes_back_is_recalled_and_its_time_begins_anew() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S - 10)
        await cluster.back("n2")
        await asyncio.sleep(3)
        assert await cluster.says("n2") == ""
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S - 10)
        assert await cluster.ordered() == []
        await asyncio.sleep(15)
        assert await cluster.ordered() == ["n2"]
        await cluster.back("n2")
        await asyncio.sleep(3)
        assert await cluster.ordered() == [] and await cluster.says("n2") == ""

    play(scenario)


def test_when_many_are_gone_at_once_nothing_is_ordered_and_it_is_said() -> None:
    """Of six nodes two are a third. An operator must say that three are lost."""

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await cluster.gone("n2", "n3", "n4")
        await asyncio.sleep(3 * AFTER_S)
        assert await cluster.ordered() == []
        assert await cluster.says("n3") == "not recovered by itself: 3 of 6 nodes are absent at once"
        await cluster.back("n4")
        await asyncio.sleep(5)
        assert sorted(await cluster.ordered()) == ["n2", "n3"]

    play(scenario)


def test_a_zone_that_is_gone_counts_as_one() -> None:
    cluster = Cluster()
    cluster.zones |= {"n2": "z", "n3": "z", "n4": "z", "n1": "y", "n5": "y", "n6": "x"}

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await cluster.gone("n2", "n3", "n4")
        await asyncio.sleep(AFTER_S + 5)
        assert sorted(await cluster.ordered()) == ["n2", "n3", "n4"]

    play(scenario, cluster)


def test_nothing_is_held_against_nodes_while_the_control_store_is_away() -> None:
    """An outage in which all leases end, as seen by all; nodes give their signs some seconds after it."""

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await asyncio.sleep(5)
        cluster.network.is_down = True
        await cluster.gone("n2")
        await asyncio.sleep(10 * AFTER_S)
        cluster.network.is_down = False
        await asyncio.sleep(AFTER_S - 10)
        assert await cluster.ordered() == []
        await cluster.back("n2")
        await asyncio.sleep(2 * AFTER_S)
        assert await cluster.ordered() == [] and await cluster.says("n2") == ""

    play(scenario)


def test_a_node_that_answers_is_not_recovered_although_its_lease_is_gone() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        cluster.reached = {"n2"}
        await cluster.gone("n2", "n3")
        await asyncio.sleep(AFTER_S + 5)
        assert await cluster.ordered() == ["n3"]
        assert await cluster.says("n2") == REACHED
        cluster.reached = set()
        await asyncio.sleep(LOST_ORDER_EVERY_MS / 1000 + 2)
        assert await cluster.ordered() == ["n2", "n3"]

    play(scenario)


def test_who_is_absent_for_less_long_is_told_to_who_orders() -> None:
    """So that nothing is begun that had to wait for it."""

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S - 5)
        await cluster.gone("n3")
        await asyncio.sleep(10)
        assert await cluster.ordered() == ["n2"] and cluster.left_out == {"n3"}
        assert await cluster.says("n2") == f"{RECOVERED}, but some wait for ['n3']"
        await cluster.back("n3")
        await asyncio.sleep(LOST_ORDER_EVERY_MS / 1000 + 2)
        assert cluster.left_out == set() and await cluster.says("n2") == RECOVERED

    play(scenario)


def test_it_is_said_that_a_pause_holds_recoveries_up() -> None:
    """Somebody paused moves for an hour and forgot it: nothing is rebuilt, and it is ordered all the same."""

    async def scenario(cluster: Cluster) -> None:
        value = MoveSettings(is_paused=True).encode()
        await cluster.store.transact([], [Write(MOVE_SETTINGS_KEY, value)])
        cluster.start("n1")
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S + 20)
        assert await cluster.ordered() == ["n2"] and await cluster.says("n2") == f"{RECOVERED}, but {PAUSED}"
        await cluster.store.transact([], [Write(MOVE_SETTINGS_KEY, None)])
        await asyncio.sleep(LOST_ORDER_EVERY_MS / 1000 + 5)
        assert await cluster.says("n2") == RECOVERED

    play(scenario)


def test_what_cannot_be_recovered_is_said_with_its_reason() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        cluster.refuses = "too few nodes"
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S + 5)
        assert await cluster.says("n2") == "not recovered by itself: too few nodes"
        cluster.refuses = ""
        await asyncio.sleep(LOST_ORDER_EVERY_MS / 1000 + 2)
        assert await cluster.says("n2") == RECOVERED

    play(scenario)


def test_who_plans_for_longer_than_the_lease_lasts_stays_the_coordinator() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.takes_s = 5 * LEASE_MS / 1000
        cluster.start("n1")
        await asyncio.sleep(1)
        cluster.start("n2")
        await cluster.gone("n6")
        await asyncio.sleep(AFTER_S + cluster.takes_s + 5)
        assert await cluster.ordered() == ["n6"] and await coordinator_of(cluster.store) == "n1"

    play(scenario)


def test_to_ask_several_that_do_not_answer_takes_no_longer_than_to_ask_one() -> None:
    cluster = Cluster()
    cluster.zones |= {"n2": "z", "n3": "z", "n4": "z", "n1": "y", "n5": "y", "n6": "x"}
    cluster.asks_s = 0.4 * LEASE_MS / 1000

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await asyncio.sleep(1)
        cluster.start("n5")
        await cluster.gone("n2", "n3", "n4")
        await asyncio.sleep(AFTER_S + cluster.asks_s + 5)
        assert sorted(await cluster.ordered()) == ["n2", "n3", "n4"]
        assert await coordinator_of(cluster.store) == "n1"

    play(scenario, cluster)


def test_nothing_is_said_of_nodes_that_start_a_moment_later() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.gone(*NAMES)
        cluster.start("n1")
        await asyncio.sleep(3)
        await cluster.back(*NAMES)
        await asyncio.sleep(30)
        items, _ = await cluster.store.list(ABSENT_PREFIX)
        assert items == []
        events = cluster.store._engine._state.events(ABSENT_PREFIX, 0)
        assert events == []

    play(scenario)


def test_switched_off_means_never() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.store.transact([], [Write(RECOVERY_SETTINGS_KEY, RecoverySettings(0).encode())])
        cluster.start("n1")
        await cluster.gone("n2")
        await asyncio.sleep(10 * AFTER_S)
        assert await cluster.ordered() == [] and "switched off" in await cluster.says("n2")

    play(scenario)


@pytest.mark.parametrize("killed_s", [0.0, 5.0, AFTER_S - 1.0, AFTER_S + 0.5, AFTER_S + 5.0])
def test_another_one_goes_on_when_the_coordinator_is_killed(killed_s: float) -> None:
    """Killed before, while or after it orders: it is ordered, once, and one coordinates in the end."""

    async def scenario(cluster: Cluster) -> None:
        first = cluster.start("n1")
        await asyncio.sleep(1)
        cluster.start("n2")
        cluster.start("n3")
        await cluster.gone("n6")
        await asyncio.sleep(killed_s)
        first.cancel()
        await asyncio.sleep(LEASE_MS / 1000 + AFTER_S + 10)
        assert await coordinator_of(cluster.store) in ("n2", "n3")
        assert await cluster.ordered() == ["n6"] and await cluster.says("n6") == RECOVERED
        item = await cluster.store.get(ORDER_KEY + "n6")
        assert item is not None and item.value == (b"n1" if killed_s > AFTER_S else item.value)

    play(scenario)


@pytest.mark.parametrize("step", range(40))
def test_a_coordinator_that_is_killed_at_any_transaction_leaves_nothing_half_done(step: int) -> None:
    """Method: the ``step``th call of its control store never comes back, and it is killed."""

    async def scenario(cluster: Cluster) -> None:
        first = cluster.guardian("n1")
        left = step

        class Dying(VirtualControlStore):
            async def _reach(self) -> None:
                nonlocal left
                # The calls that are about the node that is gone, not the long wait before.
                if asyncio.get_running_loop().time() - begun_s > AFTER_S - 3:
                    left -= 1
                    if left < 0:
                        await asyncio.Event().wait()
                await super()._reach()

        dying = Dying(cluster.store, cluster.network)
        first._control = first._election._control = dying
        begun_s = asyncio.get_running_loop().time()
        task = asyncio.ensure_future(first.run())
        cluster.tasks.append(task)
        await asyncio.sleep(1)
        cluster.start("n2")
        await cluster.gone("n6")
        await asyncio.sleep(AFTER_S + 30)
        task.cancel()
        await asyncio.sleep(AFTER_S + 30)
        assert await coordinator_of(cluster.store) == "n2"
        assert await cluster.ordered() == ["n6"] and await cluster.says("n6") == RECOVERED

    play(scenario)


def test_a_watch_that_was_interrupted_begins_anew() -> None:
    watch = Watch()
    watch.look(0.0, ["n1"])
    watch.look(4.0, ["n1", "n2"])
    assert watch.missed == {"n1": 0.0, "n2": 4.0}
    watch.look(4.0 + GUARD_GAP_MS / 1000 + 1, ["n1", "n2"])
    assert watch.missed == {"n1": 10.0, "n2": 10.0}
    watch.look(11.0, ["n2"])
    assert watch.missed == {"n2": 10.0}


def test_nodes_that_own_nothing_count_for_nothing() -> None:
    """A node that was recovered stays absent for ever: it must not stand in the way of the next one."""
    nodes = {name: NodeRecord(name, f"fd00::{at}") for at, name in enumerate(NAMES, 1)}
    watch = Watch({"n1": 0.0, "n2": 0.0, "n3": 0.0}, 100.0)
    found = judge(watch, nodes, {"n3", "n4", "n5", "n6"}, RecoverySettings(AFTER_S))
    assert found.lost == {"n3"} and found.says["n1"] == FREE
    watch = replace(watch, missed=dict.fromkeys(("n3", "n4"), 0.0))
    assert not judge(watch, nodes, {"n3", "n4", "n5", "n6"}, RecoverySettings(AFTER_S)).lost


def test_what_is_known_since_when_a_node_is_absent_is_kept_by_the_next_coordinator() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.gone("n2")
        await cluster.store.transact([], [Write(absent_key("n2"), AbsentRecord(123, "?").encode())])
        cluster.start("n1")
        await asyncio.sleep(10)
        found = (await read_presence(cluster.store)).absent["n2"]
        assert found.since_ms == 123 and "after 60 s" in found.says

    play(scenario)


# -- another service prefix -------------------------------------------------------------------------


@pytest.mark.parametrize("dies_after_s", [0.5, 1.5, 12.0, 40.0])
def test_a_coordinator_that_dies_while_the_cluster_is_renumbered_is_followed_by_another(
    dies_after_s: float,
) -> None:
    """The former prefix stays as long as was asked, and not much longer than an election takes."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.view.load()
        first = cluster.start("n1")
        await asyncio.sleep(LEASE_MS / 1000)
        cluster.start("n2")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await cluster.renumber(OTHER, 50)
        loop.call_later(dies_after_s, first.cancel)
        switched_at = 0.0
        while (record := await read_record(cluster.store)).other is not None:
            assert loop.time() - began < 200, "it never ends"
            if record.other.phase == CLOSING and not switched_at:
                switched_at = loop.time()
            await asyncio.sleep(0.1)
        assert record.network == OTHER and record.serial == 1
        assert 50 <= loop.time() - switched_at < 50 + 2 * LEASE_MS / 1000 + RENUMBER_NOTE_S + 5
        assert await coordinator_of(cluster.store) == "n2" and not cluster.orders

    play(scenario)


def test_who_is_not_the_coordinator_any_more_takes_no_step() -> None:
    """It asks nodes for long, and its lease ends meanwhile; another one has turned back by then."""

    async def scenario(cluster: Cluster) -> None:
        first = cluster.start("n1")
        await asyncio.sleep(2)
        cluster.asks_s = 4 * LEASE_MS / 1000
        await cluster.renumber(OTHER, 50)
        await asyncio.sleep(2)
        claim = await cluster.store.get(COORDINATOR_KEY)
        assert claim is not None
        await cluster.store.transact([], [Write(COORDINATOR_KEY, b"somebody else")])
        await asyncio.sleep(6 * LEASE_MS / 1000)
        assert (await read_record(cluster.store)).network == IPv6Network(RECORD.service)
        assert not first.done()

    play(scenario)


def test_who_asks_for_longer_than_its_lease_lasts_stays_the_coordinator() -> None:
    """A cluster may have thousands of workers."""

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await asyncio.sleep(2)
        cluster.start("n2")
        cluster.asks_s = 3 * LEASE_MS / 1000
        await cluster.renumber(OTHER, 50)
        await asyncio.sleep(4 * LEASE_MS / 1000)
        assert (await read_record(cluster.store)).network == OTHER
        assert await coordinator_of(cluster.store) == "n1"

    play(scenario)


def test_a_node_that_holds_the_switch_up_is_recovered_however_long_it_is_asked() -> None:
    """Its workers do not answer, which takes longest; the coordinator was not away meanwhile."""

    async def scenario(cluster: Cluster) -> None:
        cluster.start("n1")
        await asyncio.sleep(2)
        cluster.asks_s, cluster.silent = GUARD_GAP_MS / 1000 + 1, {"n2"}
        await cluster.renumber(OTHER, 50)
        await cluster.gone("n2")
        await asyncio.sleep(AFTER_S + 4 * cluster.asks_s)
        assert await cluster.ordered() == ["n2"]
        other = (await read_record(cluster.store)).other
        assert other is not None and other.waits_for == ("n2",)

    play(scenario)
