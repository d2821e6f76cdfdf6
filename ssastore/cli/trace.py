"""``trace``: one request, from the client's calls to what each node did for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.objects import json_option, need_key, print_found, run_with_client

if TYPE_CHECKING:
    from ssastore.client import AsyncClient


@click.command("trace")
@click.argument("path", metavar="BUCKET/KEY")
@click.option(
    "--put",
    "source",
    type=click.File("rb"),
    metavar="FILE",
    help="Write this file, instead of reading; - is stdin.",
)
@json_option
@click.pass_obj
def trace_command(context: str | None, path: str, source: Any, as_json: bool) -> int:
    """Read an object, or write it with --put, and tell step by step how that went.

    Shown is each call to a node, with its address and how long it took, and what the node did meanwhile; not
    what the object holds. The nodes write the same to their logs, with the id that is shown first.
    """
    bucket, key = need_key(path)

    async def work(client: AsyncClient) -> int:
        from ssastore.requestpath import follow

        found = await follow(client, bucket, key, source)
        print_found(found, as_json, *lines(found))
        return 0

    return run_with_client(context, work)


def lines(found: dict[str, Any]) -> list[str]:
    """For people. What a call took holds what its node took; the rest is the network and the client."""
    where = found["location"]
    name, took = where["name"], f"{found['took_us']} us"
    shown = [
        f"request   {found['id']}  {found['operation']} {name}: {found['outcome']}; {took}",
        f"position  {where['position']}  -> group {where['group']}, lane {where['lane']}",
        "",
        f"{'connect':11} {'':>7} {'took us':>8}  plane slice  {'worker':14} address",
    ]
    shown += [
        f"{'':11} {'':7} {_took(step)}  {step['who']:14} {step['address']}" for step in found["connects"]
    ]
    shown += ["", f"{'client asks':11} {'at us':>7} {'took us':>8}  plane slice  answer"]
    shown += [
        f"{call['op']:11} {call['at_us']:7} {_took(call)}  {call['outcome']}" for call in found["calls"]
    ]
    shown += ["", f"{'nodes did':11} {'':7} {'took us':>8}  plane slice  {'answer':14} worker"]
    shown += [
        f"{part['op']:11} {'':7} {_took(part)}  {part['status']:14} {part['node']}/{part['worker']}"
        for part in found["parts"]
    ]
    return shown


def _took(step: dict[str, Any]) -> str:
    return f"{step['took_us']:8}  {step['plane']:5} {step['slice']} "
