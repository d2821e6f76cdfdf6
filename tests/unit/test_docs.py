"""The tables of docs/reference/operations.md are what the code says."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from ssastore import limits
from ssastore.cli import _COMMANDS
from ssastore.config import GatewayConfig, NodeConfig
from ssastore.config.described import descriptions_of

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "operations.md").read_text(encoding="utf-8")

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "s": 1000, "min": 60_000}


def settings_rows(kind: type) -> list[str]:
    """The table of a process's settings, as it must stand in the document."""
    texts = descriptions_of(kind)
    rows = []
    for field in fields(kind):
        default = "required" if field.default is MISSING else f"`{toml(field.default)}`"
        rows.append(f"| `{field.name}` | {field.type} | {default} | {texts[field.name]} |")
    return rows


def toml(value: object) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
        if isinstance(value, str)
        else str(value)
    )


def rows_below(heading: str) -> list[str]:
    """Rows of the first table under a heading, without its head."""
    section = TEXT.split(f"{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    return table[0].splitlines()[2:]


@pytest.mark.parametrize(("heading", "kind"), [("### Node", NodeConfig), ("### Gateway", GatewayConfig)])
def test_settings_are_those_of_the_code(heading: str, kind: type) -> None:
    assert rows_below(heading) == settings_rows(kind)


def test_limits_are_those_of_the_code() -> None:
    """Every constant exists, and its value stands in its row."""
    rows = [row.split("|") for row in rows_below("## Limits")]
    assert len(rows) > 10
    for _, _, value, names, _ in rows:
        stated = {number * UNITS.get(unit, 1) for number, unit in quantities(value)}
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(limits, name) in stated, (
                f"{name} is {getattr(limits, name)}, the document says {value}"
            )


def quantities(text: str) -> list[tuple[int, str]]:
    return [(int(number), unit) for number, unit in re.findall(r"(\d+) ?(\w*)", text)]


def test_commands_of_the_document_exist() -> None:
    used = set(re.findall(r"(?:^|\s|`|-- )ssastore (?:--context \S+ )?([a-z]\w*)", TEXT))
    assert used >= {"up", "down", "node", "gateway", "exec", "ready", "status"}
    assert used <= set(_COMMANDS)
