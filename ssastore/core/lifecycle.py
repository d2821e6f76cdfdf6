"""Lifecycle rules: what is due of a bucket's objects, versions and uploads. Pure.

A rule is kept as S3 has it, in short names:

    id, enabled
    prefix, tags, greater, less              what it is for; sizes in bytes, both exclusive
    days, date_ms, lone_markers              when a current version goes
    noncurrent_days, newer                   when an earlier one does; how many stay in any case
    abort_days                               when an open upload is dropped

A time of a number of days is rounded up to the next midnight, UTC, as S3 does it, unless a day is another
one than usual, which is for tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; see above. None is what it does not say."""

    id: str
    enabled: bool
    prefix: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    greater: int | None = None
    less: int | None = None
    days: int | None = None
    date_ms: int | None = None
    lone_markers: bool = False
    noncurrent_days: int | None = None
    newer: int = 0
    abort_days: int | None = None
    is_plain: bool = False
    "Whether its prefix was given the old way, without a filter; only for giving it back."

    def encode(self) -> dict[str, Any]:
        """As it is kept."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False, {}, "")}

    @staticmethod
    def decode(kept: Mapping[str, Any]) -> Rule:
        """Inverse of ``encode``."""
        return Rule(**{"enabled": False, **kept})

    def covers(self, key: str, size: int = 0, tags: Mapping[str, str] | None = None) -> bool:
        """Whether it is for an object; without ``tags`` for any that might have the right ones."""
        if not key.startswith(self.prefix):
            return False
        if (self.greater is not None and size <= self.greater) or (
            self.less is not None and size >= self.less
        ):
            return False
        return tags is None or self.tags.items() <= tags.items()


def rules_of(config: Mapping[str, Any]) -> list[Rule]:
    """The rules of a bucket's config that are enabled."""
    return [rule for rule in map(Rule.decode, config.get("lifecycle", [])) if rule.enabled]


def due_ms(since_ms: int, days: int, day_ms: int) -> int:
    """When something is due that has to wait for some days."""
    at_ms = since_ms + days * day_ms
    return at_ms if day_ms != DAY_MS else -(-at_ms // DAY_MS) * DAY_MS


def expiry(
    rules: Iterable[Rule],
    key: str,
    size: int,
    tags: Mapping[str, str],
    modified_ms: int,
    day_ms: int = DAY_MS,
) -> tuple[int, str] | None:
    """When a current version goes, and by which rule; the earliest counts."""
    found: list[tuple[int, str]] = []
    for rule in rules:
        if not rule.covers(key, size, tags):
            continue
        if rule.date_ms is not None:
            found.append((rule.date_ms, rule.id))
        elif rule.days is not None:
            found.append((due_ms(modified_ms, rule.days, day_ms), rule.id))
    return min(found, default=None)


@dataclass(frozen=True, slots=True)
class Known:
    """A version, or a marker, of one key."""

    version: str
    modified_ms: int
    etag: str
    size: int
    is_latest: bool
    is_marker: bool


@dataclass(slots=True)
class Candidate:
    """A version that a rule may be for: its tags decide, if the rule asks for any."""

    known: Known
    rules: list[Rule]


def candidates(
    rules: Sequence[Rule], key: str, versions: Sequence[Known], now_ms: int, day_ms: int
) -> list[Candidate]:
    """What is due of a key, with the rules that say so but for their tags.

    ``versions`` is all that there is of it, the newest first.
    """
    if any(later.modified_ms < earlier.modified_ms for later, earlier in pairwise(versions)):
        return []  # It was changed while it was listed: what is later has replaced nothing yet.
    found: list[Candidate] = []
    for at, known in enumerate(versions):
        if known.is_latest and not known.is_marker:
            due = [rule for rule in rules if _is_over(rule, known, now_ms, day_ms)]
        elif known.is_latest:
            is_alone = len(versions) == 1
            due = [rule for rule in rules if is_alone and _is_lone(rule, known, now_ms, day_ms)]
        else:
            since_ms = versions[at - 1].modified_ms if at else known.modified_ms
            newer = at - sum(one.is_latest for one in versions[:at])
            due = [rule for rule in rules if _is_outdated(rule, since_ms, newer, now_ms, day_ms)]
        due = [rule for rule in due if rule.covers(key, known.size)]
        if due:
            found.append(Candidate(known, due))
    return found


def _is_over(rule: Rule, known: Known, now_ms: int, day_ms: int) -> bool:
    if rule.date_ms is not None:
        return now_ms >= rule.date_ms
    return rule.days is not None and now_ms >= due_ms(known.modified_ms, rule.days, day_ms)


def _is_lone(rule: Rule, known: Known, now_ms: int, day_ms: int) -> bool:
    """Of a marker behind which there is nothing any more."""
    if rule.tags or rule.greater is not None or rule.less is not None:
        return False
    return rule.lone_markers or _is_over(rule, known, now_ms, day_ms)


def _is_outdated(rule: Rule, since_ms: int, newer: int, now_ms: int, day_ms: int) -> bool:
    if rule.noncurrent_days is None or newer < rule.newer:
        return False
    return now_ms >= due_ms(since_ms, rule.noncurrent_days, day_ms)


def is_abandoned(rules: Iterable[Rule], key: str, started_ms: int, now_ms: int, day_ms: int) -> bool:
    """Whether an open upload is to be dropped."""
    return any(
        rule.abort_days is not None
        and key.startswith(rule.prefix)
        and now_ms >= due_ms(started_ms, rule.abort_days, day_ms)
        for rule in rules
    )
