"""The generated pages of the reference are what the code says, and their generator sees what it must."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(FOLDER / "generate.py"))


@pytest.mark.parametrize("name", sorted(GENERATOR["PAGES"]))
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / "reference" / name).read_text(encoding="utf-8") == GENERATOR["PAGES"][name](), (
        "run: python docs/generate.py"
    )


def test_commands_options_errors_and_operations_are_there() -> None:
    pages = {name: make() for name, make in GENERATOR["PAGES"].items()}
    assert "## ssastore node add" in pages["cli.md"] and "`--unattended`" in pages["cli.md"]
    assert "--s3-fd" not in pages["cli.md"], "hidden"
    assert "### AsyncBucket.put" in pages["python.md"] and "- `if_match`: only when" in pages["python.md"]
    assert "| · `OutcomeUnknown` |" in pages["errors.md"] and "| `NoSuchKey` | 404 |" in pages["errors.md"]
    assert "`PutObject`" in pages["s3.md"] and "`?torrent`" in pages["s3.md"]
