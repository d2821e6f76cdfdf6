"""What the number of objects does to the cost of an operation, to memory, start, listing, scrub and moves.

    python -m bench.growth [--counts 1000 100000 3000000] [--replicas 1] [--nodes 1] [--size 1024]

A lab is filled through the client, and measured at each count: reads, overwrites, new names and pages of a
listing, by 64 callers; how long a node takes to answer again after it was killed; a scrub.  Last a node
is added and gets its share.  Names come out of their order, so that everything falls everywhere in the
trees.  CPU time is that of all processes of the lab, as the calibration loop measures it: low priority
(``nice``) does it no harm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import calibrate, cpu, machine, resources
from bench.errors import BenchError
from bench.generator import Generator
from bench.program import parser_of, run
from bench.targets.ssastore import Ssastore
from ssastore.lab.status import fetch
from ssastore.load import PAGE_KEYS, Op, Round

COUNTS = (1_000, 100_000, 3_000_000)
OPS: tuple[Op, ...] = ("get", "overwrite", "list", "put")
"New names are last, as they change the count."
CALLERS = 64
_ROUNDS = 5
_ROUND_S = 2.0
_WARM_UP_S = 0.5
_FILL_STEP = 20_000
_PUTS_SHARE, _PUTS_MIN, _PUTS_MAX = 0.02, 1_000, 20_000
"New names of a round, of what is there: few, or the count would not be what the point says."
_FAILURES_MAX = 5
_SETTLE_S = 10.0
"A checkpoint comes in this time."
_COMMAND_S = 7200


@dataclass(slots=True)
class Point:
    """Figures at one count of objects."""

    objects: int
    "In the whole lab, without copies."
    fill_per_s: float
    "While it was filled from the count before."
    fill_us: float
    "Nominal CPU of all servers for one object of that."
    server_us: dict[str, float] = field(default_factory=dict)
    "By operation, nominal; of a list an entry's."
    server_plain_us: dict[str, float] = field(default_factory=dict)
    "Likewise, as it was."
    ops_per_s: dict[str, float] = field(default_factory=dict)
    p99_ms: dict[str, float] = field(default_factory=dict)
    memory_mib: float = 0.0
    open_files: int = 0
    disk_bytes: float = 0.0
    "For one copy of one object."
    start_s: float = 0.0
    "From the command that starts a node that was killed until every worker answers."
    scrub_s: float = 0.0
    scrub_us: float = 0.0
    "Nominal CPU for one copy."


@dataclass(slots=True)
class Result:
    """Figures of one lab."""

    machine: dict[str, Any]
    nodes: int
    replicas: int
    size: int
    loop_us: float
    points: list[Point]
    moved: int
    "Records that a node got that was added at the end."
    move_s: float
    move_us: float
    "Nominal CPU for one of them, of all processes."

    @property
    def is_right(self) -> bool:
        """A wrong answer ends the run."""
        return True

    def table(self) -> str:
        """For people."""
        head = [
            *machine.lines(self.machine),
            f"calibration loop {self.loop_us / 1000:.1f} ms",
            f"{self.nodes} nodes, R={self.replicas}, {self.size} B",
        ]
        rows = [("objects", [f"{point.objects:,}" for point in self.points])]
        for op in OPS:
            what = "an entry of a page" if op == "list" else op
            rows.append((f"{what}, server us", [f"{point.server_us[op]:.1f}" for point in self.points]))
        for op in OPS:
            per_s = [point.ops_per_s[op] * (PAGE_KEYS if op == "list" else 1) for point in self.points]
            rows.append((f"{'entries' if op == 'list' else op} / s", [f"{value:,.0f}" for value in per_s]))
        rows += [
            ("filled / s", [f"{point.fill_per_s:,.0f}" for point in self.points]),
            ("memory MiB", [f"{point.memory_mib:,.0f}" for point in self.points]),
            ("open files", [str(point.open_files) for point in self.points]),
            ("disk B / copy", [f"{point.disk_bytes:,.0f}" for point in self.points]),
            ("start s", [f"{point.start_s:.1f}" for point in self.points]),
            ("scrub s", [f"{point.scrub_s:.1f}" for point in self.points]),
            ("scrub us / copy", [f"{point.scrub_us:.1f}" for point in self.points]),
        ]
        lines = [f"{name:28}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows]
        rate = self.moved / self.move_s
        lines.append(f"to a new node: {self.moved:,} records, {rate:,.0f}/s, {self.move_us:.1f} us each")
        return "\n".join([*head, "", *lines, *self._growth()])

    def _growth(self) -> list[str]:
        first, last = self.points[0], self.points[-1]
        found = [f"{op} {last.server_us[op] / first.server_us[op]:.2f}" for op in OPS if op != "list"]
        return [f"CPU of an operation at {last.objects:,} over that at {first.objects:,}: {', '.join(found)}"]


class Growth:
    """One lab that is filled and measured."""

    def __init__(self, lab: Ssastore, directory: Path, size: int, cleanup: ExitStack) -> None:
        self._lab = lab
        self._directory = directory
        self._size = size
        self._calibration = calibrate.Calibration(directory, cleanup)
        cleanup.callback(self._stop)
        lab.start(directory, ())
        self._generator = Generator(lab, directory, inflight=CALLERS, cores=())
        cleanup.callback(self._generator.stop)
        self.loops: list[calibrate.Loop] = []
        self._filled = 0
        self._failures = 0

    def point(self, count: int) -> Point:
        """Fill to a count and measure. Raises BenchError."""
        point = self._filled_to(count)
        time.sleep(_SETTLE_S)
        point.memory_mib = resources.memory_mib(self._pids)
        point.open_files = resources.open_files(self._pids)
        data = self._directory / f"data-{self._lab.found().name}"
        on_disk = sum(512 * path.stat().st_blocks for path in data.rglob("*") if path.is_file())
        point.disk_bytes = on_disk / self._records()
        point.start_s = self._started_again()
        point.scrub_s, point.scrub_us = self._scrubbed()
        for op in OPS:
            self._measure(point, op)
        print(json.dumps(asdict(point)), file=sys.stderr)
        return point

    def _scrubbed(self) -> tuple[float, float]:
        """Seconds, and CPU for a copy, of a pass that could compare everything."""
        while True:
            try:
                seconds, us = self._timed(lambda: self._command("scrub", "--wait", "--json"))
            except BenchError as error:
                self._disturbed(error)
                continue
            return seconds, us / self._records()

    def moved(self) -> tuple[int, float, float]:
        """(records that a new node got, seconds, CPU for one). Raises BenchError."""
        plan = str(self._directory / "plan.json")
        self._command("node", "add", "newcomer")
        self._command("plan", "--out", plan)
        seconds, us = self._timed(lambda: self._command("apply", plan, "--rate", "64M", "--wait"))
        records = self._records("newcomer")
        return records, seconds, us / max(1, records)

    def _records(self, name: str = "") -> int:
        """What a node has, or all of them, by their own count."""
        _, report = fetch(self._lab.found().admin_port, "/status")
        nodes = [node for node in report["nodes"] if name in ("", node["name"])]
        return sum(worker["records"] for node in nodes for worker in node["workers"])

    def _stop(self) -> None:
        for server in self._lab.servers:
            server.stop()

    @property
    def _pids(self) -> list[int]:
        return [server.pid for server in self._lab.servers]

    def _timed(self, work: Callable[[], object]) -> tuple[float, float]:
        """Seconds, and nominal CPU of the lab in us."""
        before, began = cpu.tree_us(self._pids), time.monotonic()
        with self._calibration.beside() as turns:
            work()
        loop = calibrate.middle(turns)
        self.loops.append(loop)
        return time.monotonic() - began, loop.nominal(cpu.tree_us(self._pids) - before)

    def _filled_to(self, count: int) -> Point:
        seconds = us = 0.0
        missing = count - self._filled
        while self._filled < count:
            step = min(count - self._filled, _FILL_STEP)
            self._filled += step
            wanted = self._round("get", self._filled, 0.0)
            took, cost = self._timed(lambda: self._generator.fill(wanted))  # noqa: B023
            seconds, us = seconds + took, us + cost
            print(f"{self._filled:,} of {count:,} objects, {step / took:,.0f}/s", file=sys.stderr)
        return Point(count, missing / seconds, us / missing)

    def _round(self, op: Op, count: int, seconds: float) -> Round:
        puts = min(_PUTS_MAX, max(_PUTS_MIN, round(count * _PUTS_SHARE)))
        return Round(op, self._size, CALLERS, seconds, count, puts if op == "put" else 10**9)

    def _measure(self, point: Point, op: Op) -> None:
        nominal: list[float] = []
        plain: list[float] = []
        rates: list[float] = []
        p99: list[float] = []
        entries = min(PAGE_KEYS, point.objects // 2) if op == "list" else 1
        self._generator.run(self._round(op, point.objects, _WARM_UP_S))
        while len(rates) < _ROUNDS:
            before = cpu.tree_us(self._pids)
            try:
                with self._calibration.beside() as turns:
                    found = self._generator.run(self._round(op, point.objects, _ROUND_S))
            except BenchError as error:
                self._disturbed(error)
                continue
            us = (cpu.tree_us(self._pids) - before) / (found.ops * entries)
            self.loops.append(calibrate.middle(turns))
            nominal.append(self.loops[-1].nominal(us))
            plain.append(us)
            rates.append(found.ops / found.seconds)
            p99.append(found.p99_ms)
        point.server_us[op], point.server_plain_us[op] = median(nominal), median(plain)
        point.ops_per_s[op], point.p99_ms[op] = median(rates), median(p99)
        print(f"{point.objects:,} {op}: {point.server_us[op]:.1f} us, {nominal}", file=sys.stderr)

    def _disturbed(self, error: BenchError) -> None:
        """An hour's run may meet a machine that stands still for a while, but not again and again."""
        self._failures += 1
        print(f"measured again: {error}", file=sys.stderr)
        if self._failures > _FAILURES_MAX:
            raise error

    def _started_again(self) -> float:
        node = self._lab.found().nodes[0]
        self._command("node", "kill", node)
        began = time.monotonic()
        self._command("node", "start", node)
        self._command("ready", "--wait", str(_COMMAND_S))
        return time.monotonic() - began

    def _command(self, *arguments: str) -> None:
        """A command on the lab. Raises BenchError."""
        argv = [sys.executable, "-m", "ssastore", "--context", self._lab.found().name, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_S)
        if done.returncode:
            raise BenchError(f"ssastore {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-500:]}")


def measure(directory: Path, counts: Sequence[int], replicas: int, nodes: int, size: int) -> Result:
    """All counts in a lab of its own. Raises BenchError, LeftOut."""
    with ExitStack() as cleanup:
        lab = Ssastore(replicas, nodes=nodes, is_listed=True)
        growth = Growth(lab, directory.resolve(), size, cleanup)
        points = [growth.point(count) for count in sorted(counts)]
        moved, move_s, move_us = growth.moved()
        loop_us = median(loop.us for loop in growth.loops)
        about = machine.describe(directory)
        return Result(about, nodes, replicas, size, loop_us, points, moved, move_s, move_us)


def main() -> int:
    """Run; exit code 0, or 1 when it could not be measured."""
    parser = parser_of("growth", __doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="of objects in the lab")
    parser.add_argument("--replicas", type=int, choices=(1, 3), default=1, help="default 1")
    parser.add_argument("--nodes", type=int, default=0, help="default: as many as replicas")
    parser.add_argument("--size", type=int, default=1024, help="bytes of an object; default 1024")

    def of(folder: Path, options: Any) -> Result:
        nodes = options.nodes or options.replicas
        return measure(folder, options.counts, options.replicas, nodes, options.size)

    return run(parser, of)


if __name__ == "__main__":
    sys.exit(main())
