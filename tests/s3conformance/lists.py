"""The three lists, and what a run of the suite says of them. Pure."""

from __future__ import annotations

import xml.etree.ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PASSES, NOT_YET, WILL_NOT = "passes.txt", "not_yet.txt", "will_not.txt"


def read_list(path: Path) -> dict[str, str]:
    """Names of tests and the reasons after them; a line that is only a comment heads a chapter."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, reason = line.partition("#")
        if name.strip():
            found[name.strip()] = reason.strip()
    return found


def outcomes(report: str) -> dict[str, str]:
    """Of a JUnit report: ``passed``, ``failed`` or ``skipped`` by test, as ``test_s3.test_name``."""
    found: dict[str, str] = {}
    for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
        name = f"{(case.get('classname') or '').rpartition('.')[2]}.{case.get('name')}"
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
            elif child.tag == "skipped" and outcome == "passed":
                outcome = "skipped"
        # A teardown that fails comes as a second entry.
        if found.get(name) != "failed":
            found[name] = outcome
    return found


@dataclass(slots=True)
class Comparison:
    """How a run differs from the lists."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    "Must pass, and did not."
    unlisted: list[str] = field(default_factory=list)
    "In no list, and did not pass."
    better: list[str] = field(default_factory=list)
    "Passed, though another list has it."

    @property
    def is_good(self) -> bool:
        return not (self.broken or self.unlisted)

    def lines(self) -> Iterable[str]:
        """What an operator reads; the last line is a summary."""
        for title, names in (("BROKEN", self.broken), ("IN NO LIST", self.unlisted), ("better", self.better)):
            yield from (f"{title}  {name}" for name in names)
        yield (
            f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped; {len(self.broken)} broken, "
            + (f"{len(self.unlisted)} in no list, {len(self.better)} better than listed")
        )


def compare(
    found: Mapping[str, str],
    passes: Mapping[str, str],
    not_yet: Mapping[str, str],
    will_not: Mapping[str, str],
) -> Comparison:
    """A run against the lists. Tests that were not run are left out."""
    result = Comparison()
    for name, outcome in sorted(found.items()):
        result.passed += outcome == "passed"
        result.failed += outcome == "failed"
        result.skipped += outcome == "skipped"
        if outcome == "passed":
            if name not in passes:
                result.better.append(name)
        elif name in passes:
            result.broken.append(name)
        elif name not in not_yet and name not in will_not:
            result.unlisted.append(name)
    return result


def update(found: Mapping[str, str], where: Path = HERE) -> None:
    """Move what passed to ``passes.txt``, and what failed and is in no list to ``not_yet.txt``."""
    passes, not_yet = read_list(where / PASSES), read_list(where / NOT_YET)
    will_not = read_list(where / WILL_NOT)
    for name, outcome in found.items():
        if outcome == "passed":
            not_yet.pop(name, None)
            passes[name] = ""
        elif name not in will_not:
            passes.pop(name, None)
            not_yet.setdefault(name, "")
    for name in will_not:
        passes.pop(name, None)
        not_yet.pop(name, None)
    for path, names in ((PASSES, passes), (NOT_YET, not_yet)):
        text = "".join(f"{name}  # {names[name]}\n" if names[name] else f"{name}\n" for name in sorted(names))
        (where / path).write_text(text)
