"""Bytes as people write and read them."""

from __future__ import annotations

import click
import pytest

from ssastore.cli.sizes import Size, size


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("500", 500), ("10k", 10240), ("10G", 10 << 30), ("2T", 2 << 40)]
)
def test_sizes_are_powers_of_1024(text: str, count: int) -> None:
    assert Size().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "k", "1.5M", "-1", "10 G", "0x10", "1KiB", "9" * 5000])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["7", "64M"])
def test_bounds_are_said(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"at least 8 B, at most 1\.0 MiB"):
        Size(8, 1 << 20).convert(text, None, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (3 << 40, "3.0 TiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_are_said_in_one_unit(count: int, text: str) -> None:
    assert size(count) == text
