"""Units of systemd and the init script, by the tools that read them; who may do what on a host."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssastore import system

FOLDER = Path(__file__).parents[2] / "packaging"
UNITS = sorted([*FOLDER.glob("systemd/*.service"), *FOLDER.glob("systemd/*.target")])
EXPOSURE_MAX = 2.5
"Of ten: what `systemd-analyze security` calls OK."


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Units whose programs exist."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is absent (Debian: systemd)")
    made = [tmp_path / path.name for path in UNITS]
    for path, copy in zip(UNITS, made, strict=True):
        copy.write_text(re.sub(r"/usr/bin/(ssastore|etcd)", "/bin/true", path.read_text()))
    return made


def test_systemd_takes_the_units(units: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    units[0].write_text(units[0].read_text().replace("[Service]", "[Service]\nColour=red"))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert "Colour" in done.stderr


def test_services_may_do_little(units: list[Path]) -> None:
    for unit in units:
        if unit.suffix == ".service":
            limit = f"--threshold={int(EXPOSURE_MAX * 10)}"
            command = ["systemd-analyze", "security", "--offline=true", "--no-pager", limit, str(unit)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-200:]


def test_one_unit_sets_routes() -> None:
    with_it = [
        unit.name for unit in UNITS if re.search(r"^Ambient.*NET_ADMIN", unit.read_text(), re.MULTILINE)
    ]
    assert with_it == ["ssastore-node.service"]
    for unit in UNITS:
        if unit.name not in ("ssastore-admit.service", "ssastore.target"):
            assert "\nUser=ssastore\n" in unit.read_text(), unit


def test_no_service_but_admission_writes_settings() -> None:
    """Whoever takes one over would else say what root believes next. Admission alone is root's."""
    for unit in UNITS:
        text = unit.read_text()
        if unit.suffix == ".service":
            assert "\nProtectSystem=strict\n" in text, unit
            assert ("ReadWritePaths=" in text) == (unit.name == "ssastore-admit.service"), unit


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_init_script_says_what_is_missing(shell: str, tmp_path: Path) -> None:
    script, environment = FOLDER / "init.d" / "ssastore", os.environ | {"SSASTORE_SETTINGS": str(tmp_path)}
    for argument, code, text in (
        ("start", 6, "site.json is not there"),
        ("", 2, "usage:"),
        ("status", 3, ""),
    ):
        done = subprocess.run([shell, script, argument], env=environment, capture_output=True, text=True)
        assert done.returncode == code and text in done.stderr, argument


class Host:
    """What the init script is told of a host; its ssastore fails, or has nothing to do."""

    def __init__(self, folder: Path, program: str = "") -> None:
        self.run_dir = folder / "run"
        for name in ("etc", "run", "log"):
            (folder / name).mkdir()
        (folder / "etc" / "site.json").write_text("{}")
        (folder / "ssastore").write_text(f"#!/bin/sh\n{program}\n")
        (folder / "ssastore").chmod(0o755)
        names = {"SETTINGS": "etc", "RUN": "run", "LOG": "log", "": "ssastore"}
        self.environment = os.environ | {
            f"SSASTORE_{name}".rstrip("_"): str(folder / part) for name, part in names.items()
        }

    def call(self, argument: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", FOLDER / "init.d" / "ssastore", argument],
            env=self.environment | changed,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in self.run_dir.glob("*.pid")}


def test_the_init_script_lets_a_process_be_that_has_a_number_of_ours(tmp_path: Path) -> None:
    """Where /run outlives the processes, as in a container that is started again, numbers come back."""
    host = Host(tmp_path, "exit 0")
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as other:
        try:
            for name in ("form", "node", "gateway"):
                (host.run_dir / f"{name}.pid").write_text(f"{other.pid}\n")
            assert host.call("status").returncode == 3
            assert host.call("stop").returncode == 0
            assert other.poll() is None, "it is not ours"
            assert host.call("start").returncode == 0
            while host.pids():  # All of ours have done their work: none waited for that other one.
                time.sleep(0.02)
        finally:
            other.kill()


def test_the_init_script_ends_all_that_it_began(tmp_path: Path) -> None:
    """The node and the gateway wait for a cluster, which is never formed."""
    host = Host(tmp_path, "sleep 100")
    assert host.call("start").returncode == 0
    pids = host.pids()
    assert sorted(pids) == ["form", "gateway", "node"]
    assert host.call("status").returncode == 0
    assert host.call("stop").returncode == 0 and not host.pids()
    for pid in pids.values():
        assert b" keep " not in cmdline(pid).replace(b"\0", b" ")


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_the_init_script_says_what_it_cannot_do(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for changed, code, text in (
        ({"SSASTORE": "no-such-program"}, 5, "no-such-program is not found in "),
        ({"SSASTORE_RUN": "/proc/nowhere"}, 4, "/proc/nowhere"),
    ):
        done = host.call("start", **changed)
        assert done.returncode == code and text in done.stderr, done
    done = host.call("start", SSASTORE="no-such-program", PATH="/usr/bin:/bin")
    assert "/usr/bin:/bin:/usr/local/sbin:/usr/local/bin" in done.stderr
    assert not host.pids()


def test_a_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system.tell_service_manager("READY=1")  # Nobody wants to hear it.
    for path in (str(tmp_path / "notify"), f"@ssastore-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind("\0" + path[1:] if path[0] == "@" else path)
            monkeypatch.setenv("NOTIFY_SOCKET", path)
            system.tell_service_manager("READY=1")
            assert select.select([sock], [], [], 5)[0] and sock.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    system.tell_service_manager("READY=1")


def test_who_gives_up_the_privilege_has_it_no_more() -> None:
    program = (
        "from ssastore.system import give_up_route_privilege as give_up\n"
        "give_up()\n"
        "print([line for line in open('/proc/self/status') if line.startswith('Cap')])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    sets = {name: int(value, 16) for name, value in re.findall(r"(Cap\w+):\\t(\w+)", told)}
    assert [sets[name] >> 12 & 1 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    # Root keeps the rest: a lab's worker is root of a namespace, and reads its files.
    if os.geteuid() == 0:
        assert sets["CapEff"] != 0
