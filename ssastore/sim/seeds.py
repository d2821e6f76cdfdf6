"""Streams of randomness: one for each purpose, all from the seed of the run.

Separate streams, so that one more draw in one place changes nothing in another.
"""

from __future__ import annotations

from random import Random  # noqa: TID251  # the generator, seeded; never the module's own


class Stream(Random):
    """A seeded generator for one purpose; implements ``env.Randomness`` as well."""

    def __init__(self, seed: int, purpose: str) -> None:
        # Text is seeded by its SHA-512: the same in every process, whatever its string hashes are.
        super().__init__(f"{seed}/{purpose}")

    def bytes(self, count: int) -> bytes:
        """See ``env.Randomness``."""
        return self.randbytes(count)

    def below(self, bound: int) -> int:
        """See ``env.Randomness``."""
        return self.randrange(bound)

    def chance(self, share: float) -> bool:
        """True in ``share`` of the cases."""
        return share > 0 and self.random() < share

    def span_ns(self, mean_ns: int) -> int:
        """An exponentially distributed time, from 0."""
        return int(self.expovariate(1.0) * mean_ns) if mean_ns else 0
