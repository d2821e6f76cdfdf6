"""An upgrade goes node by node: one runs the code of the commit before this one, and nobody notices."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ssastore.message import PROTOCOL_VERSION
from tests.labs import PYTHON, RunningLab, running_lab

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
# Sixty objects of a hashed bucket are in as many groups.
WORK = """
import asyncio, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main(round):
    async with AsyncClient.from_env() as client:
        bucket = client.bucket("mixed")
        if round == 1:
            await client.create_bucket("mixed", shards=0)
        keys = [f"k{n}" for n in range(60)]
        before, now = str(round - 1).encode(), str(round).encode()
        if round > 1:
            assert set(await asyncio.gather(*map(bucket.get, keys))) == {before}
        await asyncio.gather(*(bucket.put(key, now) for key in keys))
        assert set(await asyncio.gather(*map(bucket.get, keys))) == {now}

run(main(int(sys.argv[1])))
"""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A directory with the package of the commit before this one; of this one in a clone without history."""
    git = ["git", "-C", str(ROOT)]
    has_history = subprocess.run([*git, "rev-parse", "--quiet", "--verify", "HEAD^"], capture_output=True)
    commit = "HEAD" if has_history.returncode else "HEAD^"
    archive = subprocess.run([*git, "archive", commit, "ssastore"], capture_output=True, check=True)
    folder = tmp_path / "former"
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def start_former(lab: RunningLab, node: str, former: Path) -> subprocess.Popen[str]:
    """A node of the lab, by the code of another directory: Python finds first what is where it is started.

    The lab's own commands are of this version; what they note of a lab is nothing that versions share.
    """
    settings = lab.data / "config" / f"{node}-former.toml"
    # Without what only this version knows.
    settings.write_text(
        f'name = "{node}"\ncontrol = "{lab.data / "control.sock"}"\nworkers = 1\n'
        f'data_dir = "{lab.data / "nodes" / node}"\nsecrets_file = "{lab.data / "secrets.json"}"\n'
    )
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "exec", "--host", node, "--"]
    with open(lab.data / "log" / "former.log", "wb") as log:
        return subprocess.Popen(
            [
                *command,
                "env",
                f"--chdir={former}",
                PYTHON,
                "-m",
                "ssastore",
                "node",
                "--config",
                str(settings),
            ],
            env=lab.environment,
            stdout=log,
            stderr=log,
            text=True,
        )


def protocol_of(former: Path) -> int:
    found = re.search(
        r"^PROTOCOL_VERSION = (\d+)$", (former / "ssastore" / "message.py").read_text(), re.MULTILINE
    )
    assert found is not None
    return int(found[1])


def logs_of(lab: RunningLab) -> str:
    return "".join(path.read_text() for path in (lab.data / "log").glob("*.log"))


def test_a_node_of_the_commit_before_is_one_of_them(tmp_path: Path, former: Path) -> None:
    options = ["--nodes", "3", "--replicas", "3", "--workers", "1"]
    with running_lab(tmp_path / "lab", "versions", *options) as lab:
        lab.python(WORK, "1")
        lab.cli("node", "kill", "n2")
        process = start_former(lab, "n2", former)
        try:
            if protocol_of(former) != PROTOCOL_VERSION:
                # An upgrade that takes a stop of all nodes: nobody talks, and everybody is told why.
                refused = lab.cli("ready", "--wait", "5", check=False)
                assert refused.returncode != 0 and "other_protocol_version" in logs_of(lab)
                return
            lab.cli("ready", "--wait", "30")
            (node,) = [node for node in lab.status()["nodes"] if node["name"] == "n2"]
            running = Path(f"/proc/{node['workers'][0]['pid']}/cwd").resolve()
            assert running == former.resolve()
            lab.python(WORK, "2")
            # With one of the others it is a majority: there is nobody else to talk to.
            lab.cli("node", "kill", "n1")
            lab.python(WORK, "3")
            lab.cli("node", "start", "n1")
            lab.cli("ready", "--wait", "30")
            # And the upgrade: the same disk, by this version.
        finally:
            process.terminate()
            process.wait(20)
        lab.cli("node", "start", "n2")
        lab.cli("ready", "--wait", "30")
        lab.cli("node", "kill", "n3")
        lab.python(WORK, "4")
        told = json.loads(lab.cli("status", "--json").stdout)
        assert [node["name"] for node in told["nodes"]] == ["n1", "n2", "n3"]
        assert os.listdir(lab.data / "nodes" / "n2")
