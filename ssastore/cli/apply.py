"""``apply``, ``moves``, ``abort``: carry a plan out, see how far it is, call it off. ``split``, ``merge``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssastore.cli.control import with_control
from ssastore.cli.lost import accept_alive_option
from ssastore.cli.steer import rate_option
from ssastore.core.numbers import slice_name

if TYPE_CHECKING:
    from ssastore.core.estimate import Estimate
    from ssastore.core.settings import MoveSettings
    from ssastore.env import ControlStore
    from ssastore.rebalance import Move, MoveState

T = TypeVar("T")

_FOLLOW_S = 1.0
"Between two looks at all groups, which take the control store some 0.1 s."
_POLL_S = 0.25
_GROUP_DIGITS = 3


@click.command("apply")
@click.argument("plan_file", metavar="PLAN", type=click.Path())
@click.option("--wait/--no-wait", "is_waiting", default=True, help="Show progress until all of it is done.")
@rate_option
@accept_alive_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def apply_command(
    context: str | None,
    plan_file: str,
    is_waiting: bool,
    bytes_per_s: int | None,
    accept_alive: bool,
    as_json: bool,
) -> int:
    """Carry out a plan that `ssastore plan --out FILE` wrote.

    It is refused when the ownership has changed since. Interrupting the wait stops nothing; the same
    command shows the progress again. Exit code 2 when some of it was called off meanwhile, or ordered
    elsewhere.
    """
    from ssastore.cli.lost import require_lost
    from ssastore.core.planfile import decode_plan
    from ssastore.core.plans import RECOVER
    from ssastore.errors import ConfigError
    from ssastore.lab.context import find
    from ssastore.operating import set_rate, told
    from ssastore.rebalance import merge_as_planned, order_plan

    plan = decode_plan(Path(plan_file).read_bytes())
    lost = {change.source for change in plan.changes if change.kind == RECOVER}
    require_lost(find(context), lost, accept_alive=accept_alive)

    async def order(control: ControlStore) -> tuple[list[Move], MoveSettings]:
        return await order_plan(control, plan), await set_rate(control, bytes_per_s)

    moves, settings = with_control(context, order)
    if not as_json:
        copied = f", about {plan.figures.bytes / 2**20:.1f} MiB" if plan.figures.bytes else ""
        held = "; moves are paused: ssastore resume" if settings.is_paused else ""
        print(f"{len(moves)} slices are ordered to move{copied}, {told(None, settings)}{held}")
    done, started = 0, time.monotonic()
    if is_waiting:
        done = with_control(context, lambda control: _follow(control, moves, is_shown=not as_json))
        if done == len(moves) and plan.merges:
            _wait_until(context, lambda control: merge_as_planned(control, plan))
    took_s = round(time.monotonic() - started, 1)
    if as_json:
        figures = {"bytes": plan.figures.bytes, "bytes_per_s": settings.bytes_per_s}
        print(json.dumps({"moves": len(moves), "done": done, "seconds": took_s, **figures}))
    elif is_waiting:
        print(f"{done} of {len(moves)} slices have their new owner, after {took_s} s")
    elif plan.merges:
        print("what the plan merges is merged by the same command, once they have")
    if is_waiting and done < len(moves):
        raise ConfigError(
            f"{len(moves) - done} slices are not where the plan puts them, and no more ordered to go there: "
            "their moves were called off, or others took their place. What is done stays; plan again"
        )
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
    with_control(context, lambda control: order_split(control, number, pieces))
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
        is_ended = with_control(context, lambda control: abort_merge(control, number))
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

    with_control(context, wait)


@click.command("moves")
@rate_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def moves_command(context: str | None, bytes_per_s: int | None, as_json: bool) -> int:
    """What is ordered and not done, what that costs, and how fast it may go on."""
    from ssastore.cli.steer import report_of
    from ssastore.lab.context import find
    from ssastore.operating import left_estimate, set_rate, told
    from ssastore.rebalance import ordered_moves, read_cluster

    lab = find(context)
    report = report_of(lab)

    async def look(control: ControlStore) -> tuple[MoveSettings, list[tuple[Move, str, MoveState]], Any]:
        settings, found = await set_rate(control, bytes_per_s), await ordered_moves(control)
        if not found or report is None:  # Without it nobody knows how large slices are.
            return settings, found, None
        return settings, found, left_estimate(await read_cluster(control), report, found, settings)

    settings, found, left = with_control(lab, look)
    if as_json:
        print(json.dumps(_moves_json(settings, found, left)))
        return 0
    for move, source, state in found:
        print(f"{slice_name(move.number)}  {source} -> {move.target}  {state.value}")
    print(f"{len(found)} slices left, {told(left, settings)}" if found else "nothing is moving")
    if settings.is_paused:
        print("moves are paused: ssastore resume")
    return 0


def _moves_json(
    settings: MoveSettings, found: Sequence[tuple[Move, str, MoveState]], left: Estimate | None
) -> dict[str, Any]:
    return {
        "paused": settings.is_paused,
        "bytes_per_s": settings.bytes_per_s,
        "bytes": left.bytes if left else None,
        "eta_s": round(left.seconds, 1) if left else None,
        "moves": [
            {"slice": slice_name(move.number), "from": source, "to": move.target, "state": state.value}
            for move, source, state in found
        ],
    }


@click.command("abort")
@click.pass_obj
def abort_command(context: str | None) -> int:
    """Call off every move that is not done: those slices stay where they are.

    What is being rebuilt already, as its owner is lost, goes on.
    """
    from ssastore.operating import abort, aborted

    print(aborted(*with_control(context, abort)))
    return 0


async def _follow(control: ControlStore, moves: Sequence[Move], *, is_shown: bool) -> int:
    """Wait until all are done, or are not ordered any more; how many are done."""
    import asyncio

    from ssastore.rebalance import MoveState, move_states, ordered_moves

    with click.progressbar(
        length=len(moves), label="slices", file=sys.stderr, hidden=not (is_shown and sys.stderr.isatty())
    ) as bar:
        while True:
            # In this order: what is no longer ordered shows in what is read after.
            ordered = {move for move, _, _ in await ordered_moves(control)}
            # Somebody else's moves are not waited for.
            is_left = not ordered.isdisjoint(moves)
            if not is_left or not bar.hidden:
                states = await move_states(control, moves)
                done = sum(state is MoveState.DONE for state in states.values())
                bar.update(done - bar.pos)
            if not is_left:
                return done
            await asyncio.sleep(_FOLLOW_S)
