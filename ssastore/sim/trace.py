"""The trace of a run: a digest that is equal only for equal runs, and the last events in words."""

from __future__ import annotations

from array import array
from collections import deque
from hashlib import blake2b

from ssastore.sim.clock import NS_PER_S

STORY_EVENTS = 400


class Trace:
    """What happened, in order. ``steps`` takes one integer for each callback; ``note`` takes the rest."""

    def __init__(self, story_events: int = STORY_EVENTS) -> None:
        self._hash = blake2b(digest_size=16)
        self.steps: list[int] = []
        self.story: deque[str] = deque(maxlen=story_events)
        "The last events, for people."

    def note(self, now_ns: int, what: str) -> None:
        """Record an event that is more than a callback."""
        self.flush()
        self._hash.update(b"%d %s\n" % (now_ns, what.encode()))
        self.story.append(f"{now_ns / NS_PER_S:12.6f} {what}")

    def flush(self) -> None:
        """Move the steps into the digest."""
        if self.steps:
            self._hash.update(array("Q", self.steps).tobytes())
            self.steps.clear()

    def digest(self) -> str:
        """Of everything so far."""
        self.flush()
        return self._hash.hexdigest()
