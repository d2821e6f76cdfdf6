"""``make moves``: a cluster that changes while clients work, and what they noticed of it, as a table.

    python -m ssastore.lab.moves [--objects 20000] [--clients 8] [--control etcd [--outage 60]]
                                 [--rate 1G] [--json]

A lab of four nodes, R=3, with objects in it and a steady load of gets, puts, conditional puts and
deletes on it.  One after the other a fifth node joins, another is drained, a third is killed for good and
what it had is rebuilt, the group with the most calls is split, one half of it moves, and it is merged
again; then all of it is renumbered to another service /64.  At the end every object is read, and what the
clients were told is judged (``judge.verdicts``).
Exit code 0 only when no call failed, nothing acknowledged was lost, and every history is linearizable.

Data, processes and the kernel's routes are real; the network is that of one machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ssastore.client import AsyncBucket, AsyncClient
from ssastore.config import open_control
from ssastore.core.numbers import part_piece
from ssastore.core.recut import halves_of
from ssastore.errors import SsaStoreError
from ssastore.judge.verdicts import read_history
from ssastore.keyspace import SLICE_DEPTH_MIN, group_of
from ssastore.lab import context
from ssastore.lab.load import BUCKET as LOADED
from ssastore.lab.movesreport import Result
from ssastore.lab.processes import free_port
from ssastore.lab.stage import Stage
from ssastore.rebalance import read_cluster
from ssastore.system import run

REPLICAS = 3
BUCKET = "kept"
RENUMBERED = "2001:db8:77:5::/64"
_TTL_S = "3"
"How long the former prefix stays: clients that are connected are elsewhere in less than one."
_AT_ONCE = 32
_CALM_S = 5.0
"Of calls before anything changes, and after all of it."
_BEGUN_S = 3.0
"Of moves, before etcd stands still."


# -- on a host of the lab ---------------------------------------------------------------------------


def content_of(number: int) -> bytes:
    """Of mixed size: one byte to 40 KiB, and one in a hundred 300 KiB, which is a blob."""
    size = 300_000 if number % 100 == 0 else 1 + number * 997 % 40_000
    return random.Random(number).randbytes(size)  # noqa: S311  # data, no secret


async def fill(objects: str) -> None:
    """Store them."""
    await _all_of(int(objects), create=True)


async def check(objects: str) -> None:
    """Print how many of them are not what was stored."""
    print(await _all_of(int(objects), create=False))


async def _all_of(objects: int, *, create: bool) -> int:
    numbers = iter(range(objects))
    wrong = 0
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket(BUCKET) if create else client.bucket(BUCKET)

        async def work() -> None:
            nonlocal wrong
            for number in numbers:
                if create:
                    await bucket.put(f"k{number}", content_of(number))
                else:
                    wrong += not await _is_there(bucket, number)

        await asyncio.gather(*[work() for _ in range(_AT_ONCE)])
    return wrong


async def _is_there(bucket: AsyncBucket, number: int) -> bool:
    try:
        return await bucket.get(f"k{number}") == content_of(number)
    except SsaStoreError as error:
        print(f"k{number}: {error}", file=sys.stderr)
        return False


async def hottest(history: str, control: str, secrets_file: str) -> None:
    """Print the group that most calls of a history went to, its busier half, and who could have that."""
    calls: Counter[int] = Counter()
    async with AsyncClient.from_env() as client:
        bucket = client.bucket(LOADED)
        for key, ops in read_history(history).items():
            calls[(await bucket.locate(key)).position] += len(ops)
    groups: Counter[int] = Counter()
    for position, count in calls.items():
        groups[group_of(position)] += count
    group = groups.most_common(1)[0][0]
    halves = [part_piece(part) for part in halves_of(group, SLICE_DEPTH_MIN + 1)]
    half = max(halves, key=lambda piece: sum(count for place, count in calls.items() if place in piece))
    store = open_control(control, secrets_file)
    try:
        cluster = await read_cluster(store)
    finally:
        await store.close()
    serving = {name for record in cluster.groups for name in record.owners}
    free = sorted(serving - set(cluster.groups[group].owners))
    print(f"{group:03x} {half} {free[0] if free else ''}")


# -- the lab ----------------------------------------------------------------------------------------


def changes(stage: Stage, history: str, outage_s: float, *, is_short: bool) -> None:
    """All that happens to the cluster. In the short form no node is drained, and the one that joins weighs
    little and is the one that is lost: some 190 slices instead of 2,400."""
    stage.phase("before", lambda: time.sleep(_CALM_S))
    weights = [word for number in range(1, 5) for word in ("--weight", f"n{number}=16")]
    lost = "n5" if is_short else "n3"

    def join() -> int:
        stage.cli("node", "add", "n5")
        return stage.planned(*(weights if is_short else ()))

    def drain() -> int:
        return stage.planned("--drain", "n2", meanwhile=outage if outage_s else None)

    def outage() -> None:
        stand_still(etcd_pid(stage.directory), outage_s)

    def lose() -> int:
        stage.cli("node", "kill", lost)
        return stage.planned("--lost", lost)

    stage.phase("a node joins", join)
    if not is_short:
        stage.phase("a node is drained", drain)
    stage.phase("a node is lost", lose)
    found = context.find(stage.context)
    group, half, target = stage.ask("hottest", history, found.control, found.secrets_file).split(" ")
    stage.phase(f"group {group} is split", lambda: stage.done("split", group))
    if target:
        stage.phase(f"a half goes to {target}", lambda: stage.planned("--move", f"{half}={target}"))
    stage.phase("and is merged", lambda: stage.planned("--merge", group))
    stage.phase("another service /64", lambda: stage.done("renumber", RENUMBERED, "--ttl", _TTL_S))
    stage.phase("after", lambda: time.sleep(_CALM_S))


def stand_still(pid: int, seconds: float) -> None:
    """Let a process stand still for a while; every call to it hangs."""
    time.sleep(_BEGUN_S)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def etcd_pid(directory: Path) -> int:
    """The process of the lab's etcd. Raises SystemExit: it has none."""
    wanted = f"{directory}/lab/config/etcd.yaml".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    raise SystemExit("moves: --outage needs --control etcd")


def play(stage: Stage, objects: int, clients: int, outage_s: float, *, is_short: bool) -> Result:
    """Fill, load, change, judge."""
    stage.ask("fill", str(objects))
    with stage.load(clients=clients) as load:
        changes(stage, load.history, outage_s, is_short=is_short)
        load.end()
    return load.result(stage.phases, objects, int(stage.ask("check", str(objects))))


INSIDE: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "fill": fill,
    "check": check,
    "hottest": hottest,
}
"What runs on the client host, by name."


@click.command()
@click.option("--objects", default=20_000, show_default=True, help="Stored before anything changes.")
@click.option("--clients", default=8, show_default=True, help="That call all the time.")
@click.option("--control", type=click.Choice(["embedded", "etcd"]), default="embedded", show_default=True)
@click.option("--outage", default=0.0, help="Seconds that etcd stands still while a node is drained.")
@click.option("--rate", default="gentle", show_default=True, help="At which slices move: `ssastore apply`.")
@click.option("--short", is_flag=True, help="No node is drained, and fewer slices move.")
@click.option("--keep", is_flag=True, help="Leave data and logs where they are, and say where.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def main(
    objects: int,
    clients: int,
    control: str,
    outage: float,
    rate: str,
    short: bool,
    keep: bool,
    as_json: bool,
) -> None:
    """Change a cluster in every way while clients work, and print what they noticed."""
    if outage and control != "etcd":
        raise click.UsageError("--outage needs --control etcd")
    directory = Path(tempfile.mkdtemp(prefix="ssastore-moves-"))
    name = f"moves-{os.getpid()}"
    stage = Stage(directory, name, lambda text: click.echo(text, err=True), rate=rate)
    up = ["up", "--nodes", "4", "--replicas", str(REPLICAS), "--name", name, "--data", f"{directory}/lab"]
    ports = ["--s3-port", str(free_port()), "--admin-port", str(free_port())]
    try:
        stage.cli(*up, *ports, "--control", control, "--detach")
        try:
            result = play(stage, objects, clients, outage, is_short=short)
        finally:
            stage.cli("down")
    finally:
        if keep:
            click.echo(f"data and logs: {directory}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    click.echo(json.dumps(asdict(result)) if as_json else result.table())
    sys.exit(0 if result.is_good else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in INSIDE:
        try:
            run(INSIDE[sys.argv[1]](*sys.argv[2:]))
        except SsaStoreError as error:
            sys.exit(f"{sys.argv[1]}: {error}")
    else:
        main()
