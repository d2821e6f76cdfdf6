"""What the tests on whole labs share: a lab for a module, S3 settings, processes and files it leaves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from ssastore.config import NodeConfig, load, open_control
from ssastore.env import ControlStore
from ssastore.errors import NamespaceRefused
from ssastore.lab.namespaces import in_new_namespaces
from tests.labs import PYTHON, RunningLab, running_lab

T = TypeVar("T")


@contextmanager
def module_lab(
    factory: pytest.TempPathFactory, name: str, *options: str, directory: Path | None = None
) -> Iterator[RunningLab]:
    """A lab on a real network; its tests skip where the kernel forbids namespaces."""
    try:
        in_new_namespaces(bool)
    except NamespaceRefused as error:
        pytest.skip(str(error))
    with running_lab(directory or factory.mktemp(name), name, *options) as lab:
        yield lab


def covers(lab: RunningLab) -> set[str]:
    """What nodes own, as they say themselves, and gateways."""
    status = lab.status()
    owners = [*status["nodes"], *status["front"]["gateways"]]
    return {prefix for owner in owners for prefix in owner["prefixes"]}


def tool_environment(lab: RunningLab, home: Path) -> dict[str, str]:
    """Environment of an S3 tool that must not see the settings of whoever runs the tests."""
    found = lab.aws()
    foreign = {name for name in lab.environment if name.startswith(("AWS_", "RCLONE_"))} - set(S3_VARIABLES)
    return {name: value for name, value in found.items() if name not in foreign} | {"HOME": str(home)}


S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


def s3_client(lab: RunningLab, **options: Any) -> Any:
    """boto3's client; in its default settings but for ``options`` of ``Config``."""
    variables = lab.aws()
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
        config=Config(**options) if options else None,
    )


def write_tree(root: Path) -> Path:
    """A small tree with the names and sizes that tools get wrong: spaces, signs, empty, above one chunk."""
    names = ["a.txt", "empty", "sp ace+pl%us&=.txt", "deep/er/ünïcödé-漢字.txt", "deep/b.bin", "deep/c.bin"]
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else f"{name}\n".encode() * 10 ** min(number, 4))
    (root / "large.bin").write_bytes(os.urandom(9 * 2**20 + 1))
    return root


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def run_tool(command: list[str], environment: dict[str, str], **options: Any) -> str:
    """Output of a command that must succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, env=environment, text=True, capture_output=True, timeout=60, **options
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def start_on(lab: RunningLab, host: str, script: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python script that runs on a host of the lab, with pipes to talk to it."""
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "exec", "--host", host, "--"]
    return subprocess.Popen(
        [*command, PYTHON, "-c", script, *arguments],
        env=lab.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- processes --------------------------------------------------------------------------------------


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_with(text: str) -> dict[int, str]:
    """Command lines of all processes, other than zombies, in which ``text`` stands."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found[int(entry.name)] = line
    return found


def wait_until(claim: Callable[[], bool], what: str, wait_s: float = 20) -> None:
    """Poll until the claim holds; fails with ``what`` when it does not.

    A look that asks all nodes, or is a command, keeps them busy who are waited for: it takes a third at most.
    """
    deadline = time.monotonic() + wait_s
    while True:
        began = time.monotonic()
        if claim():
            return
        assert time.monotonic() < deadline, f"not within {wait_s} s: {what}"
        time.sleep(max(0.02, 2 * (time.monotonic() - began)))


def ask(lab: RunningLab, question: Callable[[ControlStore], Awaitable[T]]) -> T:
    """Something of the lab's control store."""
    config = load(str(lab.data / "config" / "n1.toml"), NodeConfig)

    async def asked() -> T:
        control = open_control(config.control, config.secrets_file)
        try:
            return await question(control)
        finally:
            await control.close()

    return asyncio.run(asked())
