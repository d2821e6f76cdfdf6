"""All tests in three processes of pytest: ``python -m tests.shares [options and paths of pytest]``.

Two take the files of tests from the front of the list and one from the back, until they meet: a file belongs
to who first makes its mark in a directory that all know.  At the front are the labs, which mostly wait: a lab
keeps a third of a core busy.  At the back are the simulator and the unit tests, which compute.  So the three
fill two cores.  The one at the back begins with the simulator, whose files take minutes each: where they meet
files are small, and none goes on alone for long.  Tests that are marked ``alone``, for they bound the time of
an answer, run after all others; their process reads only the files that have some, as all take seven seconds.

Not pytest-xdist: its workers are processes with several threads, and the tests that go on in namespaces of
their own fork, which is safe only where there is one thread.  Here the first two processes begin with them.

``{share}`` in an argument becomes the number of the process: ``--junitxml=report.{share}.xml``.  The first
one prints as it goes, what the others say comes at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARES = 3
BACK = SHARES - 1
"The one that begins with the last file."
LONG = "tests/sim/"
"Where it begins."
ALONE = SHARES
"The one more, at the end."
WITH_ALONE = "with-alone"
"Among the marks: the files that are for it, as the first process found them."

SHARE, MARKS = "SSASTORE_TEST_SHARE", "SSASTORE_TEST_MARKS"


class Share:
    """Plug-in of one of them: it runs a test only when the test's file is its own."""

    def __init__(self, number: int, marks: Path) -> None:
        self._number = number
        self._marks = marks
        self._is_mine: dict[str, bool] = {}
        listed = marks / WITH_ALONE
        self._with_alone = set(listed.read_text().splitlines()) if listed.exists() else None

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """All files but those for the last process, if this is it."""
        if self._number != ALONE or collection_path.suffix != ".py" or self._with_alone is None:
            return None
        return str(collection_path) not in self._with_alone or None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """What this process asks for, in which order. That inside a file stays."""
        is_alone = self._number == ALONE
        if self._number == 0:
            found = {str(item.path) for item in items if item.get_closest_marker("alone") is not None}
            (self._marks / WITH_ALONE).write_text("\n".join(sorted(found)))
        items[:] = [item for item in items if (item.get_closest_marker("alone") is not None) == is_alone]
        if self._number == BACK:
            files: dict[str, list[pytest.Item]] = {}
            for item in items:
                files.setdefault(file_of(item), []).append(item)
            names = list(reversed(files))
            names.sort(key=lambda file: not file.startswith(LONG))
            items[:] = [item for file in names if not forks(files[file]) for item in files[file]]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """As pytest's own, with the tests of this process alone.

        What a test has set up stays as far as the next one needs it, so that has to be known when a test
        ends: a file is claimed before the last one ends.
        """
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        own = iter([] if session.config.option.collectonly else self._own(session.items))
        item = next(own, None)
        while item is not None:
            following = next(own, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _own(self, items: list[pytest.Item]) -> Iterator[pytest.Item]:
        for item in items:
            file = file_of(item)
            if file not in self._is_mine:
                self._is_mine[file] = self._number == ALONE or self._claim(file)
            if self._is_mine[file]:
                yield item

    def _claim(self, file: str) -> bool:
        try:
            (self._marks / file.replace("/", "-")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def file_of(item: pytest.Item) -> str:
    """The path of a test's file."""
    return item.nodeid.partition("::")[0]


def forks(items: list[pytest.Item]) -> bool:
    """Whether one of these tests goes on in namespaces of its own."""
    return any("inside" in getattr(item, "fixturenames", ()) for item in items)


def own_share() -> int | None:
    """The number of this process; None when it is the only one."""
    number = os.environ.get(SHARE)
    return None if number is None else int(number)


def pytest_configure(config: pytest.Config) -> None:
    """This module is a plug-in of the processes that ``main`` starts."""
    config.pluginmanager.register(Share(int(os.environ[SHARE]), Path(os.environ[MARKS])))


def cores() -> int:
    """How many processes a test may keep busy: one, when other tests run beside it."""
    return 1 if SHARE in os.environ else min(2, os.cpu_count() or 1)


def start(number: int, arguments: list[str], marks: Path, told: Path) -> subprocess.Popen[bytes]:
    """A process of pytest; all but the first write to a file in ``told``."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.shares"]
    command += [text.replace("{share}", str(number)) for text in arguments]
    environment = os.environ | {SHARE: str(number), MARKS: str(marks)}
    if number == 0:
        return subprocess.Popen(command, env=environment)
    with open(told / str(number), "wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def verdict(codes: list[int]) -> int:
    """The exit code of a process that found something wrong, else 0. Some may have had no test."""
    nothing = int(pytest.ExitCode.NO_TESTS_COLLECTED)
    found = [code for code in codes if code != nothing]
    return next((code for code in found if code), 0) if found else nothing


def main(arguments: list[str]) -> int:
    """Run all."""
    # A shell starts what it puts in the background with Ctrl-C ignored: labs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as marks, tempfile.TemporaryDirectory() as told:
        running = [start(number, arguments, Path(marks), Path(told)) for number in range(SHARES)]
        codes = [process.wait() for process in running]
        codes.append(start(ALONE, arguments, Path(marks), Path(told)).wait())
        for said in sorted(Path(told).iterdir()):
            print(f"\n{f' process {said.name} ':=^80}\n{said.read_text(errors='replace')}", flush=True)
    return verdict(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
