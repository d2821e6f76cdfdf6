"""The code that runs in production, on virtual time and a faulty network: are its registers linearizable?

Five nodes, three replicas and three clients; ownership does not change.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest

from ssastore.core.acceptor import Acceptor
from ssastore.engine import Engine
from ssastore.messages import Condition, Delete, Put
from ssastore.sim.cluster import Parts
from ssastore.sim.seeds import Stream
from ssastore.sim.swarm import Swarm
from ssastore.sim.workload import SURVIVED, Plan, run_seed, seeds_until_red
from ssastore.store.memory import MemoryStore

SEEDS = 8
SEEDS_MAX = 300


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Connections break all the time here."""
    caplog.set_level(logging.CRITICAL, "ssastore")


def test_registers_are_linearizable_under_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of fault occurs."""
    started = perf_counter()
    happened: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    steps = operations = 0
    virtual_s = 0.0
    for seed in range(SEEDS):
        run = run_seed(seed, Plan(keys=20))
        red = run.red()
        assert not red, "\n".join([*(f"{key}: {judgement}" for key, judgement in red.items()), run.report])
        happened.update(run.faults)
        outcomes.update(run.outcomes)
        steps += run.steps
        operations += sum(map(len, run.histories.values()))
        virtual_s += run.virtual_s
    elapsed_s = perf_counter() - started
    assert set(happened) == set(SURVIVED)
    assert set(outcomes) == {"done", "absent", "condition failed", "unknown", "unavailable"}
    with capsys.disabled():
        print(
            f"\n  {SEEDS} seeds in {elapsed_s:.1f} s: {SEEDS / elapsed_s:.1f} seeds/s, "
            f"{steps / elapsed_s:.0f} callbacks/s, {operations / elapsed_s:.0f} operations/s, "
            f"{virtual_s / elapsed_s:.0f}x real time; {dict(happened)}; {dict(outcomes)} ",
            end="",
        )


def test_without_faults_nothing_is_unknown() -> None:
    run = run_seed(1, Plan(keys=20), Swarm())
    assert not run.red()
    assert set(run.outcomes) <= {"done", "absent", "condition failed"}


# -- planted faults ------------------------------------------------------------------------------------


class UnsyncedStore(MemoryStore):
    """Says that a commit is durable when it is not: a crash loses the last one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._durable = self._records.copy()

    def _commit(self) -> None:
        self._durable = self._records.copy()
        super()._commit()

    def crash(self) -> None:
        super().crash()
        self._records = self._durable


class ForgetfulAcceptor(Acceptor):
    """Applies a call that is repeated a second time."""

    def write(self, request: Any, *rest: Any) -> Any:
        if isinstance(request, Put | Delete):
            request = replace(request, op_id=Stream(self._count, "operation").bytes(16))
            self._count += 1
        return super().write(request, *rest)

    _count = 0


class CarelessAcceptor(Acceptor):
    """Does not look at preconditions."""

    def write(self, request: Any, *rest: Any) -> Any:
        if isinstance(request, Put | Delete):
            request = replace(request, condition=Condition.NONE)
        return super().write(request, *rest)


class Forgetful(Engine):
    acceptor_type = ForgetfulAcceptor


class Careless(Engine):
    acceptor_type = CarelessAcceptor


PLANTED = {
    "commits are not durable": (Parts(store=UnsyncedStore), SURVIVED),
    # One seed in 23 shows it with all faults; one in 6 with resets alone, which are what makes calls repeat.
    "repeated calls are applied again": (Parts(engine=Forgetful), ("reset",)),
    "conditions are not checked": (Parts(engine=Careless), SURVIVED),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_caught(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A check that was never seen red proves nothing."""
    parts, faults = PLANTED[fault]
    seeds = seeds_until_red(Plan(nodes=3, replicas=1, parts=parts), faults, SEEDS_MAX)
    assert seeds <= SEEDS_MAX
    with capsys.disabled():
        print(f"\n  {fault}: caught by seed {seeds - 1}, the {seeds}. one ", end="")
