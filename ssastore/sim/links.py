"""One direction between two hosts: how long packets take, and whether they pass.

Connections are TCP: what the network loses is sent again, so loss is never seen as
loss but as delay.  A link that is held lets nothing pass; when it
is released, what was on the way comes after one more wait, as retransmissions do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.loop import VirtualLoop
from ssastore.sim.seeds import Stream

RETRANSMIT_NS_MAX = 3 * NS_PER_S
"A retransmission comes at most this long after a link works again; real TCP backs off up to two minutes."


@dataclass(slots=True)
class Weather:
    """How the network is just now; every link reads it for every packet, so it may change in a run."""

    latency_ns: int = NS_PER_MS // 10
    "Least time from host to host."
    jitter_ns: int = NS_PER_MS // 10
    "Mean of what is added to it, for each packet."
    late_share: float = 0.0
    "Packets that are held up on the way. They arrive even if their connection has ended meanwhile."
    late_ns: int = 300 * NS_PER_MS
    "For how long, on average."
    split_share: float = 0.2
    "Writes that arrive in pieces, cut anywhere."
    refused_share: float = 0.0
    "Dials that are refused although somebody listens."
    bytes_per_s: int = 0
    "Of each link; 0 is no limit."
    window_bytes: int = 256 * 1024
    "What one direction of a connection takes without the other side's reading."


CALM = Weather(latency_ns=10_000, jitter_ns=10_000)
"Inside one host."


class Link:
    """From one host to another."""

    def __init__(self, loop: VirtualLoop, draw: Stream, weather: Weather) -> None:
        self.loop = loop
        self.weather = weather
        self._schedule = loop.schedule
        self._draw = draw
        self._holds = 0
        self.is_held = False
        self._held_at_ns = 0
        self._busy_until_ns = 0
        self._waiting: list[Callable[[], None]] = []

    def arrival_ns(self, size: int, after_ns: int) -> int:
        """When a packet sent now arrives; later than ``after_ns``, when the one before it does."""
        weather, draw = self.weather, self._draw
        now_ns = self._schedule.now_ns
        if weather.bytes_per_s:
            begin_ns = max(now_ns, self._busy_until_ns)
            now_ns = self._busy_until_ns = begin_ns + size * NS_PER_S // weather.bytes_per_s
        arrival_ns = now_ns + weather.latency_ns
        if weather.jitter_ns:
            # An exponential distribution, written out: every packet comes this way.
            arrival_ns += int(-log(1.0 - draw.random()) * weather.jitter_ns)
        if weather.late_share and draw.random() < weather.late_share:
            arrival_ns += draw.span_ns(weather.late_ns)
        return arrival_ns if arrival_ns > after_ns else after_ns + 1

    def pieces(self, data: bytes) -> list[bytes]:
        """``data`` as the packets that it travels in."""
        share = self.weather.split_share
        if not share or len(data) < 2 or self._draw.random() >= share:
            return [data]
        cuts = sorted({self._draw.randrange(1, len(data)) for _ in range(self._draw.randint(1, 3))})
        return [data[first:end] for first, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def hold(self) -> None:
        """Let nothing pass until as many ``release``."""
        if not self._holds:
            self._held_at_ns = self.loop.now_ns
        self._holds += 1
        self.is_held = True

    def release(self) -> None:
        """Take one ``hold`` back."""
        assert self._holds > 0
        self._holds -= 1
        if self._holds:
            return
        self.is_held = False
        wait_ns = min(self.loop.now_ns - self._held_at_ns, RETRANSMIT_NS_MAX)
        waiting, self._waiting = self._waiting, []
        for again in waiting:
            self.loop.at(self.loop.now_ns + self._draw.randrange(wait_ns + 1), again)

    def when_released(self, again: Callable[[], None]) -> None:
        """Call when a sender would next try, some time after the release; it has to look again then."""
        assert self._holds
        self._waiting.append(again)
