"""Replicas: groups of one plane get two more while clients use them, and everything fails meanwhile.

The clients believe that there is one replica, and learn better from whoever refuses.  Each round
orders planes for some groups that hold the clients' records, and does to the nodes that are concerned
what a round of ``move`` does, when the second plane is begun, sealed, filled or there.  In the end all
groups that hold anything have three planes; those that hold nothing have one for ever, so that clients
have to do with both all the time.  A round that does not end is a failure of liveness.
"""

from __future__ import annotations

import asyncio

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, group_key
from ssastore.core.numbers import slice_number
from ssastore.core.ordering import change_order
from ssastore.core.orders import widen_name
from ssastore.core.standing import State
from ssastore.rebalance import Move
from ssastore.sim.scenarios.move import BOUND_S, STEPS, hurt, open_marked, shape, swarm
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.upkeep import UpkeepRegister

WAYS = ("none", "source", "target", "both", "outage", "cut_off", "pause", "abort")
PLANES = 3

_ROUNDS_MAX = 3
_STEP_S = 20
_LOOK_EVERY_S = 0.001

Wanted = dict[int, list[str]]
"By group, the nodes that get its second and its third plane."


async def play(stage: Stage) -> None:
    fabric = await open_marked(stage)
    draw = stage.world.stream("replicas")
    for number in range(draw.randint(1, _ROUNDS_MAX)):
        await _play_round(stage, number, draw)
    stage.calm()
    rest = await _draw(stage, draw, 1000)
    await _order(stage, rest)
    work = stage.start_work()
    await _until_made(stage, rest, "the end")
    await asyncio.gather(*work)
    await stage.work()
    stage.figures["planes"] = fabric.added


async def _play_round(stage: Stage, number: int, draw: Stream) -> None:
    wanted = await _draw(stage, draw, draw.randint(1, 4))
    if not wanted:
        return
    way, step = draw.choice(WAYS), draw.choice(STEPS)
    work = stage.start_work()
    await stage.pause(draw.uniform(0.0, 0.3))
    stage.world.loop.note(f"round {number}: {len(wanted)} groups, {way} when {step}")
    await _order(stage, wanted)
    group, targets = next(iter(wanted.items()))
    move = Move(slice_number(0, group), targets[0])
    await _until_step(stage, group, targets[0], step)
    if way == "abort":
        await _order(stage, wanted, is_taken_back=True)
    undo = [] if way == "abort" else await hurt(stage, [move], way)
    await stage.pause(draw.uniform(0.01, draw.choice((1.0, 9.0))))
    for back in undo:
        back()
    if way == "abort":
        await _order(stage, wanted)
    await _until_made(stage, wanted, f"round {number} ({way} when {step})")
    await asyncio.gather(*work)


async def _draw(stage: Stage, draw: Stream, groups_max: int) -> Wanted:
    """Some groups that hold something and have one plane, each with two nodes for the others."""
    names = [node.name for node in stage.cluster.nodes]
    keys = [key for node in stage.cluster.nodes for key in node.disk.contents.keys]
    held = sorted({int.from_bytes(key[:2], "big") for key in keys})
    alone = [group for group in held if group < 1 << 12 and len((await _record(stage, group)).planes) == 1]
    wanted = {}
    for group in sorted(draw.sample(alone, min(len(alone), groups_max))):
        (owner,) = (await _record(stage, group)).owners
        wanted[group] = draw.sample([name for name in names if name != owner], PLANES - 1)
    return wanted


async def _order(stage: Stage, wanted: Wanted, *, is_taken_back: bool = False) -> None:
    for group, targets in wanted.items():
        for plane, target in enumerate(targets, 1):
            key, number = widen_name(target, 0), slice_number(plane, group)
            if is_taken_back:
                await change_order(stage.cluster.control, key, removed=[number])
            else:
                await change_order(stage.cluster.control, key, added={number: "node0"})


async def _record(stage: Stage, group: int) -> GroupRecord:
    item = await stage.cluster.control.get(group_key(group))
    assert item is not None
    return GroupRecord.decode(item.value)


async def _until_step(stage: Stage, group: int, target: str, step: str) -> None:
    """Wait until a second plane has come to a step; not for ever: it may come past it unseen."""
    deadline_s = stage.now_s + _STEP_S
    nodes = {node.name: node for node in stage.cluster.nodes}
    while stage.now_s < deadline_s:
        record = await _record(stage, group)
        found = record.planes[0]
        source, filling = nodes[found.owner].engine, nodes[target].engine
        state = source.custody.states.get(slice_number(0, group)) if source is not None else None
        filled = filling.custody.standing(slice_number(1, group)).epoch if filling is not None else 0
        is_at = {
            "begun": found.state == MOVING,
            "sealed": state is State.SEALED,
            "filled": found.state == MOVING and filled == found.epoch + 1,
            "switched": False,
        }
        if len(record.planes) > 1 or is_at[step]:
            return
        await stage.pause(_LOOK_EVERY_S)


async def _until_made(stage: Stage, wanted: Wanted, what: str) -> None:
    """Wait until all planes are there, the orders are gone and every slice votes."""
    deadline_s = stage.now_s + BOUND_S
    orders = [widen_name(node.name, 0) for node in stage.cluster.nodes]
    while stage.now_s < deadline_s:
        left = [key for key in orders if await stage.cluster.control.get(key) is not None]
        records = [await _record(stage, group) for group in wanted]
        are_whole = all(
            len(record.planes) == PLANES and all(found.state == ACTIVE for found in record.planes)
            for record in records
        )
        if not left and are_whole:
            await until_whole(stage, what)
            return
        await stage.pause(0.05)
    waiting = {n.name: n.engine.widener.describe() if n.engine else "down" for n in stage.cluster.nodes}
    stage.stuck.append(f"{what}: not over within {BOUND_S} virtual s: {waiting}")


SCENARIO = Scenario(
    "replicas",
    "groups of one plane get two more under load, and everything fails meanwhile",
    play,
    swarm,
    shape,
    nodes=4,
    replicas=1,
    register=UpkeepRegister,
)
