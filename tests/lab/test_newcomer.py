"""docs/tutorial/first-cluster.md, word by word: a newcomer with that page, and nothing else.

Blocks of ``sh`` are run one after the other in one shell, as they stand; the block of ``text`` behind one is
what must be printed, in this order, with ``…`` for anything. Only the ports are others here.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ssastore.errors import NamespaceRefused
from ssastore.lab.namespaces import in_new_namespaces
from tests.labs import PYTHON, free_port

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial" / "first-cluster.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, list[str]]]:
    """Commands of the page, each with the lines that they must print."""
    found: list[tuple[str, list[str]]] = []
    for kind, text in BLOCKS.findall(PAGE):
        if kind == "sh":
            found.append((text, []))
        else:
            found[-1][1].extend(text.splitlines())
    return found


def missing(wanted: list[str], said: str) -> str:
    """The first wanted line that is not there, or not behind the one before; empty when all are."""
    lines = iter(said.splitlines())
    for line in wanted:
        pattern = re.compile(r"\s+".join(map(re.escape, line.split())).replace("…", ".*"))
        if not any(pattern.search(" ".join(one.split())) for one in lines):
            return line
    return ""


def test_a_line_that_is_missing_or_too_early_is_seen() -> None:
    assert missing(["a … c", "d"], "x\na  b c\nd\n") == ""
    assert missing(["a … c", "d"], "d\na b c\n") == "d"
    assert missing(["healthy"], "not all replicas could be compared\n") == "healthy"


def test_everything_on_the_page_works_as_it_says(tmp_path: Path) -> None:
    try:
        in_new_namespaces(bool)
    except NamespaceRefused as error:
        pytest.skip(str(error))
    found = steps()
    assert len(found) >= 10 and any("s3 cp" in command for command, _ in found)
    ports = f"--s3-port {free_port()} --admin-port {free_port()}"
    script = ["set -e"]
    for number, (command, _) in enumerate(found):
        script += [f"echo '== {number}'", command.replace("ssastore up ", f"ssastore up {ports} ")]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSASTORE_"))
    }
    environment |= {
        "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    try:
        done = subprocess.run(
            ["bash"],
            input="\n".join(script),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
    finally:
        subprocess.run(["ssastore", "down"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    for (command, wanted), text in zip(found, said, strict=True):
        assert missing(wanted, text) == "", f"{command}\n--- said ---\n{text}\n{done.stderr}"
    assert not list((tmp_path / "state").rglob("*.json")), "the lab is gone"
