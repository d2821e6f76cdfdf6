"""A slice is handed over while clients use it: what they notice, how fast it is copied, when routes follow.

    python -m bench.handover [--mib 50] [--size 4096] [--gentle] [--json]

A lab of four nodes, R=3: every group has one node that owns none of its planes, and the slice of plane 0 goes
there: as fast as it can, or with the rests that a target takes unless a rate is set.  Beside it the
same bytes are copied as a file, and synced.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.program import parser_of, run
from bench.servers import START_S, Server
from bench.targets.ssastore import Ssastore
from ssastore.config import open_control
from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, group_key
from ssastore.core.settings import MoveSettings, change_move_settings
from ssastore.env import ControlStore
from ssastore.keyspace import GROUP_BITS
from ssastore.lab.context import Context
from ssastore.limits import MOVE_BYTES_PER_S_MAX
from ssastore.load import MIB, percentile
from ssastore.rebalance import order_move, read_cluster

_NODES = 4
_REPLICAS = 3
_PLANE = 0
_CALLERS = 4
_CALM_S = 3.0
"Of calls before the handover, and after it."
_FILL_S = 300
_HANDOVER_S = 120
_ROUTE = re.compile(r"^(Deleted )?(?:local )?([0-9a-f:]+)(?:/(\d+))? ")

Call = tuple[float, float, str]
"Of ``bench.stall``."


@dataclass(frozen=True, slots=True)
class Handover:
    """When what happened, in seconds of the wall clock."""

    began: float
    "The record says MOVING."
    ended: float
    "The record says ACTIVE, at the new owner."


async def hand_over(control: ControlStore, group: int) -> tuple[Handover, str]:
    """Let the slice go to the one node that owns nothing of the group; when, and which."""
    cluster = await read_cluster(control)
    owners = cluster.groups[group].owners
    (target,) = {node.name for node in cluster.nodes} - set(owners)
    began = 0.0
    key = group_key(group)
    item = await control.get(key)
    assert item is not None
    watch: Any = control.watch(key, item.revision)
    async with asyncio.timeout(_HANDOVER_S), aclosing(watch):
        await order_move(control, _PLANE << GROUP_BITS | group, target)
        async for event in watch:
            found = GroupRecord.decode(event.value).planes[_PLANE]
            if found.state == MOVING:
                began = time.time()
            elif found.state == ACTIVE and found.owner == target:
                if not began:
                    raise BenchError("the record was never seen MOVING")
                return Handover(began, time.time()), target
    raise AssertionError("a watch does not end")


class RouteWatch:
    """What the kernel of one host of the lab says of its routes, as ``ip monitor`` prints it."""

    def __init__(self, lab: Ssastore, host: str, directory: Path) -> None:
        argv = lab.on_host(host, ["ip", "-ts", "-6", "monitor", "route"])
        self.server = Server(f"routes-{host}", argv, directory, stdout=subprocess.PIPE)

    def first_after(self, moment: float, slice_first: int) -> float:
        """When the host first had a route of its own for an address after a moment, in ms; ends the watch."""
        self.server.process.terminate()
        output, _ = self.server.process.communicate(timeout=START_S)
        at = 0.0
        for line in output.decode().splitlines():
            if line.startswith("["):
                stamp, _, line = line[1:].partition("] ")
                at = datetime.fromisoformat(stamp).timestamp()
            found = _ROUTE.match(line)
            if found is None or found[1] or at < moment - 1:
                continue
            network = IPv6Network((found[2], int(found[3] or 128)))
            if network.prefixlen > 64 and int(network.network_address) <= slice_first <= int(network[-1]):
                return 1000 * (at - moment)
        raise BenchError(f"no route for the slice was seen on {self.server.name}")


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one handover."""

    objects: int
    size: int
    seconds: float
    mib_per_s: float
    cp_mib_per_s: float
    router_ms: float
    "From the record to the router's route; before zero: earlier than the record was seen here."
    target_ms: float
    "And to the new owner's."
    failed: list[str]
    calls: dict[str, dict[str, float]]
    "Before, during and after: how many, p50, p99 and the slowest in ms."

    @property
    def is_right(self) -> bool:
        """Whether no call failed."""
        return not self.failed

    def table(self) -> str:
        """For people."""
        ratio = self.mib_per_s / self.cp_mib_per_s
        lines = [
            f"{self.objects} objects of {self.size} bytes: {self.seconds:.2f} s, {self.mib_per_s:.0f} MiB/s",
            f"cp and sync of the same bytes: {self.cp_mib_per_s:.0f} MiB/s; ratio {ratio:.2f}",
            f"routes after the record: router {self.router_ms:.1f} ms, new owner {self.target_ms:.1f} ms",
            f"failed calls: {len(self.failed)}" + "".join(f"\n    {reason}" for reason in self.failed[:5]),
            f"{'calls':>10}{'number':>8}{'p50 ms':>9}{'p99 ms':>9}{'slowest':>9}",
        ]
        for name, found in self.calls.items():
            figures = "".join(f"{found[key]:9.2f}" for key in ("p50_ms", "p99_ms", "slowest_ms"))
            lines.append(f"{name:>10}{found['number']:8.0f}{figures}")
        return "\n".join(lines)


def _figures(calls: list[Call]) -> dict[str, float]:
    took = sorted(ms for _, ms, _ in calls)
    return {
        "number": len(took),
        "p50_ms": percentile(took, 0.5),
        "p99_ms": percentile(took, 0.99),
        "slowest_ms": took[-1],
    }


def _copied_as_a_file(directory: Path, size: int) -> float:
    """MiB a second of cp and sync; the best of three, as the handover comes once."""
    source, copy = directory / "source", directory / "copy"
    source.write_bytes(os.urandom(size))
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        shutil.copyfile(source, copy)
        with open(copy, "rb+") as file:
            os.fsync(file.fileno())
        best = max(best, size / MIB / (time.perf_counter() - started))
        copy.unlink()
    return best


async def _moved(found: Context, group: int, settings: MoveSettings) -> tuple[Handover, str]:
    control = open_control(found.control, found.secrets_file)
    try:
        await change_move_settings(control, lambda known: settings)
        return await hand_over(control, group)
    finally:
        await control.close()


def measure(directory: Path, mib: int, size: int, settings: MoveSettings) -> Result:
    """One handover in a lab of its own. Raises BenchError, LeftOut."""
    objects = mib * MIB // size
    lab = Ssastore(_REPLICAS, nodes=_NODES)
    servers: list[Server] = []
    try:
        lab.start(directory, ())
        found = lab.found()
        argv = [sys.executable, "-m", "bench.stall", str(objects), str(size), str(_CALLERS)]
        load = Server(
            "stall", lab.on_client_host(argv), directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        servers.append(load)
        group = load.answer(_FILL_S)["group"]
        watches = {host: RouteWatch(lab, host, directory) for host in found.hosts if host != "client"}
        servers += [watch.server for watch in watches.values()]
        time.sleep(_CALM_S)
        handover, target = asyncio.run(_moved(found, group, settings))
        time.sleep(_CALM_S)
        output, _ = load.process.communicate(timeout=START_S)
        calls: list[Call] = [tuple(call) for call in json.loads(output)]
        service = int(IPv6Network(found.service).network_address)
        first = service | (_PLANE << GROUP_BITS | group) << (64 - 4 - GROUP_BITS)
        seconds = handover.ended - handover.began
        return Result(
            objects,
            size,
            seconds,
            objects * size / MIB / seconds,
            _copied_as_a_file(directory, objects * size),
            watches["router"].first_after(handover.ended, first),
            watches[target].first_after(handover.ended, first),
            [reason for _, _, reason in calls if reason],
            {
                "before": _figures([call for call in calls if call[0] < handover.began]),
                "during": _figures([c for c in calls if handover.began <= c[0] <= handover.ended + 0.2]),
                "after": _figures([call for call in calls if call[0] > handover.ended + 0.2]),
            },
        )
    finally:
        for server in [*reversed(servers), *lab.servers]:
            server.stop()


def main() -> int:
    """Run; exit code 0, or 1 when it could not be measured or a call failed."""
    parser = parser_of("handover", __doc__)
    parser.add_argument("--mib", type=int, default=50, help="MiB of objects in the slice; default 50")
    parser.add_argument("--size", type=int, default=4096, help="bytes of an object, to 65536; default 4096")
    parser.add_argument("--gentle", action="store_true", help="at the pace that is the default")

    def of(folder: Path, options: Any) -> Result:
        settings = MoveSettings(0 if options.gentle else MOVE_BYTES_PER_S_MAX)
        return measure(folder, options.mib, options.size, settings)

    return run(parser, of)


if __name__ == "__main__":
    sys.exit(main())
