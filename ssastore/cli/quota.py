"""``ssastore quota``: how much a bucket may hold, set and shown while the cluster runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ssastore.cli.objects import run_with_client
from ssastore.cli.sizes import Size

if TYPE_CHECKING:
    from ssastore.client import AsyncClient
    from ssastore.core.quotas import QuotaUse


@click.group("quota")
def quota_command() -> None:
    """How many bytes and objects a bucket may hold.

    No write is acknowledged with which it would hold more, whichever client sends it. Versions and parts
    of open uploads count; deletes always work.
    """


@quota_command.command("set")
@click.argument("bucket")
@click.option("--bytes", "size", type=Size(), help="At most so many bytes: 500, 10G, 2T.")
@click.option("--objects", type=click.IntRange(0), help="At most so many objects and versions.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def set_command(
    context: str | None, bucket: str, size: int | None, objects: int | None, as_json: bool
) -> int:
    """Set the quota of BUCKET; what is not given has no limit. Ends when it is in force.

    Of a bucket that holds more already nothing is deleted; it takes nothing that would make it larger.
    """
    if size is None and objects is None:
        raise click.UsageError("give --bytes, --objects, or both; `quota clear` is for none")

    async def work(client: AsyncClient) -> None:
        use = await client.objects.quotas.set(bucket, size=size, objects=objects)
        _print([use], as_json=as_json)

    return run_with_client(context, work)


@quota_command.command("show")
@click.argument("bucket", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def show_command(context: str | None, bucket: str | None, as_json: bool) -> int:
    """The quota of BUCKET, or all quotas: what is used, reserved and allowed.

    What is reserved and not used is what parts of the bucket may take without asking the others: at most
    1 % of the limit.
    """

    async def work(client: AsyncClient) -> None:
        quotas = client.objects.quotas
        if bucket is None:
            _print([use async for use in quotas.all()], as_json=as_json)
            return
        use = await quotas.show(bucket)
        _print([] if use is None else [use], as_json=as_json)

    return run_with_client(context, work)


@quota_command.command("clear")
@click.argument("bucket")
@click.pass_obj
def clear_command(context: str | None, bucket: str) -> int:
    """Let BUCKET hold what it likes again."""

    async def work(client: AsyncClient) -> None:
        await client.objects.quotas.clear(bucket)
        print(f"{bucket} has no quota")

    return run_with_client(context, work)


def _print(uses: list[QuotaUse], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "bucket": use.bucket,
                "bytes": {"used": use.used.size, "reserved": use.reserved.size, "limit": use.size_limit},
                "objects": {
                    "used": use.used.objects,
                    "reserved": use.reserved.objects,
                    "limit": use.objects_limit,
                },
            }
            for use in uses
        ]
        print(json.dumps(rows))
        return
    if not uses:
        print("no quota")
        return
    width = max(len("BUCKET"), *[len(use.bucket) for use in uses])
    print(f"{'BUCKET':<{width}}  {'':<7}  {'USED':>16}  {'RESERVED':>16}  {'LIMIT':>16}")
    for use in uses:
        print(_row(use.bucket.ljust(width), "bytes", use.used.size, use.reserved.size, use.size_limit))
        print(_row(" " * width, "objects", use.used.objects, use.reserved.objects, use.objects_limit))


def _row(bucket: str, what: str, used: int, reserved: int, limit: int | None) -> str:
    if limit is None:
        return f"{bucket}  {what:<7}  {used:>16}  {'-':>16}  {'-':>16}"
    return f"{bucket}  {what:<7}  {used:>16}  {reserved:>16}  {limit:>16}"
