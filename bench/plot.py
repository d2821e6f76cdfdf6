"""A small line plot as SVG, over counts on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 230, 40, 45
_COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98", "#566573", "#117a65", "#d35400")
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A named series of (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


def log_plot(
    title: str,
    y_name: str,
    lines: Sequence[Line],
    *,
    top: float,
    bottom: float = 1.0,
    x_name: str = "nodes",
) -> str:
    """The plot; values above ``top`` are drawn at the top."""
    counts = sorted({x for line in lines for x, _ in line.points})
    low, high = log10(counts[0]), log10(counts[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        along = (log10(x) - low) / (high - low) if high > low else 0.5
        up = (min(y, top) - bottom) / (top - bottom)
        return _LEFT + along * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT - 50}" y="{_TOP - 4}">{escape(y_name)}</text>',
    ]
    for tick in range(_TICKS + 1):
        value = bottom + (top - bottom) * tick / _TICKS
        _, y = at(counts[0], value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for count in counts:
        x, y = at(count, bottom)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{count:,.0f}</text>')
    for number, line in enumerate(lines):
        parts.extend(_drawn(line.name, number, [at(x, y) for x, y in line.points]))
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 8}">{escape(x_name)}</text></svg>')
    return "\n".join(parts) + "\n"


def _drawn(name: str, number: int, points: Sequence[tuple[float, float]]) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    y = _TOP + 12 + 18 * number
    x = WIDTH - _RIGHT + 16
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
        f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>',
        f'<text x="{x + 15}" y="{y}">{escape(name)}</text>',
    ]
