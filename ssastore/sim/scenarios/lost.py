"""Lost: a node is gone for good, its slices are recovered at others under load, and it may come back.

Each round loses one node, in one of these ways:

    dead       its power goes, and nobody expects it back
    cut_off    it lives on without the control store, and who does not know better goes on sending to it
    giving     its power goes while slices are handed over by it
    taking     its power goes while slices are handed over to it

What it had is ordered to be recovered at the others. At one step of that (begun, filled) one of these
happens:

    none       only the faults of the swarm
    target     a target loses its power, for a while
    mate       a mate does
    outage     the control store is away
    replaced   a target is lost as well: another one gets its recoveries, and it comes back later
    returned   so, and after that the first one gets them again

In the end the lost node comes back with its old disk, or an empty one, or not at all.  The next
round begins when no order is left and every slice that was recovered votes.  A round that does not
end is a failure of liveness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ssastore.core.groups import ACTIVE, GROUP_PREFIX, GroupRecord, PlaneOwner, group_key
from ssastore.core.numbers import group_of_slice, part_of_slice, plane_of_slice, slice_number
from ssastore.core.ordering import forget_lost
from ssastore.core.orders import REPLACE_PREFIX
from ssastore.keyspace import GROUP_BITS, GROUPS
from ssastore.rebalance import Move, order_moves
from ssastore.sim.cluster import StoreHost
from ssastore.sim.fabric import draw_moves
from ssastore.sim.scenarios.move import late_swarm, open_marked, shape
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.swarm import Swarm
from ssastore.sim.upkeep import UpkeepRegister

HOW = ("dead", "cut_off", "giving", "taking")
MEANWHILE = ("none", "target", "mate", "outage", "replaced", "returned")
STEPS = ("begun", "filled")
BACK = ("never", "disk", "disk", "wiped")

BOUND_S = 240
"Virtual time in which a round must end, once what held it up is over."

_ROUNDS_MAX = 2
_STEP_S = 20
_LOOK_EVERY_S = 0.002


async def play(stage: Stage) -> None:
    fabric = await open_marked(stage)
    draw = stage.world.stream("lost")
    gone: list[StoreHost] = []
    for number in range(draw.randint(1, _ROUNDS_MAX)):
        if not gone:
            gone += await play_round(stage, number, draw)
    stage.calm()
    await stage.work()
    await check_owners(stage, gone)
    stage.figures["moves"] = fabric.moves


async def play_round(stage: Stage, number: int, draw: Stream) -> list[StoreHost]:
    """One node is lost; returns when its slices are recovered: the node, if it does not come back."""
    how, meanwhile, step, back = (draw.choice(ways) for ways in (HOW, MEANWHILE, STEPS, BACK))
    control, lost = stage.cluster.control, draw.choice(stage.cluster.nodes)
    stage.world.loop.note(f"round {number}: {lost.name} {how}, {meanwhile} when {step}, {back}")
    work = stage.start_work()
    await stage.pause(draw.uniform(0.0, 0.3))
    await _begin_moves(stage, draw, lost, how)
    _lose(lost, how)
    await stage.pause(draw.uniform(0.0, 1.0))
    await forget_lost(control, [lost.name])
    moves = await recoveries(stage, draw, lost)
    await order_moves(control, moves)
    undo: list[Callable[[], None]] = []
    if moves:
        await _until_step(stage, moves[0], step)
        undo = await _hurt(stage, draw, lost, moves, meanwhile)
    await stage.pause(draw.uniform(0.01, draw.choice((1.0, 9.0))))
    for end in undo:
        end()
    alive = [node for node in stage.cluster.nodes if node is not lost]
    await until_over(stage, moves, alive, f"round {number} ({lost.name} {how}, {meanwhile} when {step})")
    await asyncio.gather(*work)
    if back == "never":
        return [lost]
    await _come_back(stage, lost, back)
    return []


# -- losing a node ----------------------------------------------------------------------------------


async def _begin_moves(stage: Stage, draw: Stream, lost: StoreHost, how: str) -> None:
    """Let slices be on their way from or to a node when it dies."""
    if how not in ("giving", "taking"):
        return
    drawn = await draw_moves(stage.cluster, draw, GROUPS)
    if how == "giving":
        moves = [m for m in drawn if (await _plane(stage, m.number)).owner == lost.name]
    else:
        moves = [m for m in drawn if m.target == lost.name]
    if moves:
        await order_moves(stage.cluster.control, moves)
        await stage.pause(draw.uniform(0.0, 4.0))


def _lose(lost: StoreHost, how: str) -> None:
    if how == "cut_off":
        lost.line.is_down = True
        return
    lost.host.resume()
    if lost.host.is_running:
        lost.host.power_off()


async def recoveries(stage: Stage, draw: Stream, lost: StoreHost) -> list[Move]:
    """All slices of a node of which any plane holds something, each to a node that has no plane of it."""
    replicas = stage.cluster.layout.cluster.record.replicas
    keys = [key for node in stage.cluster.nodes for key in node.disk.contents.keys]
    held = {int.from_bytes(key[:2], "big") for key in keys}
    names = [node.name for node in stage.cluster.nodes if node is not lost]
    moves = []
    for group in sorted({slice16 % GROUPS for slice16 in held if slice16 >> GROUP_BITS < replicas}):
        record = await _record(stage, group)
        for plane, found in enumerate(record.planes):
            if found.owner == lost.name:
                target = draw.choice([name for name in names if name not in record.owners])
                moves.append(Move(slice_number(plane, group), target, lost.name))
    return moves


# -- meanwhile --------------------------------------------------------------------------------------


async def _hurt(
    stage: Stage, draw: Stream, lost: StoreHost, moves: Sequence[Move], meanwhile: str
) -> list[Callable[[], None]]:
    """Do what the round is about; what ends it."""
    nodes = {node.name: node for node in stage.cluster.nodes}
    target = nodes[moves[0].target]
    control = stage.cluster.control_network
    if meanwhile == "target":
        return _power_off(target)
    if meanwhile == "mate":
        record = await _record(stage, group_of_slice(moves[0].number))
        mates = [name for name in record.owners if name not in (lost.name, target.name)]
        return _power_off(nodes[draw.choice(mates)])
    if meanwhile == "outage":
        control.is_down = True
        return [lambda: setattr(control, "is_down", False)]
    if meanwhile == "none":
        return []
    undo = _power_off(target)
    pointed = await _point_elsewhere(stage, draw, [lost, target], moves)
    if meanwhile == "returned" and pointed:
        for start in undo:
            start()
        await _until_step(stage, pointed[0], draw.choice(STEPS))
        other = nodes[pointed[0].target]
        return _power_off(other) + await _point_back(stage, other, target, pointed)
    return undo


async def _point_elsewhere(
    stage: Stage, draw: Stream, gone: Sequence[StoreHost], moves: Sequence[Move]
) -> list[Move]:
    """What was ordered to the last of the nodes that are gone goes to others."""
    names = [node.name for node in stage.cluster.nodes if node not in gone]
    await forget_lost(stage.cluster.control, [gone[-1].name])
    pointed = []
    for move in moves:
        found = await _plane(stage, move.number)
        is_begun = found.state != ACTIVE
        if move.target == gone[-1].name and (is_begun or found.owner == move.lost):
            record = await _record(stage, group_of_slice(move.number))
            target = draw.choice([name for name in names if name not in record.owners])
            pointed.append(Move(move.number, target, found.owner))
    await order_moves(stage.cluster.control, pointed)
    return pointed


async def _point_back(
    stage: Stage, other: StoreHost, target: StoreHost, pointed: Sequence[Move]
) -> list[Callable[[], None]]:
    """And what the next one has begun goes to the first one, which runs again."""
    await forget_lost(stage.cluster.control, [other.name])
    again = []
    for move in pointed:
        found = await _plane(stage, move.number)
        is_left = found.state != ACTIVE or found.owner == move.lost
        if move.target == other.name and is_left and found.owner != target.name:
            again.append(Move(move.number, target.name, found.owner))
    await order_moves(stage.cluster.control, again)
    return []


def _power_off(node: StoreHost) -> list[Callable[[], None]]:
    node.host.resume()
    if not node.host.is_running:
        return []
    node.host.power_off()
    return [lambda: _start(node)]


def _start(node: StoreHost) -> None:
    if not node.host.is_running:  # The swarm may have been faster.
        node.host.start()


# -- waiting and judging ----------------------------------------------------------------------------


async def _record(stage: Stage, group: int) -> GroupRecord:
    item = await stage.cluster.control.get(group_key(group))
    assert item is not None
    return GroupRecord.decode(item.value)


async def _plane(stage: Stage, number: int) -> PlaneOwner:
    record = (await _record(stage, group_of_slice(number))).at(part_of_slice(number))
    assert record is not None
    return record.planes[plane_of_slice(number)]


async def _until_step(stage: Stage, move: Move, step: str) -> None:
    """Wait until a recovery has come to a step; not for ever: it may come past it unseen."""
    deadline_s = stage.now_s + _STEP_S
    target = next(node for node in stage.cluster.nodes if node.name == move.target)
    while stage.now_s < deadline_s:
        found = await _plane(stage, move.number)
        if found.owner == move.target:
            engine = target.engine
            is_filled = engine is not None and engine.custody.standing(move.number).epoch == found.epoch + 1
            if step == "begun" or is_filled or found.state == ACTIVE:
                return
        await stage.pause(_LOOK_EVERY_S)


async def until_over(stage: Stage, moves: Sequence[Move], alive: Sequence[StoreHost], what: str) -> None:
    """Wait until the orders are gone, the slices ACTIVE, and everything votes at those that are left."""
    deadline_s = stage.now_s + BOUND_S
    while stage.now_s < deadline_s:
        orders, _ = await stage.cluster.control.list(REPLACE_PREFIX)
        planes = [await _plane(stage, move.number) for move in moves]
        if not orders and all(
            found.state == ACTIVE and found.owner != move.lost
            for found, move in zip(planes, moves, strict=True)
        ):
            await until_whole(stage, what, alive)
            return
        await stage.pause(0.1)
    waiting = {n.name: n.engine.replacer.describe() if n.engine else "down" for n in alive}
    stage.stuck.append(f"{what}: not over within {BOUND_S} virtual s: {waiting}")


async def _come_back(stage: Stage, lost: StoreHost, back: str) -> None:
    """The node starts again, or hears of the control store again."""
    work = stage.start_work()
    if back == "wiped":
        _power_off(lost)
        lost.disk.restore(None)
    lost.line.is_down = False
    _start(lost)
    await until_whole(stage, f"{lost.name} is back with {back}")
    await asyncio.gather(*work)


async def check_owners(stage: Stage, gone: Sequence[StoreHost]) -> None:
    """In the end every slice has an owner that votes, but for what a node has that never came back."""
    alive = [node for node in stage.cluster.nodes if node not in gone]
    await until_whole(stage, "the end", alive)
    engines = {node.name: node.engine for node in alive}
    items, _ = await stage.cluster.control.list(GROUP_PREFIX)
    for record in (GroupRecord.decode(item.value) for item in items):
        for view in () if record.is_untouched else record.views():
            for plane, found in enumerate(view.planes):
                engine, number = engines.get(found.owner), slice_number(plane, view.part)
                if engine is not None and not engine.custody.is_voting(number):
                    stage.broken.append(f"nobody votes for slice {number:x}: {found}")


def swarm(seed: int) -> Swarm:
    """As of ``move``, with routes that may settle very late."""
    return late_swarm(seed, "lost swarm", (0, 100, 2000, 20_000))


SCENARIO = Scenario(
    "lost",
    "a node is gone for good, its slices are recovered at others, and it may come back",
    play,
    swarm,
    shape,
    nodes=5,
    register=UpkeepRegister,
)
