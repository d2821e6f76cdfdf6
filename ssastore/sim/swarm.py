"""Which faults a seed gets, and how much of each.

A run in which every fault happens all the time finds little: the store is never in
the state in which the next fault would matter.  So each seed draws a subset, and a
rate for each (swarm testing, as FoundationDB and TigerBeetle do).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ssastore.limits import REACH_SKEW_MS
from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.links import Weather
from ssastore.sim.seeds import Stream

NETWORK_FAULTS = ("reset", "cut", "one_way", "isolate", "clog", "astray")
PROCESS_FAULTS = ("pause", "kill", "power_off", "jump")
DISK_FAULTS = ("disk_full", "disk_error", "disk_stall", "rot")
FAULTS = (*NETWORK_FAULTS, *PROCESS_FAULTS, *DISK_FAULTS, "control")
"Kinds of ``faults.Faults``."

SKEW_MS_MAX = 4_000
"""Of a clock against the truth when a process starts: two of them then differ by less than
``limits.REACH_SKEW_MS``. More would break nothing and make more outcomes unknown (ADR 0010)."""

assert 2 * SKEW_MS_MAX < REACH_SKEW_MS

_IS_ON = 0.4
"Share of the seeds that a fault is in."


@dataclass(slots=True)
class Swarm:
    """The settings of one run. The default is no fault at all and a fast network."""

    weather: Weather = field(default_factory=Weather)
    weights: dict[str, float] = field(default_factory=dict)
    "How often each fault happens, against the others; empty: none does."
    every_ns: int = NS_PER_S
    "Mean time between faults."
    lasting_ns: int = NS_PER_S
    "Mean time until what can be undone is undone."
    faults_max: int = 100
    deschedule_every: int = 0
    deschedule_ns: int = 0
    "See ``VirtualLoop``."
    commit_ms: int = 0
    "How long a store takes to commit."
    drift_ppm: int = 0
    "Clocks run up to this much too fast or too slow."
    offset_ms: int = 0
    "Wall clocks are off by up to this when a host is made."
    jump_ms: int = 0
    "They are set to something that is off by up to this."
    lag_ns_max: int = 0
    "See ``Routing``."
    repeated_percent: int = 0
    "Requests between nodes that are delivered twice."
    lost_percent: int = 0
    "Requests between nodes that never arrive, so that a value is often left at a minority."
    astray: int = 0
    "Nodes to which each client has no route from the beginning, at most."

    def describe(self) -> str:
        """One line for a failure's report."""
        faults = " ".join(f"{kind}:{weight:.2f}" for kind, weight in self.weights.items()) or "no faults"
        return (
            f"{faults}; every {self.every_ns / NS_PER_MS:.0f} ms for {self.lasting_ns / NS_PER_MS:.0f} ms; "
            f"commit {self.commit_ms} ms; drift {self.drift_ppm} ppm, offset {self.offset_ms} ms, "
            f"jump {self.jump_ms} ms; "
            f"deschedule {self.deschedule_every}/{self.deschedule_ns}; repeated {self.repeated_percent} %, "
            f"lost {self.lost_percent} %, "
            f"astray {self.astray}; {self.weather}"
        )


def draw_swarm(seed: int, allowed: tuple[str, ...] = FAULTS) -> Swarm:
    """The settings of a seed. ``allowed`` leaves faults out that the code under test does not survive yet."""
    draw = Stream(seed, "swarm")
    weights = {kind: draw.uniform(0.1, 1.0) for kind in FAULTS if draw.chance(_IS_ON) and kind in allowed}
    is_restarted = not weights.keys().isdisjoint(("kill", "power_off"))
    is_unquiet = draw.chance(0.5)
    return Swarm(
        weather=_draw_weather(draw),
        weights=weights,
        every_ns=draw.choice((50, 200, 1000, 4000)) * NS_PER_MS,
        lasting_ns=draw.choice((20, 200, 2000, 12_000)) * NS_PER_MS,
        deschedule_every=draw.choice((5, 30, 200)) if is_unquiet else 0,
        deschedule_ns=draw.choice((50_000, 1_000_000, 10_000_000)),
        commit_ms=draw.choice((0, 1, 5, 20)),
        drift_ppm=draw.choice((0, 100, 100_000)),
        offset_ms=draw.choice((0, 1000, SKEW_MS_MAX)),
        jump_ms=draw.choice((1000, SKEW_MS_MAX) if is_restarted else (SKEW_MS_MAX, 3_600_000)),
        lag_ns_max=draw.choice((0, NS_PER_S, 30 * NS_PER_S)),
        repeated_percent=draw.choice((0, 0, 2, 20)),
        astray=draw.choice((0, 0, 1, 2)),
        lost_percent=draw.choice((0, 0, 0, 10)),
    )


def _draw_weather(draw: Stream) -> Weather:
    return Weather(
        latency_ns=draw.choice((20_000, 200_000, 5_000_000)),
        jitter_ns=draw.choice((10_000, 500_000, 20_000_000)),
        late_share=draw.choice((0.0, 0.0, 0.002, 0.02)),
        late_ns=draw.choice((50, 300, 2000)) * NS_PER_MS,
        split_share=draw.choice((0.0, 0.1, 0.5)),
        refused_share=draw.choice((0.0, 0.0, 0.1)),
        bytes_per_s=draw.choice((0, 0, 1_000_000)),
        window_bytes=draw.choice((4 * 1024, 64 * 1024, 4 * 1024 * 1024)),
    )
