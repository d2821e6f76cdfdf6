"""``apply``, ``moves``, ``abort``: carry a plan out, see how far it is, call it off. ``split``, ``merge``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ssastore.core.numbers import slice_name

if TYPE_CHECKING:
    from ssastore.env import ControlStore
    from ssastore.rebalance import Move

T = TypeVar("T")

_POLL_S = 0.25
_GROUP_DIGITS = 3


@click.command("apply")
@click.argument("plan_file", metavar="PLAN", type=click.Path())
@click.option("--wait/--no-wait", "is_waiting", default=True, help="Show progress until all of it is done.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def apply_command(context: str | None, plan_file: str, is_waiting: bool, as_json: bool) -> int:
    """Carry out a plan that `ssastore plan --out FILE` wrote.

    It is refused when the ownership has changed since. Interrupting the wait stops nothing; the same
    command shows the progress again.
    """
    from ssastore.core.planfile import decode_plan
    from ssastore.rebalance import merge_as_planned, order_plan

    plan = decode_plan(Path(plan_file).read_bytes())
    moves = _with_control(context, lambda control: order_plan(control, plan))
    done, started = 0, time.monotonic()
    if is_waiting:
        done = _follow(context, moves, is_shown=not as_json)
        if done == len(moves) and plan.merges:
            _wait_until(context, lambda control: merge_as_planned(control, plan))
    took_s = round(time.monotonic() - started, 1)
    if as_json:
        print(json.dumps({"moves": len(moves), "done": done, "seconds": took_s}))
    elif is_waiting:
        print(f"{done} of {len(moves)} slices have their new owner, after {took_s} s")
    else:
        print(f"{len(moves)} slices are ordered to move")
        if plan.merges:
            print("what the plan merges is merged by the same command, once they have")
    return 0


@click.command("split")
@click.argument("part", metavar="PART")
@click.option("--to", "length", type=int, metavar="LENGTH", help="Length of the pieces' prefixes, 81 to 96.")
@click.pass_obj
def split_command(context: str | None, part: str, length: int | None) -> int:
    """Cut a group, or a part of one, into pieces: two halves, or as many as have prefixes of LENGTH.

    PART is a group (`a3f`) or a slice of it (`1a3f8/81`, in whatever plane). No data moves; each
    piece can be moved by itself afterwards.
    """
    from ssastore.core.numbers import part_piece
    from ssastore.core.recut import halves_of
    from ssastore.rebalance import order_split

    number = _part_of(part)
    pieces = halves_of(number, part_piece(number).depth + 1 if length is None else length - 64)
    _with_control(context, lambda control: order_split(control, number, pieces))
    print(f"{part_piece(number)} is split into {', '.join(str(part_piece(piece)) for piece in pieces)}")
    return 0


@click.command("merge")
@click.argument("part", metavar="PART")
@click.option("--abort", "is_aborting", is_flag=True, help="Call off a merge that is not done.")
@click.pass_obj
def merge_command(context: str | None, part: str, is_aborting: bool) -> int:
    """Merge all pieces of a group, or of a part of one, and wait until they are.

    They must have the same node in each plane: move them there first. All planes are needed; a merge
    that does not come to an end is called off after half a minute, and begun again while this command waits.
    """
    from ssastore.core.numbers import part_piece
    from ssastore.rebalance import abort_merge, order_merge

    number = _part_of(part)
    if is_aborting:
        is_ended = _with_control(context, lambda control: abort_merge(control, number))
        print("called off" if is_ended else "nothing is being merged there")
        return 0
    _wait_until(context, lambda control: order_merge(control, number))
    print(f"{part_piece(number)} is one")
    return 0


def _part_of(text: str) -> int:
    """The number of a part. ConfigError: it is none."""
    from ssastore.core.numbers import number_of_part, slice_from_text
    from ssastore.errors import ConfigError
    from ssastore.keyspace import SLICE_DEPTH_MAX, SLICE_DEPTH_MIN

    piece = slice_from_text(f"0{text}" if len(text) == _GROUP_DIGITS else text)
    if not SLICE_DEPTH_MIN <= piece.depth <= SLICE_DEPTH_MAX:
        raise ConfigError(f"{text} is no group and no part of one")
    return number_of_part(piece)


def _wait_until(context: str | None, is_done: Callable[[ControlStore], Awaitable[bool]]) -> None:
    """Ask again and again."""
    import asyncio

    async def wait(control: ControlStore) -> None:
        while not await is_done(control):
            await asyncio.sleep(_POLL_S)

    _with_control(context, wait)


@click.command("moves")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def moves_command(context: str | None, as_json: bool) -> int:
    """What is ordered and not done."""
    from ssastore.rebalance import ordered_moves

    found = _with_control(context, ordered_moves)
    if as_json:
        rows = [
            {"slice": slice_name(move.number), "from": source, "to": move.target, "state": state.value}
            for move, source, state in found
        ]
        print(json.dumps(rows))
        return 0
    for move, source, state in found:
        print(f"{slice_name(move.number)}  {source} -> {move.target}  {state.value}")
    if not found:
        print("nothing is moving")
    return 0


@click.command("abort")
@click.pass_obj
def abort_command(context: str | None) -> int:
    """Call off every move that is not done: those slices stay where they are."""
    from ssastore.rebalance import abort_moves, ordered_moves

    async def abort(control: ControlStore) -> int:
        moves = [move for move, _, _ in await ordered_moves(control)]
        await abort_moves(control, moves)
        return len(moves)

    print(f"{_with_control(context, abort)} moves called off")
    return 0


def _with_control(context: str | None, work: Callable[[ControlStore], Awaitable[T]]) -> T:
    from ssastore.cli.control import with_control
    from ssastore.lab.context import find

    return with_control(find(context), work)


def _follow(context: str | None, moves: Sequence[Move], *, is_shown: bool) -> int:
    """Wait until all are done; how many are."""
    import asyncio

    from ssastore.rebalance import MoveState, move_states, ordered_moves

    async def follow(control: ControlStore) -> int:
        with click.progressbar(
            length=len(moves), label="slices", file=sys.stderr, hidden=not (is_shown and sys.stderr.isatty())
        ) as bar:
            while True:
                # In this order: what is no longer ordered shows in what is read after.
                is_left = bool(await ordered_moves(control))
                states = await move_states(control, moves)
                done = sum(state is MoveState.DONE for state in states.values())
                bar.update(done - bar.pos)
                if not is_left:
                    return done
                await asyncio.sleep(_POLL_S)

    return _with_control(context, follow)
