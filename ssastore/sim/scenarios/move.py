"""Move: slices are handed over from node to node while clients write to them, and everything fails meanwhile.

Each round orders the moves of some slices that hold the clients' records, and does one of
these at one of the steps of the handover (begun, sealed, filled, switched):

    none       only the faults of the swarm
    source     the source loses its power, for a while
    target     the target does, which is the mover as well
    both       both
    outage     the control store is away
    cut_off    the source does not reach the control store, and sends and answers everybody else
    pause      the source stands still, and goes on when all is decided
    abort      the order is taken back
    restart    the target stands still, and the source starts again meanwhile

The next round begins when nothing is under way any more and every slice votes: so it is
copied again from who was copied to.  A round that does not end is a failure of liveness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, PlaneOwner, group_key
from ssastore.core.numbers import group_of_slice, part_of_slice, plane_of_slice
from ssastore.core.orders import move_name
from ssastore.core.standing import State
from ssastore.errors import OutcomeUnknown, TryLater
from ssastore.rebalance import Move, abort_moves, order_moves
from ssastore.sim.cluster import StoreHost
from ssastore.sim.fabric import Fabric, draw_moves
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.scenarios.safety import large_shape
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm, draw_swarm
from ssastore.sim.upkeep import UpkeepRegister
from ssastore.sim.workload import Shape

WAYS = ("none", "source", "target", "both", "outage", "cut_off", "pause", "abort", "restart")
STEPS = ("begun", "sealed", "filled", "switched")

BOUND_S = 180
"Virtual time in which a round must end, once what held it up is over."

_ROUNDS_MAX = 3
_SLICES_MAX = 4
_STEP_S = 20
_LOOK_EVERY_S = 0.001
_FAULTS = ("reset", "cut", "one_way", "clog", "pause", "disk_stall", "kill", "power_off", "control")


async def play(stage: Stage) -> None:
    fabric = await open_marked(stage)
    draw = stage.world.stream("move")
    for number in range(draw.randint(1, _ROUNDS_MAX)):
        await play_round(stage, number, draw)
    stage.calm()
    await stage.work()
    stage.figures["moves"] = fabric.moves


async def open_marked(stage: Stage) -> Fabric:
    """Start everything, delete a bucket, do a share of the calls; and from now on everything fails."""
    await stage.open()
    fabric = Fabric(stage.cluster)
    await stage.on(0, "delete a bucket", _leave_marks(stage))
    await stage.work()
    stage.faults.start()
    return fabric


async def _leave_marks(stage: Stage) -> None:
    """A bucket that was deleted: its mark has to move as well. Who reaches no majority leaves none."""
    buckets = stage.objects[0].buckets
    with suppress(OutcomeUnknown, TryLater):
        await buckets.create("gone", shards=1)
        await buckets.delete("gone")


async def play_round(stage: Stage, number: int, draw: Stream) -> None:
    """One round of moves; returns when it has ended."""
    way, step = draw.choice(WAYS), draw.choice(STEPS)
    work = []
    if way == "restart":
        step = "filled"  # Then all the calls come while the target stands still.
    else:
        work = stage.start_work()
    await stage.pause(draw.uniform(0.0, 0.3))
    moves = await draw_moves(stage.cluster, draw, _SLICES_MAX)
    stage.world.loop.note(f"round {number}: {len(moves)} moves, {way} when {step}")
    await order_moves(stage.cluster.control, moves)
    await _until_step(stage, moves[0], step)
    undo = await hurt(stage, moves, way)
    work = work or stage.start_work()
    await stage.pause(draw.uniform(0.01, draw.choice((1.0, 9.0))))
    for back in undo:
        back()
    await _until_over(stage, moves, f"round {number} ({way} when {step})")
    await asyncio.gather(*work)


async def _record(stage: Stage, number: int) -> GroupRecord:
    item = await stage.cluster.control.get(group_key(group_of_slice(number)))
    assert item is not None
    record = GroupRecord.decode(item.value)
    return record.at(part_of_slice(number)) or record


async def _plane(stage: Stage, move: Move) -> PlaneOwner:
    return (await _record(stage, move.number)).planes[plane_of_slice(move.number)]


async def _until_step(stage: Stage, move: Move, step: str) -> None:
    """Wait until a move has come to a step; not for ever: it may come past it unseen."""
    deadline_s = stage.now_s + _STEP_S
    while stage.now_s < deadline_s:
        found = await _plane(stage, move)
        if found.owner == move.target or _is_at(stage, move, found, step):
            return
        await stage.pause(_LOOK_EVERY_S)


def _is_at(stage: Stage, move: Move, found: PlaneOwner, step: str) -> bool:
    """Whether a move that is not decided yet has come to a step."""
    if found.state != MOVING or step == "switched":
        return False
    nodes = {node.name: node.engine for node in stage.cluster.nodes}
    source, target = nodes[found.owner], nodes[move.target]
    if step == "sealed":
        return source is not None and source.custody.states.get(move.number) is State.SEALED
    if step == "filled":
        return target is not None and target.custody.standing(move.number).epoch == found.epoch + 1
    return True


async def hurt(stage: Stage, moves: list[Move], way: str) -> list[Callable[[], None]]:
    """Do to a slice that goes from node to node what a round is about; what ends it."""
    found = await _plane(stage, moves[0])
    nodes = {node.name: node for node in stage.cluster.nodes}
    source, target = nodes[found.owner], nodes[moves[0].target]
    control = stage.cluster.control_network
    undo: list[Callable[[], None]] = []
    if way == "source" or way == "both":
        undo += _power_off(source)
    if way == "target" or way == "both":
        undo += _power_off(target)
    if way == "outage":
        control.is_down = True
        undo.append(lambda: setattr(control, "is_down", False))
    if way == "cut_off":
        source.line.is_down = True
        undo.append(lambda: setattr(source.line, "is_down", False))
    if way == "pause":
        source.host.pause()
        undo.append(source.host.resume)
    if way == "restart":
        target.host.pause()
        undo += [target.host.resume]
        for start in _power_off(source):
            start()
    if way == "abort":
        await abort_moves(stage.cluster.control, moves)
    return undo


def _power_off(node: StoreHost) -> list[Callable[[], None]]:
    node.host.resume()
    if not node.host.is_running:
        return []
    node.host.power_off()
    return [node.host.start]


async def _until_over(stage: Stage, moves: list[Move], what: str) -> None:
    """Wait until the orders are gone, nothing is MOVING and every slice votes."""
    deadline_s = stage.now_s + BOUND_S
    orders = {move_name(move.target, 0) for move in moves}
    while stage.now_s < deadline_s:
        left = [key for key in sorted(orders) if await stage.cluster.control.get(key) is not None]
        planes = [await _plane(stage, move) for move in moves]
        if not left and all(found.state == ACTIVE for found in planes):
            await until_whole(stage, what)
            return
        await stage.pause(0.05)
    waiting = {n.name: n.engine.mover.describe() if n.engine else "down" for n in stage.cluster.nodes}
    stage.stuck.append(f"{what}: not over within {BOUND_S} virtual s: {waiting}")


def swarm(seed: int) -> Swarm:
    """Faults of network, processes and control store, from a drawn mixture; routes settle late."""
    return late_swarm(seed, "move swarm", (0, 100, 2000))


def late_swarm(seed: int, stream: str, lags_ms: Sequence[int]) -> Swarm:
    """The same for any scenario in which owners change; ``lags_ms``: how late routes may settle."""
    drawn = draw_swarm(seed, _FAULTS)
    drawn.lag_ns_max = Stream(seed, stream).choice(lags_ms) * 1_000_000
    drawn.weather.refused_share = 0.0
    drawn.lasting_ns = min(drawn.lasting_ns, 2_000_000_000)
    return drawn


def shape(seed: int) -> Shape:
    """A few calls a round: the checker wants no more than a hundred on a key."""
    drawn = large_shape(seed)
    drawn.operations, drawn.keys, drawn.hot_percent = 24, min(max(drawn.keys, 4), 8), 60
    return drawn


SCENARIO = Scenario(
    "move",
    "slices are handed over under load, and everything fails meanwhile",
    play,
    swarm,
    shape,
    nodes=4,
    register=UpkeepRegister,
)
