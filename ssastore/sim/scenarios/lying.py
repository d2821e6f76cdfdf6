"""Lying: a disk says that commits are durable, the power goes, and what others were told is not there.

Every round is one of ``recovery`` in which a node forgets everything since a moment before the last mark
that it told.  Its start must notice that, vote for nothing and rebuild; then no client is told
anything that the forgotten votes forbid.
"""

from __future__ import annotations

from functools import partial

from ssastore.sim.scenarios import recovery
from ssastore.sim.stage import Scenario

SCENARIO = Scenario(
    "lying",
    "disks forget what they have acknowledged, and the start must notice",
    partial(recovery.play, ways=("lying",)),
    recovery.swarm,
    recovery.shape,
    nodes=4,
)
