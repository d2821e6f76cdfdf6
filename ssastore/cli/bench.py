"""``ssastore bench``: what a cluster does under load, seen from one client."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.objects import run_with_client
from ssastore.cli.sizes import Size, size
from ssastore.env import spawn
from ssastore.load import BUCKET_OPS, MIB, Measured, Round

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from ssastore.client import AsyncBucket, AsyncClient
    from ssastore.load import Load

_SIZE_MAX = 64 * MIB
_WARM_UP_S = 0.5
_TICKS_A_S = 5
_REMOVING = 64
_HEADINGS = (
    *("operation", "size", "callers", "ops/s", "MiB/s"),
    *("p50 ms", "p99 ms", "p99.9 ms", "client us", "failed"),
)


class _Seconds(click.FloatRange):
    """Also refuses what is not a number, which no bound does."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        return found if found == found else self.fail(f"{value!r} is no number of seconds", param, ctx)


@asynccontextmanager
async def _shown(label: str, load: Load, seconds: float, quiet: bool) -> AsyncIterator[None]:
    """While inside, a bar of the time that has passed, with the operations of the last moment."""
    if quiet or not sys.stderr.isatty():
        yield
        return

    async def turn() -> None:
        before = load.done
        while True:
            await asyncio.sleep(1 / _TICKS_A_S)
            bar.label = f"{label}  {_TICKS_A_S * (load.done - before):7}/s"
            before = load.done
            bar.update(1)

    with click.progressbar(length=max(1, round(seconds * _TICKS_A_S)), label=label, file=sys.stderr) as bar:
        turning = spawn("turn the bar", turn())
        try:
            yield
        finally:
            turning.cancel()


async def _clear(client: AsyncClient, bucket: AsyncBucket, load: Load, quiet: bool) -> None:
    """Remove the objects and their bucket; what stays behind is named, whatever stopped it."""
    keys = list(load.keys())
    is_shown = not quiet and sys.stderr.isatty()
    try:
        with click.progressbar(keys, label="removing objects", file=sys.stderr, hidden=not is_shown) as left:
            await asyncio.gather(*[_remove(bucket, left) for _ in range(_REMOVING)])
        await client.delete_bucket(bucket.name)
    except BaseException:
        print(f"left behind: bucket {bucket.name}", file=sys.stderr)
        raise


async def _remove(bucket: AsyncBucket, keys: Iterable[str]) -> None:
    from ssastore.errors import ObjectNotFound

    for key in keys:
        try:
            await bucket.delete(key)
        except ObjectNotFound:
            continue


def _row(found: Measured, wanted: Round) -> dict[str, Any]:
    ops_per_s = found.ops / found.seconds
    return {
        "op": wanted.op,
        "size": wanted.size,
        "inflight": wanted.inflight,
        "ops": found.ops,
        "seconds": round(found.seconds, 3),
        "ops_per_s": round(ops_per_s, 1),
        "mib_per_s": round(ops_per_s * wanted.size / MIB, 2),
        "p50_ms": round(found.p50_ms, 3),
        "p99_ms": round(found.p99_ms, 3),
        "p999_ms": round(found.p999_ms, 3),
        "client_cpu_us_per_op": round(found.client_us, 1),
        "failed": found.failed,
        "reason": found.reason,
    }


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["op"],
        size(row["size"]),
        str(row["inflight"]),
        f"{row['ops_per_s']:.0f}",
        f"{row['mib_per_s']:.1f}",
        *[f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")],
        f"{row['client_cpu_us_per_op']:.0f}",
        str(row["failed"]),
    ]
    return _aligned(cells) + (f"\n    {row['reason']}" if row["reason"] else "")


def _aligned(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>{12 if at else 9}}" for at, cell in enumerate(cells))


@click.command("bench")
@click.option(
    "--op", "ops", type=click.Choice(BUCKET_OPS), multiple=True, default=("put", "get"), show_default=True,
    help="What callers do; may be given again.",
)  # fmt: skip
@click.option(
    "--size", "sizes", type=Size(0, _SIZE_MAX), multiple=True, default=(4096,), show_default=True,
    help="Bytes of an object: 4096, 64K, 1M; may be given again.",
)  # fmt: skip
@click.option(
    "--inflight", type=click.IntRange(1, 1024), multiple=True, default=(64,), show_default=True,
    help="Callers at once; may be given again.",
)  # fmt: skip
@click.option(
    "--seconds", type=_Seconds(0.1, 3600), default=5.0, show_default=True, help="Of each measurement."
)
@click.option("--keep", is_flag=True, help="Leave the bucket and its objects there.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: a line for each measurement.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@click.pass_obj
def bench_command(
    context: str | None,
    ops: tuple[Any, ...],
    sizes: tuple[int, ...],
    inflight: tuple[int, ...],
    seconds: float,
    keep: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure the cluster with one client process: operations a second, and what callers waited.

    \b
    put        new objects            overwrite  objects that are there
    get        2,000 objects in turn  mixed      7 reads and 3 writes of 10
    hot        the same by Zipf's law: 17 % of the reads are of one object
    one        all reads are of one object

    Every read is checked. Objects are put into a new, hashed bucket, which goes with them at the end. One
    client is often the limit: see its CPU time, and run several. Of large objects so many are in flight as
    have 256 MiB.
    """

    async def work(client: AsyncClient) -> int:
        import secrets

        from ssastore.load import Load, round_of

        name = f"bench-{secrets.token_hex(4)}"
        bucket = await client.create_bucket(name, shards=0)
        load, rows = Load(bucket), []
        try:
            if not as_json:
                print(_aligned(_HEADINGS))
            for op, bytes_, callers in ((op, b, c) for op in ops for b in sizes for c in inflight):
                wanted = round_of(op, size=bytes_, inflight=callers, seconds=seconds)
                if op != "put":
                    await load.fill(wanted)
                await load.run(round_of(op, size=bytes_, inflight=callers, seconds=_WARM_UP_S))
                async with _shown(f"{op} {size(bytes_)} x{wanted.inflight}", load, seconds, quiet):
                    found = await load.run(wanted)
                row = _row(found, wanted)
                print(json.dumps(row) if as_json else _line(row), flush=True)
                rows.append(row)
        finally:
            if keep:
                print(f"kept: bucket {name}", file=sys.stderr)
            else:
                await _clear(client, bucket, load, quiet)
        return 1 if any(row["failed"] for row in rows) else 0

    return run_with_client(context, work)
