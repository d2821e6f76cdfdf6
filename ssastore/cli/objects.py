"""``put``, ``get``, ``ls``, ``rm``, ``stat``, ``mb``, ``locate``, ``explain``: objects from the shell.

All of them enter the lab's network by themselves, before any thread or event loop
exists: the kernel lets only a process with one thread enter a user namespace.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ssastore.client import AsyncClient

_READ_BYTES = 1 << 20
_BAR_BYTES_MIN = 8 << 20
"Shorter transfers are over before a bar could be read."


def run_with_client(context: str | None, work: Callable[[AsyncClient], Awaitable[int | None]]) -> int:
    """Run ``work`` with a client: of SSASTORE_URL when it is set, else of the lab."""
    from ssastore.client import AsyncClient
    from ssastore.system import run

    if context is None and os.environ.get("SSASTORE_URL"):
        make: Callable[[], AsyncClient] = AsyncClient.from_env
    else:
        make = _lab_client(context)

    async def main() -> int:
        async with make() as client:
            return await work(client) or 0

    return run(main())


def _lab_client(context: str | None) -> Callable[[], AsyncClient]:
    from ssastore.client import AsyncClient
    from ssastore.keyspace import slice_from_network
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch
    from ssastore.transport.tcp import LoopbackLinks

    found = find(context)
    links = None
    if found.is_simulated:
        from ipaddress import IPv6Network

        service = IPv6Network(found.service)
        _, report = fetch(found.admin_port, "/status")
        links = LoopbackLinks(
            {
                slice_from_network(service, IPv6Network(prefix)): found.ports[node["name"]]
                for node in report["nodes"]
                for prefix in node["prefixes"]
            }
        )
    identity = found.identity()
    found.enter()
    return lambda: AsyncClient(
        found.service,
        port=found.port,
        identity=identity,
        links=links,
        rules=found.rules,
        tls_name=found.tls_name,
        tls_ca=found.tls_ca,
    )


def _split(path: str) -> tuple[str, str]:
    """Bucket and key of BUCKET/KEY or ssa://HOST/BUCKET/KEY."""
    from ssastore.client import parse_url

    if path.startswith("ssa://"):
        path = "/".join(parse_url(path)[3])
    bucket, _, key = path.partition("/")
    return bucket, key


def need_key(path: str) -> tuple[str, str]:
    bucket, key = _split(path)
    if not bucket or not key:
        raise click.UsageError(f"{path!r} must be BUCKET/KEY")
    return bucket, key


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _shown(text: str) -> str:
    """A key as one line of text that cannot drive the terminal; --json has it as it is."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def print_found(value: Any, as_json: bool, *lines: str) -> None:
    print(json.dumps(value) if as_json else "\n".join(map(_shown, lines)))


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An object that is not there is called by its name; a node knows only records."""
    from ssastore.errors import ObjectNotFound

    try:
        yield
    except ObjectNotFound:
        raise ObjectNotFound(f"no object {path}") from None


def _info(info: Any) -> dict[str, Any]:
    return {
        "key": info.key,
        "size": info.size,
        "etag": info.etag,
        "modified_ms": info.modified_ms,
        "headers": info.headers,
        "metadata": info.metadata,
    }


def _time(modified_ms: int) -> str:
    from datetime import datetime

    return f"{datetime.fromtimestamp(modified_ms / 1000):%Y-%m-%d %H:%M:%S}"


class _Bar:
    """A progress bar on standard error, when that is a terminal and the transfer is long."""

    def __init__(self, label: str, total: int | None, quiet: bool) -> None:
        is_shown = not quiet and sys.stderr.isatty() and (total is None or total >= _BAR_BYTES_MIN)
        self._bar = (
            click.progressbar(length=total or 0, label=label, file=sys.stderr, update_min_steps=_READ_BYTES)
            if is_shown
            else None
        )

    def __enter__(self) -> _Bar:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc_info)

    def update(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)


async def _counted(source: IO[bytes], bar: _Bar) -> AsyncIterator[bytes]:
    import asyncio

    while piece := await asyncio.to_thread(source.read, _READ_BYTES):
        bar.update(len(piece))
        yield piece


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress bar.")


@click.command("put")
@click.argument("target")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, exists=True), default="-")
@click.option("--content-type", help="Kept and given back.")
@click.option("--if-none-match", type=click.Choice(["*"]), help="Only when the object does not exist.")
@click.option("--if-match", metavar="ETAG", help="Only when the object has this ETag.")
@json_option
@_QUIET
@click.pass_obj
def put_command(
    context: str | None,
    target: str,
    file: str,
    content_type: str | None,
    if_none_match: str | None,
    if_match: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Store FILE (or standard input) as TARGET, which is BUCKET/KEY. Returns when it is durable."""
    bucket, key = need_key(target)
    if file == "-" and sys.stdin is None:
        raise click.UsageError("no FILE, and standard input is closed")

    async def work(client: AsyncClient) -> None:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as source:
            total = None if file == "-" else os.fstat(source.fileno()).st_size
            with _Bar(key, total, quiet) as bar:
                info = await client.bucket(bucket).put(
                    key,
                    _counted(source, bar),
                    content_type=content_type,
                    if_none_match=if_none_match,
                    if_match=if_match,
                )
        print_found(_info(info), as_json, f"{target}  {info.size} bytes  ETag {info.etag}")

    return run_with_client(context, work)


@click.command("get")
@click.argument("source")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option("--start", type=int, default=0, help="First byte; negative counts from the end.")
@click.option("--length", type=click.IntRange(0), help="How many bytes.")
@_QUIET
@click.pass_obj
def get_command(
    context: str | None, source: str, file: str, start: int, length: int | None, quiet: bool
) -> int:
    """Read SOURCE, which is BUCKET/KEY, to FILE (or standard output).

    FILE appears when it is complete: a transfer that fails leaves nothing behind.
    """
    bucket, key = need_key(source)
    if file == "-" and sys.stdout is None:
        raise click.UsageError("no FILE, and standard output is closed")

    async def work(client: AsyncClient) -> None:
        with _naming(source):
            reader = await client.bucket(bucket).open(key, start=start, length=length)
        with _destination(file) as target, _Bar(key, reader.size, quiet or file == "-") as bar:
            async for chunk in reader:
                target.write(chunk)
                bar.update(len(chunk))

    return run_with_client(context, work)


@contextmanager
def _destination(file: str) -> Iterator[IO[bytes]]:
    """Where ``get`` writes: a regular file is replaced at the end; pipes and devices are written to."""
    path = Path(os.path.realpath(file))
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():
        with open(path, "wb") as target:
            yield target
    else:
        partial = path.with_name(f"{path.name}.part-{os.getpid()}")
        try:
            with open(partial, "wb") as target:
                yield target
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)


@click.command("ls")
@click.argument("path", default="")
@click.option("-r", "--recursive", is_flag=True, help="All keys below, not rolled up at /.")
@json_option
@click.pass_obj
def ls_command(context: str | None, path: str, recursive: bool, as_json: bool) -> int:
    """List buckets, or the objects of BUCKET/PREFIX in order of their keys."""
    bucket, prefix = _split(path)

    async def work(client: AsyncClient) -> None:
        if not bucket:
            async for name in client.list_buckets():
                print_found({"bucket": name}, as_json, name)
            return
        from ssastore.core.objects import CommonPrefix

        entries = client.bucket(bucket).list(prefix, delimiter="" if recursive else "/")
        async for entry in entries:
            if isinstance(entry, CommonPrefix):
                print_found({"prefix": entry.prefix}, as_json, f"{'':19} {'':>12}  {entry.prefix}")
            else:
                line = f"{_time(entry.modified_ms)} {entry.size:12}  {entry.key}"
                print_found(_info(entry), as_json, line)

    return run_with_client(context, work)


@click.command("rm")
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="All objects whose keys start with PATH.")
@click.option("--bucket", "whole_bucket", is_flag=True, help="The bucket itself, which must be empty.")
@json_option
@click.pass_obj
def rm_command(context: str | None, path: str, recursive: bool, whole_bucket: bool, as_json: bool) -> int:
    """Delete the object BUCKET/KEY, or with -r all objects below, or with --bucket the empty bucket."""
    from ssastore.errors import ObjectNotFound

    bucket, key = _split(path)
    if whole_bucket and key:
        raise click.UsageError(f"--bucket deletes a whole bucket, and {path!r} names a key")
    if not whole_bucket and not recursive:
        need_key(path)

    async def work(client: AsyncClient) -> int:
        handle = client.bucket(bucket)
        count = 0
        if recursive:
            async for entry in handle.list(key):
                count += await handle.delete(entry.key)  # type: ignore[union-attr]  # no delimiter
        elif not whole_bucket:
            count += await handle.delete(key)
            if not count:
                raise ObjectNotFound(f"no object {path}")
        if whole_bucket:
            await client.delete_bucket(bucket)
        print_found({"deleted": count}, as_json, f"deleted {count} object(s)")
        return 0

    return run_with_client(context, work)


@click.command("stat")
@click.argument("path")
@json_option
@click.pass_obj
def stat_command(context: str | None, path: str, as_json: bool) -> int:
    """Show size, ETag, time and metadata of BUCKET/KEY."""
    bucket, key = need_key(path)

    async def work(client: AsyncClient) -> None:
        with _naming(path):
            info = await client.bucket(bucket).head(key)
        lines = [f"key       {info.key}", f"size      {info.size}", f"ETag      {info.etag}"]
        lines.append(f"modified  {_time(info.modified_ms)}")
        lines += [f"{name}: {value}" for name, value in (info.headers | info.metadata).items()]
        print_found(_info(info), as_json, *lines)

    return run_with_client(context, work)


@click.command("mb")
@click.argument("bucket")
@click.option(
    "--shards", type=click.IntRange(0, 4096), default=16, show_default=True, help="0: hashed, unlisted."
)
@click.pass_obj
def mb_command(context: str | None, bucket: str, shards: int) -> int:
    """Make BUCKET. Its objects are listed in order, unless it is hashed: --shards 0."""

    async def work(client: AsyncClient) -> None:
        await client.create_bucket(bucket, shards=shards)

    return run_with_client(context, work)


@click.command("locate")
@click.argument("path")
@json_option
@click.pass_obj
def locate_command(context: str | None, path: str, as_json: bool) -> int:
    """Compute where BUCKET/KEY lives. Asks no node but for the bucket's record."""
    bucket, key = need_key(path)

    async def work(client: AsyncClient) -> None:
        location = await client.bucket(bucket).locate(key)
        print_found(location.as_json(), as_json, *location.addresses)

    return run_with_client(context, work)


@click.command("explain")
@click.argument("path")
@json_option
@click.pass_obj
def explain_command(context: str | None, path: str, as_json: bool) -> int:
    """Show step by step how BUCKET/KEY is found: name, hash, address, slice, answer."""
    bucket, key = need_key(path)

    async def work(client: AsyncClient) -> None:
        steps = await client.bucket(bucket).explain(key)
        print_found(steps, as_json, *_explained(steps))

    return run_with_client(context, work)


def _explained(steps: dict[str, Any]) -> list[str]:
    place, where = steps["bucket"], steps["location"]
    lines = [
        f"bucket    {place['name']}  id {place['id']}  ({steps['read_bucket_us']} us to read its record)"
    ]
    if place["shards"]:
        lines.append(
            f"key hash  xxh3-64 {where['key_hash']}  mod {place['shards']} -> shard {where['shard']}"
        )
    lines.append(f"position  {where['position']}  -> group {where['group']}, lane {where['lane']}")
    for plane, address in enumerate(where["addresses"]):
        lines.append(
            f"plane {plane}   {address}   slice {where['slices'][plane]} = {where['prefixes'][plane]}"
        )
    lines.append(f"answer    {steps['object']}  ({steps['dial_and_read_us']} us to connect, greet and read)")
    return lines
