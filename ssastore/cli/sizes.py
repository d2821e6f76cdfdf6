"""Bytes as people write and read them."""

from __future__ import annotations

from typing import Any

import click

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DIGITS_MAX = 20
_KIB = 1024


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Bytes: a number, or one with K, M, G, T or P behind it.

    Args:
        least: bytes.
        most: bytes; None for any number.
    """

    name = "size"

    def __init__(self, least: int = 0, most: int | None = None) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """A number of bytes."""
        if isinstance(value, int):
            return value
        digits, unit = (value[:-1], value[-1:].upper()) if value[-1:].upper() in _UNITS else (value, "")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS_MAX:
            self.fail(f"{value!r} is no size: a number of bytes, or of K, M, G, T or P", param, ctx)
        found = int(digits) * _UNITS.get(unit, 1)
        if found < self._least or (self._most is not None and found > self._most):
            most = "" if self._most is None else f", at most {size(self._most)}"
            self.fail(f"{value!r} is out of bounds: at least {size(self._least)}{most}", param, ctx)
        return found


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < _KIB or unit == "TiB":
            break
        count /= _KIB
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
