"""Mend5: as ``mend``, with five replicas, where two planes are away from who heals a copy.

With three, who heals has the promises of both others, and one of them knows of every round that
can win.  With five it asks three of the four others: a round may have its promises elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from ssastore.sim.scenarios import mend

SCENARIO = replace(
    mend.SCENARIO,
    name="mend5",
    about="copies of five replicas rot one at a time, and are healed while everybody writes",
    replicas=5,
)
