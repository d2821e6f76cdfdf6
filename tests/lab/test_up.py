"""How ``ssastore up`` ends: interrupted, killed, refused. It leaves nothing that runs, nothing in /tmp."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.shared import is_alive, parent_of, processes_with, wait_until
from tests.labs import PYTHON, RunningLab, free_port, start_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files of everything that a test starts."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    return scratch


def start_up(tmp_path: Path, *options: str, admin_port: int = 0) -> subprocess.Popen[str]:
    """``ssastore up`` in the foreground, not waited for."""
    ports = ["--s3-port", str(free_port()), "--admin-port", str(admin_port or free_port())]
    return subprocess.Popen(
        [PYTHON, "-m", "ssastore", "up", "--nodes", "2", "--workers", "1", *ports, *options],
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_starting(directory: Path, pattern: str) -> None:
    """Until the last process of a lab was started; it is far from ready then."""
    wait_until(lambda: bool(list(directory.glob(pattern))), "the gateway is started")


def is_asking(port: int) -> bool:
    """Whether somebody has a connection to that port of 127.0.0.1."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    remote = f"0100007F:{port:04X}"
    return any(line.split()[2:4] == [remote, "01"] for line in lines)


def lab_pid(lab: RunningLab) -> int:
    path = Path(lab.environment["XDG_STATE_HOME"], "ssastore", "contexts", f"{lab.name}.json")
    pid: int = json.loads(path.read_text())["pid"]
    return pid


def zombies_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_while_starting_leaves_nothing(
    tmp_path: Path, scratch: Path, inside: Any, number: int
) -> None:
    """Twice, as people press Ctrl-C. The gateway does not answer yet: waiting for it must not go on."""
    port = free_port()
    process = start_up(tmp_path, admin_port=port)
    wait_until(
        lambda: is_asking(port), "the gateway, which does not listen yet, is asked whether all is ready"
    )
    process.send_signal(number)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert list(scratch.iterdir()) == []
    assert processes_with(str(scratch)) == {}
    assert list((tmp_path / "state").rglob("*.json")) == []


def test_interrupt_of_detaching_ends_the_lab(tmp_path: Path, scratch: Path, inside: Any) -> None:
    """Who waits for ``up --detach`` and gives up must not find a lab later."""
    process = start_up(tmp_path, "--detach")
    wait_until_starting(scratch, "ssastore-*/log/gateway.log")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output.strip()) == (130, "ssastore: interrupted")
    assert list(scratch.iterdir()) == []
    assert processes_with(str(scratch)) == {}
    assert list((tmp_path / "state").rglob("*.json")) == []


@pytest.mark.parametrize("network", [[], ["--simulate"]], ids=["real", "simulated"])
def test_killed_lab_takes_all_along_and_starts_again(
    tmp_path: Path, scratch: Path, inside: Any, network: list[str]
) -> None:
    """First while it starts, then when it runs; its data, context and socket do not hinder the next start."""
    starting = start_up(tmp_path, "--data", str(tmp_path / "data"), *network)
    wait_until_starting(tmp_path, "data/log/gateway.log")
    starting.kill()
    starting.communicate()
    wait_until(
        lambda: not processes_with(str(tmp_path)), "the processes of a lab killed while starting are gone"
    )
    lab = start_lab(tmp_path, "killed", "--nodes", "2", "--workers", "1", *network)
    lab.cli("mb", "bucket")
    lab.cli("put", "bucket/a", input="acknowledged")
    require_processes(lab, {"up": 1, "node": 2, "gateway": 1, "worker": 2})
    require_refusal_without_gateway(lab)
    os.kill(lab_pid(lab), signal.SIGKILL)
    wait_until(lambda: not processes_with(str(tmp_path)), "the processes of a killed lab are gone")
    stale = lab.cli("status", check=False)
    assert (stale.returncode, stale.stderr) == (
        2,
        "ssastore: no lab 'killed' is running; start one with: ssastore up\n",
    )
    again = start_lab(tmp_path, "killed", "--nodes", "2", "--workers", "1", *network)
    try:
        assert again.cli("get", "bucket/a").stdout == "acknowledged"
    finally:
        again.stop()
    assert list(scratch.iterdir()) == []


def require_processes(lab: RunningLab, wanted: dict[str, int]) -> None:
    lines = processes_with(str(lab.data)).values()
    assert Counter(re.findall(r"-m ssastore[ .](\w+)", "\n".join(lines))) == wanted


def require_refusal_without_gateway(lab: RunningLab) -> None:
    """A gateway that died is reported and its ports refuse; nothing hangs and no zombie stays."""
    (gateway,) = [pid for pid, line in processes_with(str(lab.data)).items() if "gateway.toml" in line]
    assert parent_of(gateway) == lab_pid(lab)
    os.kill(gateway, signal.SIGKILL)
    wait_until(lambda: not is_alive(gateway), "the gateway is gone")
    wait_until(lambda: not zombies_of(lab_pid(lab)), "the gateway's exit code is fetched")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", lab.s3_port), 5)
    status = lab.cli("status", check=False)
    assert status.returncode == 5
    assert f"127.0.0.1:{lab.admin_port} does not answer" in status.stderr
    log = Path(lab.environment["XDG_STATE_HOME"], "ssastore", "contexts", f"{lab.name}.log")
    assert "gateway ended with code -9" in log.read_text()


def test_deep_data_directory_has_its_socket_elsewhere(tmp_path: Path, scratch: Path) -> None:
    """A Unix socket's path has at most 107 bytes."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    lab = start_lab(deep, "deep", "--nodes", "1", "--workers", "1", "--simulate")
    assert [path.name for path in scratch.glob("ssa-*/*")] == ["control.sock"]
    lab.stop()
    assert list(scratch.iterdir()) == []


def test_down_ends_no_stranger(tmp_path: Path) -> None:
    """A lab was killed, and its process id now belongs to somebody whose command line names ssastore too."""
    with subprocess.Popen([PYTHON, "-c", "input()", "ssastore"], stdin=subprocess.PIPE) as stranger:
        contexts = tmp_path / "ssastore" / "contexts"
        contexts.mkdir(parents=True)
        fields = dict.fromkeys(("port", "replicas", "s3_port", "admin_port", "started_ms"), 1)
        texts = dict.fromkeys(("service", "data_dir", "control", "secrets_file", "region"), "x")
        context = {"name": "lab", "pid": stranger.pid, "birth": 12345, **fields, **texts}
        (contexts / "lab.json").write_text(json.dumps(context))
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
        command = [PYTHON, "-m", "ssastore", "down"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (
            2,
            "ssastore: no lab is running; start one with: ssastore up\n",
        )
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def make_file(path: Path) -> None:
    path.write_text("")


def make_foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("")


def make_broken(path: Path) -> None:
    path.mkdir()
    (path / "lab.json").write_text("[]")


def make_other_shape(path: Path) -> None:
    path.mkdir()
    shape = {"service": "fd00:1:2:1::/64", "nodes": 3, "replicas": 1, "workers": 1}
    (path / "lab.json").write_text(json.dumps(shape))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (make_file, "File exists"),
        (make_foreign, "holds thesis.tex and no lab"),
        (make_broken, "lab.json is not what ssastore up writes"),
        (make_other_shape, "holds a lab with nodes=3, asked for 2"),
    ],
)
def test_directory_that_is_no_data_directory_is_refused(
    tmp_path: Path, make: Callable[[Path], None], text: str
) -> None:
    make(tmp_path / "data")
    before = sorted(tmp_path.rglob("data/*"))
    process = start_up(tmp_path, "--data", str(tmp_path / "data"), "--detach")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 3, output
    assert text in output
    assert "Traceback" not in output
    assert sorted(tmp_path.rglob("data/*")) == before
    assert list((tmp_path / "state").rglob("*.json")) == []
