"""Recut: groups are split, their parts moved, and merged again, while clients write and everything fails.

Each round takes a group that holds records of the clients and does one of these to it:

    split      a part is cut into two, four or eight
    move       one slice of a part goes to another node
    merge      parts are brought together and merged

while one of these happens to one of its nodes:

    none       only the faults of the swarm
    power      it loses its power, for a while
    pause      it stands still
    outage     the control store is away
    abort      what was begun is taken back
    wipe       its disk is lost: what it held is recovered from the other planes

Beside the clients' records there is the mark of a hashed bucket that is shut; it holds whatever is done to
its group.  In the end everything is merged again.  A round that does not end is a failure of liveness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssastore.core.groups import ACTIVE, GroupRecord, group_key
from ssastore.core.metadata import Metadata
from ssastore.core.numbers import number_of_part, part_piece, slice_number
from ssastore.core.orders import move_name
from ssastore.core.place import Place, expected_position
from ssastore.core.recut import halves_of
from ssastore.core.recutting import abort_merge, order_merge, order_split
from ssastore.env import spawn
from ssastore.errors import ConfigError, SsaStoreError
from ssastore.keyspace import SLICE_DEPTH_MAX, SLICE_DEPTH_MIN, group_of
from ssastore.messages import Kind
from ssastore.rebalance import Move, abort_moves, order_moves
from ssastore.sim.fabric import Fabric
from ssastore.sim.scenarios.move import BOUND_S, shape, swarm
from ssastore.sim.scenarios.recovery import until_whole
from ssastore.sim.seeds import Stream
from ssastore.sim.stage import Scenario, Stage
from ssastore.sim.upkeep import UpkeepRegister

ACTIONS = ("split", "split", "move", "merge", "merge")
WAYS = ("none", "power", "pause", "outage", "abort", "wipe")

_ROUNDS = (3, 7)
_STEPS_MAX = 40
_KEYS = 4
_SHUT = Place(0x5117, 0)
"A hashed bucket that is shut: it has no record, and nobody else writes to it."


async def play(stage: Stage) -> None:
    await stage.open()
    fabric = Fabric(stage.cluster)
    await stage.work()
    draw = stage.world.stream("recut")
    groups = sorted(await _groups_in_use(stage))
    groups = draw.sample(groups, min(2, len(groups)))
    shut = [group for group in groups if await stage.on(0, "shut", _shut(stage, group))]
    stage.faults.start()
    for number in range(draw.randint(*_ROUNDS)):
        await _play_round(stage, number, draw.choice(groups), draw)
        for group in shut:
            await _expect_shut(stage, group)
    stage.calm()
    for group in groups:
        await _merge(stage, group, group)
        await _until_idle(stage, group, "the end")
        if (await _record(stage, group)).split is not None:
            stage.stuck.append(f"group {group:03x} is not merged in the end")
    await until_whole(stage, "the end")
    await stage.work()
    for group in shut:
        await _expect_shut(stage, group)
    stage.figures["moves"] = fabric.moves
    stage.figures["recuts"] = fabric.recuts


async def _groups_in_use(stage: Stage) -> set[int]:
    keys = [key for node in stage.cluster.nodes for key in node.disk.contents.keys]
    return {int.from_bytes(key[:2], "big") & 0xFFF for key in keys if key[0] >> 4 < stage.scenario.replicas}


async def _record(stage: Stage, group: int) -> GroupRecord:
    item = await stage.cluster.control.get(group_key(group))
    assert item is not None
    return GroupRecord.decode(item.value)


async def _play_round(stage: Stage, number: int, group: int, draw: Stream) -> None:
    action, way = draw.choice(ACTIONS), draw.choice(WAYS)
    stage.world.loop.note(f"round {number}: {action} in group {group:03x}, {way}")
    work = stage.start_work()
    await stage.pause(draw.uniform(0.0, 0.3))
    acting = spawn(action, _act(stage, group, action, draw))
    await stage.pause(draw.uniform(0.0, draw.choice((0.01, 0.3, 2.0))))
    undo = await _hurt(stage, group, way, draw)
    await stage.pause(draw.uniform(0.01, draw.choice((1.0, 9.0))))
    for back in undo:
        back()
    await acting
    await _until_idle(stage, group, f"round {number} ({action}, {way})")
    await until_whole(stage, f"round {number} ({action}, {way})")
    await asyncio.gather(*work)


async def _act(stage: Stage, group: int, action: str, draw: Stream) -> None:
    """Order it; what the group is too busy for, or the control store away for, is left."""
    try:
        record = await _record(stage, group)
        view = draw.choice(record.views())
        depth = part_piece(view.part).depth
        if action == "split" and depth < SLICE_DEPTH_MAX:
            deeper = min(depth + draw.randint(1, 3), SLICE_DEPTH_MAX)
            await order_split(stage.cluster.control, view.part, halves_of(view.part, deeper))
        elif action == "move":
            free = [node.name for node in stage.cluster.nodes if node.name not in view.owners]
            plane = draw.randrange(len(view.planes))
            await order_moves(
                stage.cluster.control, [Move(slice_number(plane, view.part), draw.choice(free))]
            )
        elif action == "merge" and record.split is not None:
            piece = part_piece(view.part)
            for _ in range(draw.randint(1, piece.depth - SLICE_DEPTH_MIN)):
                piece = piece.parent()
            within = [found.part for found in record.parts if piece.covers(part_piece(found.part))]
            whole = group if piece.depth == SLICE_DEPTH_MIN else _number_around(within)
            await _merge(stage, group, whole)
    except (ConfigError, SsaStoreError, OSError):
        return


def _number_around(parts: list[int]) -> int:
    """The smallest part that holds all of these."""
    piece = part_piece(parts[0])
    while not all(piece.covers(part_piece(part)) for part in parts):
        piece = piece.parent()
    return number_of_part(piece)


async def _merge(stage: Stage, group: int, part: int) -> None:
    """Bring the parts inside to the owners of the first, and merge them. Raises what is in the way."""
    for _ in range(_STEPS_MAX):
        record = await _record(stage, group)
        if record.at(part) is not None:
            return
        inside = [view for view in record.views() if part_piece(part).covers(part_piece(view.part))]
        move = _next_move(inside, [node.name for node in stage.cluster.nodes])
        if move is None:
            try:
                await order_merge(stage.cluster.control, part)
            except ConfigError:
                pass  # Something else goes on in the group.
            await stage.pause(0.5)
            continue
        try:
            await order_moves(stage.cluster.control, [move])
        except ConfigError:
            pass
        await _until_idle(stage, group, "bringing parts together")


def _next_move(inside: list[GroupRecord], names: list[str]) -> Move | None:
    """A move that brings a part nearer to the owners of the first one; None: they are there."""
    wanted = inside[0].owners
    for view in inside[1:]:
        other = [plane for plane, owner in enumerate(view.owners) if owner != wanted[plane]]
        if not other:
            continue
        for plane in other:
            if wanted[plane] not in view.owners:
                return Move(slice_number(plane, view.part), wanted[plane])
        free = next(name for name in names if name not in view.owners)
        return Move(slice_number(other[0], view.part), free)
    return None


async def _hurt(stage: Stage, group: int, way: str, draw: Stream) -> list[Callable[[], None]]:
    """Do to a node of the group what the round is about; what ends it."""
    control, record = stage.cluster.control_network, await _record(stage, group)
    names = sorted({name for view in record.views() for name in view.owners})
    node = draw.choice([node for node in stage.cluster.nodes if node.name in names])
    if way == "outage":
        control.is_down = True
        return [lambda: setattr(control, "is_down", False)]
    if way == "pause":
        node.host.pause()
        return [node.host.resume]
    if way in ("power", "wipe"):
        node.host.resume()
        if not node.host.is_running:
            return []  # The swarm was faster, and starts it again.
        node.host.power_off()
        if way == "wipe":
            node.disk.restore(None)
        return [node.host.start]
    if way == "abort":
        await _call_off(stage, record)
    return []


async def _call_off(stage: Stage, record: GroupRecord) -> None:
    try:
        if record.merging is not None:
            await abort_merge(stage.cluster.control, record.merging.part)
        moves = [
            Move(slice_number(plane, view.part), found.target)
            for view in record.views()
            for plane, found in enumerate(view.planes)
            if found.target
        ]
        await abort_moves(stage.cluster.control, moves)
    except (ConfigError, SsaStoreError):
        return


async def _until_idle(stage: Stage, group: int, what: str) -> None:
    """Wait until nothing is moved, recovered or merged in a group, and no order is left."""
    deadline_s = stage.now_s + BOUND_S
    orders = [move_name(node.name, 0) for node in stage.cluster.nodes]
    while stage.now_s < deadline_s:
        record = await _record(stage, group)
        busy = [found for view in record.views() for found in view.planes if found.state != ACTIVE]
        left = [key for key in orders if await stage.cluster.control.get(key) is not None]
        if not (busy or left or record.merging):
            return
        await stage.pause(0.05)
    stage.stuck.append(f"{what}: group {group:03x} is not idle within {BOUND_S} virtual s")


async def _shut(stage: Stage, group: int) -> bool:
    """Whether a majority has the mark now: some clients do not find all nodes."""
    try:
        await stage.objects[0].registers.shards.shut(_SHUT, group, 1, shut=True)
    except SsaStoreError:
        return False
    return True


async def _expect_shut(stage: Stage, group: int) -> None:
    """No write passes in the bucket that was shut, in whatever was a part of the group."""
    registers = stage.objects[0].registers
    for key in _keys_in(group):
        try:
            await stage.on(0, "write", registers.put(_SHUT, Kind.OBJECT, key, Metadata("late", 4), b"late"))
        except SsaStoreError:
            continue  # Its mark is at a majority, and one plane may have taken the write.
        stage.broken.append(f"SHUT: group {group:03x} took a write of {key!r} to a bucket that is shut")


def _keys_in(group: int) -> list[bytes]:
    """Some keys of the bucket that is shut whose records are in a group."""
    keys: list[bytes] = []
    number = 0
    while len(keys) < _KEYS:
        key = b"%d" % number
        if group_of(expected_position(_SHUT.bucket, 0, key)) == group:
            keys.append(key)
        number += 1
    return keys


SCENARIO = Scenario(
    "recut",
    "groups are split, moved in parts and merged under load, and everything fails meanwhile",
    play,
    swarm,
    shape,
    nodes=4,
    register=UpkeepRegister,
)
