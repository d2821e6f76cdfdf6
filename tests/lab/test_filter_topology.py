"""A lab behind a filter: clients get through it, and whoever breaks the rule does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from ssastore.errors import ConfigError
from ssastore.lab.options import FILTER, UpOptions, check_options
from tests.bpf import need_bpf
from tests.lab.shared import module_lab
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

RULES = "v=SSA1; replicas=1; data=content+source"
SHAPE = ("--nodes", "2", "--replicas", "1", "--workers", "1", "--topology", "filter", "--rules", RULES)
DIAL = """
import socket, sys
s = socket.socket(socket.AF_INET6); s.settimeout(1.5)
try: s.connect((sys.argv[1], int(sys.argv[2]))); print("open")
except OSError as error: print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    need_bpf()
    with module_lab(tmp_path_factory, "filter", *SHAPE) as found:
        yield found


def counts(lab: RunningLab) -> dict[str, int]:
    command = (PYTHON, "-m", "ssastore", "filter", "show", "outside", "--json")
    told = lab.cli("exec", "--host", "router", "--", *command)
    found: dict[str, int] = json.loads(told.stdout)["counts"]
    return found


def test_clients_get_through_the_filter_and_strangers_do_not(lab: RunningLab, tmp_path: Path) -> None:
    """By the rule to nodes, and to a gateway in the part of the front plane that has none."""
    large, found = tmp_path / "large", tmp_path / "found"
    large.write_bytes(bytes(range(256)) * 8192)
    lab.cli("mb", "behind")
    lab.cli("put", "behind/large", str(large))
    lab.cli("get", "behind/large", str(found))
    assert found.read_bytes() == large.read_bytes()
    service = IPv6Network(lab.status()["service"])
    gateway = str(service[0xF0AB << 48 | 5])
    assert lab.python(DIAL, gateway, "7482").strip() == "open"
    before = counts(lab)
    assert before["kept"] > 0 and before["open"] > 0 and before["known good, sent"] > 100
    assert before["assumed good, dropped"] == before["known good, dropped"] == before["unmarked"] == 0
    stray = str(service[0x0234_5678_9ABC_DEF0])
    assert lab.python(DIAL, stray, "7480").strip() == "TimeoutError"
    after = counts(lab)
    assert after["tail"] > before["tail"]


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.lab.options.os.geteuid", lambda: 1000)
    options = UpOptions(
        nodes=1,
        replicas=1,
        workers=1,
        data_dir=None,
        s3_port=0,
        admin_port=0,
        name="filter",
        service=None,
        simulate=False,
        topology=FILTER,
    )
    with pytest.raises(ConfigError, match="needs root"):
        check_options(options)
