"""``pause``, ``resume``, and what the commands about moves have in common: the rate, the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.control import with_control

if TYPE_CHECKING:
    from ssastore.lab.context import Context


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Bytes a second: a number, or one with K, M or G for powers of 1024; or "gentle", which is 0."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from ssastore.errors import ConfigError
        from ssastore.operating import rate_of

        try:
            return rate_of(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


rate_option = click.option(
    "--rate",
    "bytes_per_s",
    type=Rate(),
    metavar="BYTES_PER_S",
    help="From now on each worker that slices go to copies as fast as it can, at most so much a second "
    "(like 32M); or `gentle`, as at first: it rests most of the time, so that clients hardly notice.",
)


@click.command("pause")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to wait."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def pause_command(context: str | None, wait_s: float, as_json: bool) -> int:
    """Let nothing move until `ssastore resume`. Orders stay.

    What is sealed already comes to its end; other slices that are being copied are called off and copied
    anew later. Waits until nothing is on its way; exit code 5 when something still is after --wait.
    """
    from ssastore.errors import Unavailable
    from ssastore.operating import pause

    left, moving = with_control(context, lambda control: pause(control, wait_s))
    if as_json:
        print(json.dumps({"paused": True, "left": left, "moving": moving}))
    else:
        print(f"paused; {left} slices are ordered to move")
    if moving:
        raise Unavailable(f"{moving} slices are still on their way after {wait_s:g} s; nothing more is begun")
    return 0


@click.command("resume")
@click.pass_obj
def resume_command(context: str | None) -> int:
    """Let slices move again that `ssastore pause` held up."""
    from ssastore.operating import resume

    with_control(context, resume)
    print("slices move again")
    return 0


def report_of(found: Context) -> dict[str, Any] | None:
    """What the nodes say of themselves; None when the gateway does not answer. Before the lab is entered."""
    from ssastore.errors import Unavailable
    from ssastore.lab.status import fetch

    try:
        report: dict[str, Any] = fetch(found.admin_port, "/status")[1]
    except Unavailable:
        return None
    return report
