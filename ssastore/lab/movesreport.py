"""What clients noticed of changes of their cluster, as figures and as a table. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.judge.history import Op


@dataclass(frozen=True, slots=True)
class Phase:
    """One change of the cluster, and when it was made, in nanoseconds of the machine's clock."""

    name: str
    began_ns: int
    ended_ns: int
    moves: int = 0
    "Slices that went to another node."


@dataclass(frozen=True, slots=True)
class Row:
    """What clients noticed of a phase."""

    phase: str
    seconds: float
    moves: int
    calls: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float


def row_of(phase: Phase, calls: list[Op]) -> Row:
    """The answered calls that were under way in a phase: one that stood still counts where it stood."""
    took = sorted(
        (op.answered_ns - op.called_ns) / 1e6
        for op in calls
        if op.called_ns < phase.ended_ns and op.answered_ns > phase.began_ns
    )
    seconds = (phase.ended_ns - phase.began_ns) / 1e9
    if not took:
        return Row(phase.name, seconds, phase.moves, 0, 0.0, 0.0, 0.0)
    p50, p99 = (took[min(len(took) - 1, int(share * len(took)))] for share in (0.5, 0.99))
    return Row(phase.name, seconds, phase.moves, len(took), p50, p99, took[-1])


@dataclass(frozen=True, slots=True)
class Result:
    """Of a run."""

    objects: int
    rows: list[Row]
    answers: dict[str, int]
    failures: list[str]
    wrong_objects: int
    violations: list[str]
    undecided: list[str]
    lost: list[str]

    @property
    def failed(self) -> int:
        """Calls that got no answer that can be relied on."""
        return self.answers.get("unavailable", 0) + self.answers.get("unknown", 0)

    @property
    def p99_ratio(self) -> float:
        """The worst p99 of a change, over that before any."""
        before, *changed, _ = self.rows
        return max(row.p99_ms for row in changed) / before.p99_ms if before.p99_ms else 0.0

    @property
    def is_good(self) -> bool:
        """Nothing went wrong, and there was a call in every phase."""
        return all(row.calls for row in self.rows) and not (
            self.failed or self.wrong_objects or self.violations or self.undecided or self.lost
        )

    def table(self) -> str:
        """For people."""
        lines = [
            f"{'':22}{'seconds':>8}{'slices':>8}{'calls':>8}{'p50 ms':>8}{'p99 ms':>8}{'slowest':>9}",
            *[
                f"{row.phase:22}{row.seconds:8.1f}{row.moves:8}{row.calls:8}{row.p50_ms:8.1f}{row.p99_ms:8.1f}"
                f"{row.slowest_ms:9.1f}"
                for row in self.rows
            ],
            f"failed calls {self.failed}, of {sum(self.answers.values()) - self.answers.get('writes', 0)}; "
            f"acknowledged writes lost {len(self.lost)}; not linearizable {len(self.violations)}, "
            f"undecided {len(self.undecided)}; of {self.objects} objects {self.wrong_objects} differ",
            f"p99 of the worst change is {self.p99_ratio:.1f} times that before",
            *[f"    {line}" for line in [*self.failures[:5], *self.violations[:5], *self.lost[:5]]],
        ]
        return "\n".join(lines)
