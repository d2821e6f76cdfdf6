"""``ssastore demo`` that somebody ends in the middle. The whole of it: tests/lab/test_wheel.py."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.shared import processes_with, wait_until
from tests.labs import PYTHON, free_port

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


def mounts_of_namespaces() -> set[str]:
    return {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " nsfs " in line}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_the_demo_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Method: ended while clients work; then looked for processes, files, mounts.

    Namespaces are held by processes or mounts alone: where neither is left, they are gone.
    """
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    mounts = mounts_of_namespaces()
    ports = ["--s3-port", str(free_port()), "--admin-port", str(free_port())]
    command = [PYTHON, "-m", "ssastore", "demo", "--unattended", *ports]
    complaints, said = tmp_path / "complaints", ""
    with (
        open(complaints, "w") as log,
        subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        name = f"demo-{process.pid}"
        try:
            for line in process.stdout:
                said += line
                if "before" in line:
                    break
            assert "ready in" in said, complaints.read_text()
            assert processes_with(name) and list((tmp_path / "tmp").iterdir())
            time.sleep(0.5)
            process.send_signal(number)
            process.wait(60)
        finally:
            process.kill()
    wait_until(lambda: not processes_with(name), "the lab's own processes are gone", 60)
    wait_until(lambda: not processes_with(str(tmp_path / "tmp")), "nodes, gateway and load are gone")
    wait_until(lambda: not list((tmp_path / "tmp").iterdir()), "its data is gone")
    assert not list((tmp_path / "state").rglob("*.*")), "its context is gone"
    assert mounts_of_namespaces() == mounts
    if number == signal.SIGINT:
        assert process.returncode == 130 and "interrupted" in complaints.read_text()
