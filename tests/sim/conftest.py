"""Tests of the simulator play seeds as ``ssastore sim`` does: without a log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssastore.sim.runner import quiet


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Its records would be written out and kept with each test: a seventh of the time."""
    with quiet():
        yield
