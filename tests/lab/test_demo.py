"""``ssastore demo`` that somebody ends, or that cannot be. The whole of it: tests/lab/test_wheel.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ssastore.lab.interfaces import Interfaces
from ssastore.lab.processes import Processes
from ssastore.lab.stage import Stage
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
    assert "Traceback" not in complaints.read_text(), complaints.read_text()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "interrupted" in complaints.read_text()


def test_without_networks_the_demo_says_so_and_leaves_nothing(tmp_path: Path, inside: Any) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    ports = ["--s3-port", str(free_port()), "--admin-port", str(free_port())]

    def work() -> tuple[int, str, str]:
        interfaces = Interfaces()
        interfaces.switch(socket.if_nametoindex("lo"), up=True)
        interfaces.close()
        for kind in ("user", "net"):
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        command = [PYTHON, "-m", "ssastore", "demo", "--unattended", *ports]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=100)
        return done.returncode, done.stdout, done.stderr

    code, told, said = inside(work)
    assert (code, told) == (1, "")
    assert "needs network hosts of its own" in said and "sysctl -w user.max_net_namespaces" in said
    assert "Traceback" not in said and not list((tmp_path / "tmp").iterdir())


def test_what_fails_on_the_client_host_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="fill 1"):
        Stage(tmp_path, "no-such-lab", lambda text: None).ask("fill", "1")


def test_a_lab_that_does_not_get_ready_says_what_its_processes_said(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    for name, line in (("n1", "CRITICAL n1/0 worker.refused reason='full'"), ("n2", "INFO n2 node.ready")):
        processes.start(name, ["sh", "-c", f'echo "first CRITICAL"; echo "12:00 {line}"; echo then'], None)
    wait_until(lambda: all(processes.has_ended(name) for name in ("n1", "n2")), "both have said it")
    assert processes.complaints() == ["12:00 CRITICAL n1/0 worker.refused reason='full'"]
