"""A file that is written can be read, what is shown is what is used, and schemas are those of the code."""

from __future__ import annotations

import json
import re
import tomllib
import tracemalloc
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from ssastore.cli import cli
from ssastore.config import load
from ssastore.config.described import KINDS, commented, schema
from ssastore.errors import ConfigError
from ssastore.limits import MIB

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def ssastore(*arguments: str) -> Any:
    return cli.main(list(arguments), standalone_mode=False)


@pytest.mark.parametrize("name", KINDS)
def test_a_commented_file_has_every_key_and_can_be_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ssastore("config", "init", name) == 0
    text = capsys.readouterr().out
    path = tmp_path / "settings.toml"
    path.write_text(text)
    found = load(str(path), KINDS[name])
    for field in fields(KINDS[name]):
        if field.default is not MISSING:
            assert getattr(found, field.name) == field.default
    # Without the marks of what is a comment it says the same.
    every = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert list(tomllib.loads(every)) == [field.name for field in fields(KINDS[name])]
    path.write_text(every)
    assert load(str(path), KINDS[name]) == found
    assert max(map(len, text.splitlines())) <= 110 and commented(name) == text


@pytest.mark.parametrize("name", KINDS)
def test_published_schemas_are_those_of_the_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ssastore("config", "schema", name) == 0
    published = DOCS / f"{name}.schema.json"
    assert published.read_text() == capsys.readouterr().out, f"ssastore config schema {name} > {published}"
    found = schema(name)
    assert found["required"] and not found["additionalProperties"]
    assert all(one["description"] and one["type"] for one in found["properties"].values())


def test_it_is_shown_where_a_value_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('control = "/c"\n# weight = 9\nsecrets_file = "/s"\nregion = "eu"\n')
    assert ssastore("config", "show", str(path), "--origin") == 0
    lines = dict(re.split(r"\s+# ", line) for line in capsys.readouterr().out.splitlines())
    assert lines['region = "eu"'] == f"{path}:4" and lines["weight = 1"] == "default"
    assert ssastore("config", "show", str(path), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "gateway" and len(told["settings"]) == len(fields(KINDS["gateway"]))
    assert ssastore("config", "show", str(path)) == 0
    assert "#" not in capsys.readouterr().out
    path.write_text('control = "/c"\ndata_dir = "/d"\nname = "n1"\nsecrets_file = "/s"\n')
    assert ssastore("config", "show", str(path)) == 0
    assert "workers = 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"), [("name = ", "Invalid value"), ("x = 1", "unknown setting"), (None, "No such file")]
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        ssastore("config", "show", str(path))
    assert str(caught.value).startswith(str(path))


def test_what_is_no_file_of_settings_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="larger than"):
            ssastore("config", "show", str(path))
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
