"""Many seeds: what the exit code and the last line say, and that a red seed can be repeated."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ssastore.cli import cli
from ssastore.sim.runner import Summary, play_seeds, replay_line, tell
from ssastore.sim.stage import Played

GOOD = Played("safety", 1, operations=7, messages=9, cpu_s=1.0)
WRONG = Played("safety", 2, violations=["I5: two values"])
OPEN = Played("safety", 3, undecided=["key0"])
STUCK = Played("safety", 4, stuck=["pending calls"])
BROKEN = Played("safety", 5, crash="KeyError: 1")


@pytest.mark.parametrize(
    ("played", "code"),
    [
        ([GOOD], 0),
        ([GOOD, WRONG], 10),
        ([OPEN], 10),
        ([STUCK], 11),
        ([BROKEN], 12),
        ([STUCK, BROKEN], 12),
        ([STUCK, BROKEN, WRONG], 10),
    ],
)
def test_the_worst_decides_the_exit_code(played: list[Played], code: int) -> None:
    summary = Summary("safety", 1)
    for one in played:
        summary.add(one)
    assert summary.exit_code == code
    assert summary.red == [one.seed for one in played if one is not GOOD]


def test_the_last_line_counts_everything() -> None:
    summary = Summary("safety", 1)
    for one in (GOOD, WRONG, OPEN, STUCK, BROKEN):
        summary.add(one)
    line = summary.line(2.0, 2)
    for part in ("5 seeds (1 to 5)", "1 violations", "1 undecided", "1 liveness failures", "1 errors"):
        assert part in line
    assert "2.5 seeds/s in 2 processes (5.0 a CPU second), 7 operations, 9 messages" in line


def test_a_red_seed_says_what_and_how_to_repeat_it() -> None:
    told = tell(WRONG)
    assert "violation: I5: two values" in told
    assert replay_line(WRONG) in told
    assert "ssastore sim --scenario safety --first-seed 2 --seeds 1" in told


def test_several_processes_give_the_same_seeds_in_the_same_order() -> None:
    alone = [(played.seed, played.digest) for played in play_seeds("quiet", 40, 9)]
    together = [(played.seed, played.digest) for played in play_seeds("quiet", 40, 9, jobs=2)]
    assert alone == together
    assert [seed for seed, _ in alone] == list(range(40, 49))


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["sim", *arguments], standalone_mode=False)
    return result.return_value if result.exception is None else 2, result.output


def test_the_command_ends_with_a_summary() -> None:
    code, output = run("--scenario", "quiet", "--seeds", "3", "--jobs", "1")
    assert code == 0
    assert output.splitlines()[-1].startswith("sim quiet: 3 seeds (0 to 2), 0 violations")


def test_the_command_prints_the_digest_of_a_single_seed() -> None:
    outputs = [run("--scenario", "quiet", "--seeds", "1", "--first-seed", "7")[1] for _ in range(2)]
    digests = [next(line for line in output.splitlines() if line.startswith("digest")) for output in outputs]
    assert digests[0] == digests[1]


def test_the_command_prints_json() -> None:
    code, output = run("--scenario", "quiet", "--seeds", "2", "--jobs", "1", "--json")
    told = json.loads(output.splitlines()[-1])
    assert code == 0 and told["seeds"] == 2 and told["violations"] == 0 and told["operations"] > 100


def test_the_command_prints_costs() -> None:
    """Overwrite 1 round trip and 1 sync, new name 2 and 2, get one round trip to two planes."""
    code, output = run("--scenario", "cost", "--seeds", "1")
    found = dict(line.rsplit(maxsplit=1) for line in output.splitlines() if ": " in line)
    assert code == 0
    assert (found["a new name: round trips"], found["a new name: syncs"]) == ("2", "2")
    assert (found["overwrite: round trips"], found["overwrite: syncs"]) == ("1", "1")
    assert (found["get: round trips"], found["get: requests"], found["get: syncs"]) == ("1", "2", "0")


@pytest.mark.parametrize(
    "arguments", [["--scenario", "none"], ["--seeds", "0"], ["--until", "5", "--seeds", "2"]]
)
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_scenarios_are_listed() -> None:
    assert all(name in run("--list")[1] for name in ("safety", "liveness", "duel", "quiet", "cost"))


def test_processes_of_a_run_that_is_ended_end_too() -> None:
    command = [sys.executable, "-m", "ssastore", "sim", "--seeds", "5000", "--jobs", "2"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        found: list[int] = []
        deadline = time.monotonic() + 60
        while len(found) < 2:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
            found = [pid for pid in children_of(run.pid) if "spawn_main" in command_line(pid)]
    finally:
        run.terminate()
        run.wait()
    while any("spawn_main" in command_line(pid) for pid in found):
        assert time.monotonic() < deadline + 60
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def command_line(pid: int) -> str:
    """Empty when it is gone, or ended and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
