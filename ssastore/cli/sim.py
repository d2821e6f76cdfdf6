"""``sim``: the cluster on virtual time, under faults, judged."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.sim.runner import Summary
    from ssastore.sim.stage import Played

_SEEDS = 100
_STORIES_MAX = 3
"Of failing seeds; of the others only the line that repeats them."

_PROGRESS_EVERY_S = 1.0


@click.command("sim")
@click.option("--seeds", type=click.IntRange(1), default=_SEEDS, show_default=True, help="How many runs.")
@click.option(
    "--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Number of the first."
)
@click.option("--scenario", default="safety", show_default=True, help="Which; --list shows them.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=None, help="Processes; default: one for each core."
)
@click.option("--until", "until_ms", type=click.IntRange(1), help="Stop a single seed at this virtual ms.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--list", "is_list", is_flag=True, help="List the scenarios and mutants.")
@click.option(
    "--mutants", "mutants", metavar="NAMES", help="Plant faults, and see that they are seen: all, or a list."
)
def sim_command(
    seeds: int,
    first_seed: int,
    scenario: str,
    jobs: int | None,
    until_ms: int | None,
    as_json: bool,
    is_list: bool,
    mutants: str | None,
) -> int:
    """Run the cluster's own code on virtual time, with a seeded network, disk and clock, and judge it.

    A seed is one run: the same seed of the same commit is the same run. The last line is a summary.

    \b
    Exit codes: 0 every seed held, 10 safety (a violation, or undecided), 11 liveness, 12 an error.
    """
    from ssastore.form import is_compiled
    from ssastore.sim.scenarios import scenarios

    if is_compiled():
        raise click.ClickException("simulations put faults into Python functions: first call make pure")
    known = scenarios()
    if is_list:
        for found in known.values():
            print(f"{found.name:12} {found.about}")
        _list_mutants()
        return 0
    if mutants:
        return _hunt(
            mutants, first_seed, seeds if seeds != _SEEDS else None, jobs or os.cpu_count() or 1, as_json
        )
    if scenario not in known:
        raise click.BadParameter(f"no scenario {scenario!r}: {', '.join(known)}", param_hint="--scenario")
    if until_ms and seeds != 1:
        raise click.UsageError("--until stops one seed: give --seeds 1")
    if seeds == 1:
        return _one(scenario, first_seed, until_ms or 0, as_json)
    return _many(scenario, first_seed, seeds, jobs or os.cpu_count() or 1, as_json)


def _list_mutants() -> None:
    from ssastore.sim.mutants import harmless, mutants

    print()
    for mutant in (*mutants().values(), *harmless().values()):
        print(f"{mutant.name:30} {mutant.about}")


def _hunt(names: str, first: int, seeds_max: int | None, jobs: int, as_json: bool) -> int:
    """Seeds that each planted fault takes. 0 only when each was seen, and nothing harmless."""
    from dataclasses import asdict

    from ssastore.sim.hunt import SEEDS_MAX, hunt_all
    from ssastore.sim.mutants import harmless, mutants
    from ssastore.sim.runner import EXIT_SAFETY

    known = [*mutants(), *harmless()]
    wanted = known if names == "all" else names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise click.BadParameter(f"no mutant {unknown[0]!r}: {', '.join(known)}", param_hint="--mutants")
    results = []
    for caught in hunt_all(wanted, first, seeds_max or SEEDS_MAX, jobs):
        results.append(caught)
        print(json.dumps(asdict(caught)) if as_json else caught.line(), flush=True)
    wrong = [caught.name for caught in results if not caught.is_as_it_should]
    if not as_json:
        print(f"sim mutants: {len(results) - len(wrong)} of {len(results)} as they should be")
    return EXIT_SAFETY if wrong else 0


def _one(scenario: str, seed: int, until_ms: int, as_json: bool) -> int:
    """A single seed, with its digest, and with its story when it failed or was stopped."""
    from ssastore.sim.runner import Summary, quiet, tell
    from ssastore.sim.scenarios import scenarios
    from ssastore.sim.stage import play_seed

    started, started_cpu_s = time.perf_counter(), time.process_time()
    with quiet():
        played = play_seed(scenarios()[scenario], seed, until_ms=until_ms, is_told=bool(until_ms))
    if played.story:
        print(played.story)
    if not played.is_good:
        print(tell(played))
    for name, value in played.figures.items():
        print(f"{name:40} {value:g}")
    print(f"digest {played.digest}")
    played.cpu_s = time.process_time() - started_cpu_s
    summary = Summary(scenario, seed)
    summary.add(played)
    _print_summary(summary, time.perf_counter() - started, 1, as_json)
    return summary.exit_code


def _many(scenario: str, first: int, count: int, jobs: int, as_json: bool) -> int:
    from ssastore.sim.runner import Summary, play_seeds

    started = shown = time.perf_counter()
    summary = Summary(scenario, first)
    for played in play_seeds(scenario, first, count, jobs):
        summary.add(played)
        if not played.is_good:
            _show_failure(played, len(summary.red))
        if sys.stderr.isatty() and time.perf_counter() - shown > _PROGRESS_EVERY_S:
            shown = time.perf_counter()
            rate = summary.seeds / (shown - started)
            print(
                f"\r{summary.seeds}/{count} seeds, {rate:.1f}/s, {len(summary.red)} red ",
                end="",
                file=sys.stderr,
            )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    _print_summary(summary, time.perf_counter() - started, jobs, as_json)
    return summary.exit_code


def _show_failure(played: Played, number: int) -> None:
    from ssastore.sim.runner import replay_line, tell

    if number <= _STORIES_MAX:
        print(played.story)
        print(tell(played))
    else:
        print(f"red: {replay_line(played)}")


def _print_summary(summary: Summary, elapsed_s: float, jobs: int, as_json: bool) -> None:
    if not as_json:
        print(summary.line(elapsed_s, jobs))
        return
    from ssastore.sim.runner import commit

    told = {name: getattr(summary, name) for name in summary.__slots__}
    print(json.dumps({**told, "seconds": round(elapsed_s, 3), "jobs": jobs, "commit": commit()}))
