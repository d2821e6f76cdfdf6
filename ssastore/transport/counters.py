"""What a worker counts of its connections."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_ACCEPT_LOG_MAX = 64


@dataclass(slots=True)
class Counters:
    """What a worker counts for status and metrics."""

    requests: dict[int, int] = field(default_factory=dict)
    refusals: dict[int, int] = field(default_factory=dict)
    accepted: int = 0
    denied: int = 0
    peer_errors: int = 0
    accept_log: deque[str] = field(default_factory=lambda: deque(maxlen=_ACCEPT_LOG_MAX))
    "Addresses that clients dialled to get here, newest last."
    other_versions: list[int] = field(default_factory=list)
    "Of the protocol, that peers speak and this worker does not."
