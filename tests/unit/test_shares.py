"""Several processes of pytest run each test once, and one of them that fails is enough to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.shares import ALONE, MARKS, SHARE, SHARES, verdict

ROOT = Path(__file__).parents[2]
WAITING = """
import os, pytest, time

def test_one():
    # Until all have begun, each with its first file.
    deadline = time.monotonic() + 20
    while not {"test_0.py", "test_1.py", "test_5.py"} <= set(os.listdir(os.environ["SSASTORE_TEST_MARKS"])):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def test_two():
    pass

@pytest.mark.alone
def test_three():
    pass
"""
FORKING = "import pytest\n\n@pytest.fixture\ndef inside():\n    pass\n\ndef test_fork(inside):\n    pass\n"


def run(directory: Path, *options: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    environment = {name: value for name, value in os.environ.items() if name not in (MARKS, SHARE)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.shares",
            "-q",
            "-c",
            "/dev/null",
            "-W",
            "ignore",
            "--rootdir",
            ".",
            *options,
        ],
        cwd=directory,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        text=True,
        capture_output=True,
    )
    return done.returncode, done.stdout + done.stderr


def write(directory: Path, count: int, text: str) -> None:
    for number in range(count):
        (directory / f"test_{number}.py").write_text(text)


def names(directory: Path, number: int) -> list[str]:
    report = ElementTree.parse(directory / f"report.{number}.xml")
    return [f"{case.get('classname')}.{case.get('name')}" for case in report.iter("testcase")]


def test_every_test_runs_once_and_each_process_has_some(tmp_path: Path) -> None:
    write(tmp_path, 6, WAITING)
    code, output = run(tmp_path, "--junitxml=report.{share}.xml")
    assert code == 0, output
    *front, back = (names(tmp_path, number) for number in range(SHARES))
    expected = {f"test_{number}.test_{which}" for number in range(6) for which in ("one", "two")}
    assert Counter([*front[0], *front[1], *back]) == Counter(expected)
    assert names(tmp_path, ALONE) == [f"test_{number}.test_three" for number in range(6)]
    assert sorted(found[0] for found in front) == ["test_0.test_one", "test_1.test_one"]
    assert back[:2] == ["test_5.test_one", "test_5.test_two"]


def test_files_with_tests_that_fork_are_not_for_the_last_process_and_a_failure_is_told(
    tmp_path: Path,
) -> None:
    write(tmp_path, 4, FORKING)
    (tmp_path / "test_1.py").write_text(f"{FORKING}    assert 1 == 2\n")
    code, output = run(tmp_path, "--junitxml=report.{share}.xml")
    assert code == pytest.ExitCode.TESTS_FAILED and "assert 1 == 2" in output
    *front, back = (names(tmp_path, number) for number in range(SHARES))
    assert sum(map(len, front)) == 4 and back == []


def test_the_process_at_the_end_reads_only_files_that_have_something_for_it(tmp_path: Path) -> None:
    noting = f"import os\n\nwith open(__file__ + '.read', 'a') as f: f.write(os.environ['{SHARE}'])\n\n"
    write(tmp_path, 3, f"{noting}def test_one():\n    pass\n")
    alone = f"{noting}import pytest\n\n@pytest.mark.alone\ndef test_alone():\n    pass\n"
    (tmp_path / "test_1.py").write_text(alone)
    code, output = run(tmp_path, "--junitxml=report.{share}.xml")
    assert code == 0, output
    assert names(tmp_path, ALONE) == ["test_1.test_alone"]
    read = [sorted((tmp_path / f"test_{number}.py.read").read_text()) for number in range(3)]
    assert read == [["0", "1", "2"], ["0", "1", "2", str(ALONE)], ["0", "1", "2"]]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0, 0], 0), ([5, 0, 5], 0), ([5, 5, 5], 5), ([0, 5, 1], 1), ([2, 1, 0], 2), ([-9, 0, 0], -9)],
)
def test_one_process_that_fails_is_enough_and_one_with_tests_too(codes: list[int], expected: int) -> None:
    assert verdict(codes) == expected


def test_who_goes_on_in_another_directory_has_torn_the_last_one_down(tmp_path: Path) -> None:
    """Between two files of a process lie those of others: what those need must not be kept for them."""
    for directory in ("a", "b", "c"):
        (tmp_path / directory).mkdir()
        write(tmp_path / directory, 4, "import time\n\ndef test_one():\n    time.sleep(0.2)\n")
    code, output = run(tmp_path, "--junitxml=report.{share}.xml", "--import-mode=importlib")
    assert code == 0, output
    assert sum(len(names(tmp_path, number)) for number in range(SHARES)) == 12
