"""``demo``: a cluster, its console, a gentle load and a guided tour."""

from __future__ import annotations

import sys

import click

_PORT = click.IntRange(1, 65535)


@click.command("demo")
@click.option(
    "--unattended",
    is_flag=True,
    help="Wait for nobody, and end after the tour; also when nobody sits at a terminal.",
)
@click.option("--s3-port", type=_PORT, help="S3 on 127.0.0.1; default: 7482, or a free one.")
@click.option("--admin-port", type=_PORT, help="The console on 127.0.0.1; default: 7481, or a free one.")
@click.option("--short", is_flag=True, hidden=True, help="For tests: few slices move, and nobody looks on.")
def demo_command(unattended: bool, s3_port: int | None, admin_port: int | None, short: bool) -> int:
    """Start a cluster on this machine and be shown around, without root; Ctrl-C ends it and leaves nothing.

    Exit code 0 only when no call of the clients failed, and everything is as it was stored.
    """
    from ssastore.lab.demo import Wanted, demo, port_for

    waits = not unattended and sys.stdin is not None and sys.stdin.isatty()
    return demo(Wanted(waits, short, s3_port or port_for("s3"), admin_port or port_for("admin")))
