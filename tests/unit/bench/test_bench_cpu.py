"""CPU accounting: the figure that all comparisons rest on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bench.cpu import (
    TICK_US,
    ProcessTime,
    by_process,
    machine_us,
    parse_machine_stat,
    parse_stat,
    tree_of,
    tree_us,
)
from bench.errors import BenchError

BURN_MS = 150
STAT = "4242 ({name}) S 17 4242 4242 0 -1 4194560 10 20 0 0 {utime} {stime} {cutime} {cstime} 20 0 1 0 99"

BUSY_TREE = f"""
import subprocess, sys, time
burn = "import sys, time\\nwhile time.process_time() < {BURN_MS / 1000}: pass\\n"
subprocess.run([sys.executable, "-S", "-c", burn], check=True)
child = subprocess.Popen(
    [sys.executable, "-S", "-c", burn + "print('burnt', flush=True)\\nsys.stdin.read()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
print("ready", flush=True)
sys.stdin.read()
child.communicate()
"""


def stat_line(name: str, *, utime: int = 0, stime: int = 0, cutime: int = 0, cstime: int = 0) -> str:
    return STAT.format(name=name, utime=utime, stime=stime, cutime=cutime, cstime=cstime)


@pytest.mark.parametrize("name", ["redis-server", "a b", "x) S 1 2 (", ":)"])
def test_name_of_the_program_does_not_confuse_the_fields(name: str) -> None:
    assert parse_stat(stat_line(name, utime=3, stime=4)) == ProcessTime(17, 7 * TICK_US)


def test_time_of_children_that_ended_counts() -> None:
    assert parse_stat(stat_line("x", utime=1, stime=10, cutime=100, cstime=1000)).used_us == 1111 * TICK_US


def test_tree_is_all_descendants_and_nobody_else() -> None:
    known = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    processes = {pid: ProcessTime(parent, 0) for pid, parent in known.items()}
    assert tree_of([10], processes) == {10, 11, 12}
    assert tree_of([11, 20], processes) == {11, 12, 20, 21}
    assert tree_of([10, 11], processes) == {10, 11, 12}, "a root below another counts once"


@pytest.fixture
def busy_tree() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", BUSY_TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_busy_grandchildren_are_counted_alive_and_ended(busy_tree: subprocess.Popen[bytes]) -> None:
    """Two children of a process each burn a known time; one has ended, the other still runs.

    Both bounds matter: counting one twice would be wrong as well.
    """
    burnt_us = tree_us([busy_tree.pid])
    start_up_us = 150_000  # of three interpreters, far above what they need
    assert 2 * BURN_MS * 1000 - 3 * TICK_US <= burnt_us <= 2 * BURN_MS * 1000 + start_up_us


def test_the_busy_child_is_told_from_its_parent(busy_tree: subprocess.Popen[bytes]) -> None:
    found = by_process([busy_tree.pid])
    assert len(found) == 2, "who has ended is counted by its parent"
    child = next(used for pid, used in found.items() if pid != busy_tree.pid)
    assert child >= BURN_MS * 1000 - 2 * TICK_US


def test_idle_process_uses_no_time(busy_tree: subprocess.Popen[bytes]) -> None:
    assert tree_us([busy_tree.pid]) - tree_us([busy_tree.pid]) == 0


def test_idle_cores_and_waiting_for_disks_are_no_work_of_the_machine() -> None:
    text = "cpu  1 10 100 7777 8888 1000 10000 100000 5 6\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert parse_machine_stat(text) == 111111 * TICK_US


def test_machine_does_at_least_what_we_do() -> None:
    before, started = machine_us(), time.process_time()
    while time.process_time() < started + 0.05:
        pass
    assert machine_us() - before >= 50_000 - 2 * TICK_US


def test_server_that_is_gone_is_an_error_and_not_a_small_figure() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    with pytest.raises(BenchError, match=str(process.pid)):
        tree_us([process.pid])
