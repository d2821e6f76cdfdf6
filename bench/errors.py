"""What ends a run, or leaves one target out of it."""

from __future__ import annotations


class BenchError(Exception):
    """A server or a load generator failed: the run ends, there are no figures to trust."""


class LeftOut(Exception):
    """A target cannot run on this machine; the text says why. The others go on."""
