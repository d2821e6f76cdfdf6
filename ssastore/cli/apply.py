"""``apply``, ``moves``, ``abort``: carry a plan out, see how far it is, call it off."""

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
    from ssastore.rebalance import moves_of, order_plan

    plan = decode_plan(Path(plan_file).read_bytes())
    moves = moves_of(plan)
    _with_control(context, lambda control: order_plan(control, plan))
    done, started = 0, time.monotonic()
    if is_waiting:
        done = _follow(context, moves, is_shown=not as_json)
    took_s = round(time.monotonic() - started, 1)
    if as_json:
        print(json.dumps({"moves": len(moves), "done": done, "seconds": took_s}))
    elif is_waiting:
        print(f"{done} of {len(moves)} slices have their new owner, after {took_s} s")
    else:
        print(f"{len(moves)} slices are ordered to move")
    return 0


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
