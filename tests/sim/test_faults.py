"""Swarm settings and the faults that follow from them: all kinds occur, and all are undone at the end."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import pytest

from ssastore.errors import CorruptObject
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.control import ControlNetwork
from ssastore.sim.disk import Disk
from ssastore.sim.faults import Faults
from ssastore.sim.host import Host
from ssastore.sim.seeds import Stream
from ssastore.sim.swarm import FAULTS, Swarm, draw_swarm
from ssastore.sim.world import World


def test_settings_follow_from_the_seed_alone() -> None:
    assert asdict(draw_swarm(7)) == asdict(draw_swarm(7))
    assert asdict(draw_swarm(7)) != asdict(draw_swarm(8))


def test_seeds_differ_in_what_goes_wrong() -> None:
    drawn = [draw_swarm(seed) for seed in range(200)]
    assert {kind for swarm in drawn for kind in swarm.weights} == set(FAULTS)
    assert len({tuple(swarm.weights) for swarm in drawn}) > 80
    assert sum(not swarm.weights for swarm in drawn) < 20
    for field in ("every_ns", "lasting_ns", "commit_ms", "drift_ppm", "deschedule_every", "lag_ns_max"):
        assert len({getattr(swarm, field) for swarm in drawn}) > 2, field


def test_faults_can_be_left_out() -> None:
    drawn = [draw_swarm(seed, ("reset", "kill")) for seed in range(50)]
    assert {kind for swarm in drawn for kind in swarm.weights} == {"reset", "kill"}


def test_settings_are_shown_in_one_line() -> None:
    assert "no faults" in Swarm().describe()
    assert all("\n" not in draw_swarm(seed).describe() for seed in range(20))


class Chatter(asyncio.Protocol):
    def __init__(self, lost: list[str]) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.append(type(exc).__name__)


def is_rotten(disk: Disk) -> bool:
    try:
        with disk.read() as txn:
            txn.get(b"key")
    except CorruptObject:
        return True
    return False


async def serve(host: Host) -> None:
    await asyncio.get_running_loop().create_server(lambda: Chatter([]), "::", 1)
    await asyncio.Event().wait()


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_happens_and_is_undone(kind: str) -> None:
    world = World(3, Swarm(weights={kind: 1.0}, every_ns=NS_PER_S, lasting_ns=100 * NS_PER_S, jump_ms=60_000))
    hosts = [world.host(name, serve) for name in ("a", "b", "c")]
    disks, control = [Disk(draw=Stream(at, "disk")) for at in range(3)], ControlNetwork()
    faults = Faults(world.network, world.swarm, hosts, disks, control)

    def is_disturbed() -> bool:
        links = [world.network.link(one, other) for one in hosts for other in hosts if one is not other]
        return (
            any(link.is_held for link in links)
            or any(host.is_paused or not host.is_running for host in hosts)
            or any(disk.is_hurt for disk in disks)
            or control.is_down
            or bool(world.network.routing._lost)
        )

    lost: list[str] = []

    async def dial() -> None:
        await asyncio.get_running_loop().create_connection(lambda: Chatter(lost), "fd5a:ffff::2", 1)

    async def main() -> None:
        for host in hosts:
            host.start()
        for disk in disks:
            await disk.submit(lambda txn: txn.put(b"key", b"value"))
        await asyncio.sleep(1)
        await hosts[0].spawn("dial", dial())
        clocks = [host.clock.now_ms() for host in hosts]
        faults.start()
        await asyncio.sleep(30)
        assert faults.happened[kind] > 10
        has_lost = bool(lost)
        has_jumped = any(
            host.clock.now_ms() - before != 30_000 for host, before in zip(hosts, clocks, strict=True)
        )
        has_rotten = any(is_rotten(disk) for disk in disks)
        lasts_not = {"reset": has_lost, "jump": has_jumped, "rot": has_rotten}
        assert lasts_not[kind] if kind in lasts_not else is_disturbed()
        faults.stop()
        count = faults.happened[kind]
        assert not is_disturbed()
        await asyncio.sleep(1000)
        assert faults.happened[kind] == count

    world.run(main())


def test_nobody_disturbs_a_run_without_weights() -> None:
    world = World(1)
    faults = Faults(world.network, world.swarm, [world.host("a")])

    async def main() -> None:
        faults.start()
        await asyncio.sleep(1000)
        faults.stop()

    world.run(main())
    assert not faults.happened
