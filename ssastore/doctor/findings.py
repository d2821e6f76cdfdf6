"""What a look at a host came to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    "It works, with less than there could be: speed, safety or a command."
    BAD = "bad"
    "A node or a client will not work here."
    UNKNOWN = "unknown"
    "It could not be looked at; ``found`` says why."


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was found, what is wanted, the command that mends it (empty when it is as wanted)."""

    name: str
    state: State
    found: str
    wanted: str = ""
    mend: str = ""


Look = Callable[[], Finding]


def good(name: str, found: str) -> Finding:
    """As it should be."""
    return Finding(name, State.OK, found)


def look_at(name: str, look: Look) -> Finding:
    """A finding, whatever the look raises: one thing that cannot be seen hides no other."""
    try:
        return look()
    except Exception as error:
        return Finding(name, State.UNKNOWN, f"{type(error).__name__}: {error}")


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """For ``--json`` and bundles."""
    listed = [asdict(finding) for finding in findings]
    return {
        "schema": "ssastore.doctor/1",
        "ok": not any(finding["state"] == State.BAD for finding in listed),
        "findings": listed,
    }
