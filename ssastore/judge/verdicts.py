"""Histories of real clients, key by key: can one register have said that, and is anything lost?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssastore.judge.checker import Verdict, check
from ssastore.judge.history import Condition, Kind, Op, Outcome


@dataclass
class Judged:
    """What histories show, key by key."""

    keys: int = 0
    operations: int = 0
    violations: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    "Keys whose last state, read at the end, is older than an acknowledged write, or is made up."


def read_history(*paths: str) -> dict[str, list[Op]]:
    """Histories of processes that ran side by side, by key."""
    histories: dict[str, list[Op]] = {}
    for path in paths:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            key = fields.pop("key")
            kinds = {"kind": Kind(fields["kind"]), "outcome": Outcome(fields["outcome"])}
            fields |= kinds | {"condition": Condition(fields["condition"])}
            histories.setdefault(key, []).append(Op(**fields))
    return histories


def judge(histories: dict[str, list[Op]]) -> Judged:
    """Every key's history by the checker; and, plainly, whether the last acknowledged write is there."""
    judged = Judged(len(histories), sum(map(len, histories.values())))
    for key, history in sorted(histories.items()):
        found = check(history)
        if found.verdict is Verdict.VIOLATION:
            judged.violations.append(f"{key}: {found}")
        elif found.verdict is Verdict.UNDECIDED:
            judged.undecided.append(key)
        if is_lost(history):
            judged.lost.append(key)
    return judged


def is_lost(history: list[Op]) -> bool:
    """Whether the last read shows a state that an acknowledged write had certainly replaced."""
    reads = [op for op in history if op.kind is Kind.GET and op.outcome is not Outcome.UNKNOWN]
    if not reads:
        return False
    final = max(reads, key=lambda op: op.called_ns)
    changes = [op for op in history if op.kind is not Kind.GET and op.called_ns < final.answered_ns]
    writer = next((op for op in changes if op.value and op.value == final.value), None)
    before = [op for op in changes if op.outcome is Outcome.DONE and op.answered_ns < final.called_ns]
    if final.outcome is Outcome.DONE:
        if writer is None or writer.outcome in (Outcome.FAILED, Outcome.ABSENT):
            return True
        return any(writer.is_answered and writer.answered_ns < op.called_ns for op in before)
    puts = [op for op in before if op.kind is Kind.PUT]
    if not puts:
        return False
    newest = max(puts, key=lambda op: op.called_ns)
    # Nothing is there: somebody must have deleted it, after the newest put had begun.
    return not any(
        op.kind is Kind.DELETE
        and op.outcome in (Outcome.DONE, Outcome.UNKNOWN)
        and (not op.is_answered or op.answered_ns > newest.called_ns)
        for op in changes
    )


def share_of_success(found: dict[str, Any]) -> float:
    """Of all calls, those that got an answer."""
    answers: dict[str, int] = {name: n for name, n in found["answers"].items() if name != "writes"}
    failed = answers.get("unavailable", 0) + answers.get(Outcome.UNKNOWN.value, 0)
    return 1 - failed / sum(answers.values())
