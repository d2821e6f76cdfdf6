"""Standard streams as shells and services hand them over: closed, broken, or without our letters."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ssastore.lab.context import birth_of
from tests.labs import PYTHON


@pytest.fixture
def environment(tmp_path: Path, secrets_file: Path) -> dict[str, str]:
    """A lab that is only a context file, of this process: enough for ``s3 env``."""
    contexts = tmp_path / "state" / "ssastore" / "contexts"
    contexts.mkdir(parents=True)
    numbers = dict.fromkeys(("port", "replicas", "s3_port", "admin_port", "started_ms"), 1)
    texts = dict.fromkeys(("service", "data_dir", "control"), "x")
    context = {"name": "lab", "pid": os.getpid(), "birth": birth_of(os.getpid()), **numbers, **texts}
    context |= {"region": "здесь", "secrets_file": str(secrets_file)}
    (contexts / "lab.json").write_text(json.dumps(context))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "state")}


def run_with(closed: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the streams closed that the shell text ``closed`` says."""
    script = ["sh", "-c", f'exec "$@" {closed}', "sh", PYTHON, "-m", "ssastore", *arguments]
    return subprocess.run(script, env=environment, text=True, capture_output=True, check=False)


def test_closed_input_is_not_an_empty_object(environment: dict[str, str]) -> None:
    done = run_with("<&-", environment, "put", "bucket/key")
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input is closed" in done.stderr


def test_get_to_a_closed_output_is_refused(environment: dict[str, str]) -> None:
    done = run_with(">&-", environment, "get", "bucket/key")
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(environment: dict[str, str], closed: str) -> None:
    """Number 0, 1 or 2 would go to the next file that is opened, and take what is printed."""
    done = run_with(closed, environment, "s3", "env")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("AWS_ENDPOINT_URL" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert run_with(closed, environment, "--context", "none", "status").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code"), [(["s3", "env"], 141), (["--help"], 1), (["s3", "env", "--json"], 141)]
)
def test_reader_that_has_gone_ends_it_quietly(
    environment: dict[str, str], arguments: list[str], code: int
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [PYTHON, "-m", "ssastore", *arguments]
        done = subprocess.run(
            command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "xx_YY"},
    ],
)
def test_letters_that_the_locale_lacks_are_escaped(
    environment: dict[str, str], variables: dict[str, str]
) -> None:
    command = [PYTHON, "-m", "ssastore", "s3", "env"]
    done = subprocess.run(command, env=environment | variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"AWS_DEFAULT_REGION=" in done.stdout
    assert "здесь".encode() in done.stdout or b"\\u0437\\u0434\\u0435\\u0441\\u044c" in done.stdout


def test_output_has_no_colour(environment: dict[str, str]) -> None:
    for arguments in (["--help"], ["s3", "env"], ["nope"]):
        for variables in ({"NO_COLOR": "1"}, {"TERM": "xterm-256color"}):
            done = run_with("", environment | variables, *arguments)
            assert "\x1b" not in done.stdout + done.stderr
