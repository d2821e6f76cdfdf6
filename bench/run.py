"""One run: start what is there, load the targets in turn, round by round, stop everything.

Targets are measured round about (A B C, B C A, C A B ...), never one after the other
as wholes: what else happens on the machine then meets all of them, and a ratio is
taken inside each round before the median over the rounds.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import nan
from pathlib import Path

from bench import calibrate, cpu, machine, resources
from bench.errors import LeftOut
from bench.generator import Generator
from bench.report import Case, Report, RoundResult
from bench.targets import Target
from bench.targets.ceph import Ceph
from bench.targets.memcached import Memcached
from bench.targets.nginx import Nginx
from bench.targets.redis import Redis
from bench.targets.s3 import S3Ssastore
from bench.targets.s3url import S3Url
from bench.targets.ssastore import Ssastore
from bench.targets.swift import Swift
from ssastore.load import OPS, Op, Round, round_of

WARM_UP_S = 0.5
"A round that does not count, before the first: connections, caches."

SETTLE_S = 8.0
"After rounds that write: what servers write later, as a checkpoint, shall be counted."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An S3 service that is there already."""

    name: str
    url: str
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    seconds: float
    rounds: int
    inflight: tuple[int, ...]
    "Numbers of callers, one after the other."
    sizes: tuple[int, ...]
    "Bytes of a value, likewise."
    only: frozenset[str]
    "Names of protocols, operations and products; of a kind that is not named, all."
    data: Path
    "Servers keep their data in a new folder here, which is removed at the end."
    pin: bool
    workers: int = 1
    "Processes of a server, where it has such a setting."
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Targets that do the same work."""

    protocol: str
    "``native`` or ``s3``: what our own servers are asked by."
    op: Op
    targets: list[Target]
    "The first one is what the others are compared with."


def comparisons(workers: int = 1, endpoints: Iterable[Endpoint] = ()) -> list[Comparison]:
    """Which targets do which work. PUT is durable, so only targets that sync are compared."""
    ours, replicated = Ssastore(workers=workers), Ssastore(replicas=3, workers=workers)
    by_s3, replicated_by_s3 = S3Ssastore(workers=workers), S3Ssastore(replicas=3, workers=workers)
    redis, synced = Redis(durable=False), Redis(durable=True)
    nginx, memcached = Nginx(workers=workers), Memcached(workers=workers)
    services: list[Target] = [Swift(workers=workers), Ceph()]
    services += [S3Url(one.name, one.url, one.pids) for one in endpoints]
    writing: tuple[Op, ...] = ("put", "overwrite", "mixed")
    reading: tuple[Op, ...] = ("hot", "one")
    return [
        Comparison("native", "get", [ours, replicated, redis, memcached, nginx]),
        *(Comparison("native", op, [ours, replicated, redis, memcached]) for op in reading),
        *(Comparison("native", op, [ours, replicated, synced]) for op in writing),
        *(Comparison("s3", op, [by_s3, replicated_by_s3, *services, nginx]) for op in ("get", *reading)),
        *(Comparison("s3", op, [by_s3, replicated_by_s3, *services]) for op in (*writing, "list")),
    ]


PROTOCOLS = ("native", "s3")
PRODUCTS = ("ssastore", "redis", "memcached", "nginx", "swift", "ceph", "url")


def selected(plan: Sequence[Comparison], only: Collection[str]) -> list[Comparison]:
    """The part of a plan that ``only`` names."""
    protocols = [name for name in PROTOCOLS if name in only] or PROTOCOLS
    ops = [op for op in OPS if op in only] or OPS
    products = [name for name in PRODUCTS if name in only] or PRODUCTS
    return [
        Comparison(one.protocol, one.op, [target for target in one.targets if target.product in products])
        for one in plan
        if one.protocol in protocols and one.op in ops
    ]


def in_turn(targets: Sequence[Target], number: int) -> list[Target]:
    """The order of round ``number``: each goes first equally often."""
    first = number % len(targets)
    return [*targets[first:], *targets[:first]]


def cores_of(*, pin: bool) -> tuple[set[int], set[int]]:
    """(for servers, for the load generator); both empty for any core."""
    allowed = sorted(os.sched_getaffinity(0))
    if not pin or len(allowed) < 2:
        return set(), set()
    return set(allowed[:-1]), {allowed[-1]}


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


class Run:
    """Servers and generators of one run, in the order in which they were started."""

    def __init__(self, options: Options, directory: Path, cleanup: ExitStack) -> None:
        self._options = options
        self._directory = directory
        self._cleanup = cleanup
        self._calibration = calibrate.Calibration(directory, cleanup)
        self._server_cores, self._client_cores = cores_of(pin=options.pin)
        self._generators: dict[str, Generator] = {}
        self._put: dict[tuple[Case, str], int] = {}
        "Operations of all rounds, those that do not count among them."
        self.report = Report(
            machine=machine.describe(directory),
            workload={
                "sizes_bytes": options.sizes,
                "inflight": options.inflight,
                "seconds": options.seconds,
                "rounds": options.rounds,
                "loop": calibrate.VERSION,
                "workers": options.workers,
                "server_cores": sorted(self._server_cores),
                "client_cores": sorted(self._client_cores),
            },
        )

    def measure(self, plan: Sequence[Comparison]) -> None:
        """All of it. Raises BenchError."""
        wanted = {target.name: target for one in plan for target in one.targets}
        for target in wanted.values():
            self._start(target)
        for size in self._options.sizes:
            for inflight in self._options.inflight:
                for one in plan:
                    case = Case(one.protocol, one.op, size, inflight)
                    self._compare(case, [found for found in one.targets if found.name in self._generators])

    def _start(self, target: Target) -> None:
        began = time.monotonic()
        self._cleanup.callback(_stop, target)
        try:
            target.check()
            target.start(self._directory, self._server_cores)
        except LeftOut as reason:
            self.report.left_out[target.name] = str(reason)
            say(f"{target.name}: left out: {reason}")
            return
        options = self._options
        generator = Generator(
            target, self._directory, inflight=max(options.inflight), cores=self._client_cores
        )
        self._cleanup.callback(generator.stop)
        self._generators[target.name] = generator
        about = {"about": target.about, "loop": generator.loop, **target.versions()}
        self.report.targets[target.name] = about
        say(f"{target.name}: started in {time.monotonic() - began:.1f} s")

    def _compare(self, case: Case, targets: Sequence[Target]) -> None:
        if not targets:
            return
        options = self._options
        written = {target.name: _written(target) for target in targets}
        wanted = round_of(case.op, size=case.size, inflight=case.inflight, seconds=options.seconds)
        for target in targets:
            if case.op != "put":
                self._generators[target.name].fill(wanted)
            warm_up = round_of(case.op, size=case.size, inflight=case.inflight, seconds=WARM_UP_S)
            self._round(case, target, warm_up, 0)
        for number in range(options.rounds):
            for target in in_turn(targets, number):
                result = self._round(case, target, wanted, number)
                self.report.rounds.append(result)
                say(f"{case.label} {number + 1}/{options.rounds}  {result.line()}")
        if case.op in ("put", "overwrite") and case.size:
            time.sleep(SETTLE_S)
            for target in targets:
                bytes_written = _written(target) - written[target.name]
                stored = self._put[case, target.name] * case.size
                if target.servers:
                    self.report.written[case, target.name] = bytes_written / stored

    def _round(self, case: Case, target: Target, wanted: Round, number: int) -> RoundResult:
        pids = [server.pid for server in target.servers]
        machine_before, before = cpu.machine_us(), cpu.by_process(pids)
        try:
            with self._calibration.beside() as turns:
                measured = self._generators[target.name].run(wanted)
        finally:
            # A server that has died is the better reason than what its client makes of it.
            for server in target.servers:
                server.check()
        self._put[case, target.name] = self._put.get((case, target.name), 0) + measured.ops
        after = cpu.by_process(pids)
        server_us = sum(after.values()) - sum(before.values()) if pids else nan
        busiest_us = max((used - before.get(pid, 0) for pid, used in after.items()), default=nan)
        others_us = cpu.machine_us() - machine_before - server_us - measured.client_us * measured.ops
        return RoundResult(
            case,
            target.name,
            number,
            measured,
            server_us / measured.ops,
            max(0.0, others_us / (measured.seconds * 1e4 * (os.cpu_count() or 1))) if pids else nan,
            calibrate.middle(turns),
            resources.memory_mib(pids) if pids else nan,
            busiest_us / (measured.seconds * 1e4),
        )


def _written(target: Target) -> int:
    return resources.written_bytes(server.pid for server in target.servers)


def _stop(target: Target) -> None:
    for server in target.servers:
        server.stop()


def run(options: Options, plan: Sequence[Comparison] | None = None) -> Report:
    """Measure, and leave nothing behind.

    Args:
        options: how, and what of the plan.
        plan: all that there is, by default.

    Raises:
        BenchError: a server or generator failed.
    """
    options.data.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=options.data)).resolve()
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        one = Run(options, directory, cleanup)
        one.measure(
            selected(comparisons(options.workers, options.endpoints) if plan is None else plan, options.only)
        )
        return one.report


def names(choices: Iterable[str]) -> frozenset[str]:
    """The set of names in comma-separated lists. Raises ValueError for one that is unknown."""
    found = {name.strip() for choice in choices for name in choice.split(",") if name.strip()}
    known = (*PROTOCOLS, *OPS, *PRODUCTS)
    if unknown := found.difference(known):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return frozenset(found)
