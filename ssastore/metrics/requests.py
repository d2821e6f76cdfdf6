"""What a gateway counts of its requests. Pure: some additions a request (monitoring.md: the price)."""

from __future__ import annotations

from typing import Any

from ssastore.metrics.histogram import Histogram, summed


class RequestCounts:
    """Since the start of the process."""

    __slots__ = ("answers", "durations", "errors", "in_flight", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], int] = {}
        "By operation and HTTP status."
        self.errors: dict[str, int] = {}
        "By S3 error code."
        self.durations: dict[str, Histogram] = {}
        "By operation, from the headers of a request to the last byte of its answer."
        self.in_flight = 0
        self.received_bytes = 0
        "Of bodies, as are those sent."
        self.sent_bytes = 0

    def answered(self, operation: str, status: int) -> None:
        """An answer has a status now."""
        self.answers[operation, status] = self.answers.get((operation, status), 0) + 1

    def failed(self, code: str) -> None:
        """It is an error."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def ended(self, operation: str, seconds: float) -> None:
        """Nothing is left to do for a request that was in flight."""
        self.in_flight -= 1
        found = self.durations.get(operation)
        if found is None:
            found = self.durations[operation] = Histogram()
        found.note(seconds)

    def describe(self) -> dict[str, Any]:
        """For status."""
        return {
            "requests": sum(self.answers.values()),
            "failures": sum(count for (_, status), count in self.answers.items() if status >= 500),
            "in_flight": self.in_flight,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "durations": summed(found.counts for found in self.durations.values()),
        }
