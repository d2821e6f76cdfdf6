"""The trace of a run: a digest that is equal only for equal runs, and the last events in words.

Both are paid for by every packet, so numbers are kept as numbers until somebody asks.
"""

from __future__ import annotations

from array import array
from collections import deque
from hashlib import blake2b

from ssastore.sim.clock import NS_PER_S

STORY_EVENTS = 400


class Trace:
    """What happened, in order. ``steps`` takes integers: one for each callback; ``note`` takes words."""

    def __init__(self, story_events: int = STORY_EVENTS) -> None:
        self._hash = blake2b(digest_size=16)
        self.steps: list[int] = []
        self._story: deque[tuple[int, str, int, int]] = deque(maxlen=story_events)
        "(time, words, size, checksum); without a size there is no checksum."

    def note(self, now_ns: int, what: str) -> None:
        """Record an event that is more than a callback."""
        self.flush()
        self._hash.update(b"%d %s\n" % (now_ns, what.encode()))
        self._story.append((now_ns, what, 0, 0))

    def packet(self, now_ns: int, pipe: str, mark: int, size: int, checksum: int) -> None:
        """Record bytes that arrive: ``mark`` is of pipe and checksum, ``pipe`` what people call it."""
        self.steps += (now_ns, mark)
        self._story.append((now_ns, pipe, size, checksum))

    def flush(self) -> None:
        """Move the steps into the digest."""
        if self.steps:
            self._hash.update(array("Q", self.steps))
            self.steps.clear()

    def digest(self) -> str:
        """Of everything so far."""
        self.flush()
        return self._hash.hexdigest()

    @property
    def story(self) -> list[str]:
        """The last events, for people."""
        return [
            f"{now_ns / NS_PER_S:12.6f} {what}" + (f" {size} bytes {checksum:08x}" if size else "")
            for now_ns, what, size, checksum in self._story
        ]
