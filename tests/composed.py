"""The cluster of docker-compose.yml, built, run and hurt for real: ``make compose-test``. Needs an engine.

    BASE=IMAGE       base of the images; default debian:bookworm-slim, and where the engine has no such image
                     and we are root, one that debootstrap makes
    SSASTORE_S3_PORT, SSASTORE_ADMIN_PORT
                     ports of 127.0.0.1; default 17482 and 17481
    NO_INDEX=1       wheels come from compose/wheels (``make wheels``) and from nowhere else

It is a project of its own, with ports and volumes of its own, but with the networks of the file: stop
another cluster of it first. Whatever happens, everything but the images is taken down at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "ssastore-test"
BASE_TAG, MADE_BASE = "debian:bookworm-slim", "ssastore-base:bookworm"
S3_PORT = os.environ.get("SSASTORE_S3_PORT", "17482")
ADMIN_PORT = os.environ.get("SSASTORE_ADMIN_PORT", "17481")
BUCKET = "photos"
_READY_S = "90"
_LARGE = bytes(range(256)) * (8 << 12)


class Failure(Exception):
    """Something was not as it must be."""


def expect(claim: bool, text: str) -> None:
    if not claim:
        raise Failure(text)


def run(*command: str, stdin: bytes | None = None, check: bool = True) -> str:
    """Run a command in the checkout; its standard output."""
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True)
    if check and done.returncode:
        raise Failure(f"{' '.join(command)}: code {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def client_command() -> list[str]:
    """``docker compose``, or the older ``docker-compose``. Failure when there is neither."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True).returncode == 0
        ):
            return command
    raise Failure("neither `docker compose` nor `docker-compose` is here")


class Project:
    """The compose file as a project of its own."""

    def __init__(self) -> None:
        self.command = [*client_command(), "--project-name", PROJECT]

    def __call__(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
        return run(*self.command, *arguments, stdin=stdin, check=check)

    def tool(self, *arguments: str, stdin: bytes | None = None) -> str:
        """A command of ours, on the gateway's host."""
        return self("run", "--rm", "-T", "--no-deps", "tools", *arguments, stdin=stdin)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.tool("status", "--json"))
        return found


class Table:
    """What was done, how long it took, what was seen: a line each, at once."""

    def __init__(self) -> None:
        print(f"{'step':36} {'seconds':>8}  seen")

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        began, seen = time.monotonic(), list[str]()
        try:
            yield seen
        except Failure:
            print(f"{name:36} {time.monotonic() - began:8.1f}  FAILED", flush=True)
            raise
        print(f"{name:36} {time.monotonic() - began:8.1f}  {'; '.join(seen)}", flush=True)

    @contextmanager
    def under_load(self, name: str, s3: Any) -> Iterator[list[str]]:
        """A step beside which a client works, who must not notice it."""
        with self.step(name) as seen:
            with Load(s3) as load:
                yield seen
            seen.append(load.check())


class Load:
    """One S3 client that puts a new object, reads it and one from before, and compares, until it is ended."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.rounds = 0
        self.failed: list[str] = []
        self.longest_s = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def check(self) -> str:
        """What the client noticed. Failure when a call failed or read something else."""
        expect(self.rounds > 0 and not self.failed, f"{len(self.failed)} calls failed: {self.failed[:3]}")
        return f"{self.rounds} x put, get, get: 0 failed, longest {self.longest_s:.2f} s"

    def _work(self) -> None:
        made = time.time_ns()
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                self._round(made, self.rounds)
            except Exception as error:  # Every kind is a client that noticed.
                self.failed.append(repr(error))
                time.sleep(0.2)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.rounds += 1

    def _round(self, made: int, number: int) -> None:
        self._s3.put_object(Bucket=BUCKET, Key=f"load/{made}/{number}", Body=f"{made} {number}".encode())
        for back in (number, number // 2):
            found = self._s3.get_object(Bucket=BUCKET, Key=f"load/{made}/{back}")["Body"].read()
            expect(found == f"{made} {back}".encode(), f"read {found!r} at {back}")


def make_base() -> str:
    """The base image's name: the one that was asked for, or the usual one, or one that is made here."""
    if asked := os.environ.get("BASE"):
        return asked
    for tag in (BASE_TAG, MADE_BASE):
        if run("docker", "images", "--quiet", tag).strip():
            return tag
    if os.getuid() != 0 or not shutil.which("debootstrap"):
        return BASE_TAG  # The engine may be able to pull it.
    with tempfile.TemporaryDirectory() as directory:
        run("debootstrap", "--variant=minbase", "bookworm", directory)
        for left in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(Path(directory, left))
        with subprocess.Popen(["tar", "-C", directory, "-c", "."], stdout=subprocess.PIPE) as packed:
            done = subprocess.run(
                ["docker", "import", "-", MADE_BASE], stdin=packed.stdout, capture_output=True
            )
    expect(done.returncode == 0, f"docker import: {done.stderr.decode()}")
    return MADE_BASE


def s3_client(project: Project) -> Any:
    """A client that knows nothing but where the gateway is published, and the key."""
    lines = project.tool("s3", "env").replace("\r", "").splitlines()
    found = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line)
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{S3_PORT}",
        aws_access_key_id=found["AWS_ACCESS_KEY_ID"].strip("'\""),
        aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"].strip("'\""),
        region_name="us-east-1",
        config=Config(connect_timeout=5, read_timeout=30),
    )


def begin(project: Project, table: Table) -> None:
    """Images, secrets, cluster."""
    with table.step("engine") as seen:
        seen.append("docker " + run("docker", "version", "--format", "{{.Server.Version}}").strip())
        seen.append("compose " + run(*client_command(), "version", "--short").strip())
    with table.step("base image") as seen:
        os.environ["BASE"] = make_base()
        seen.append(os.environ["BASE"])
    with table.step("build") as seen:
        project("build")
        listed = run("docker", "images", "--format", "{{.Repository}} {{.Size}}").splitlines()
        seen += sorted({line for line in listed if line.startswith("ssastore")})
    with table.step("secrets"):
        project("run", "--rm", "keys")
    with table.step("up, form, ready") as seen:
        project("up", "--detach")
        seen.append(project.tool("ready", "--wait", _READY_S).strip())
        again = project("run", "--rm", "-T", "form")
        expect(again.startswith("there is a cluster"), again)
        routes = project("exec", "-T", "router", "ip", "-6", "route", "show", "proto", "bird")
        seen.append(f"{routes.count(' via ')} prefixes by BGP")


def store(project: Project, table: Table, s3: Any) -> None:
    """From the host by S3, from a container natively, each reading what the other wrote."""
    with table.step("put and get by S3, from the host") as seen:
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="by-s3", Body=_LARGE)
        expect(s3.get_object(Bucket=BUCKET, Key="by-s3")["Body"].read() == _LARGE, "read something else")
        seen.append(f"{len(_LARGE) >> 20} MiB are the same")
    with table.step("put and get natively, in a container") as seen:
        project.tool("put", f"{BUCKET}/native", "-", stdin=b"natively")
        expect(project.tool("get", f"{BUCKET}/native", "-") == "natively", "read something else")
        expect(s3.get_object(Bucket=BUCKET, Key="native")["Body"].read() == b"natively", "S3 reads another")
        lines = project.tool("explain", f"{BUCKET}/native").splitlines()
        seen.append(next(" ".join(line.split()[2:3]) for line in lines if line.startswith("plane 0")))
    with table.step("what processes may") as seen:
        for service, caps in (("n1", "0000000000001000"), ("gateway", "0000000000000000")):
            text = project("exec", "-T", service, "cat", "/proc/1/status")
            fields = {line.split(":")[0]: line.split()[1:] for line in text.splitlines()}
            expect(fields["CapEff"] == [caps] and fields["Uid"][0] != "0", f"{service}: {fields['CapEff']}")
        seen.append("n1: CAP_NET_ADMIN alone; gateway: nothing; neither is root")


def hurt(project: Project, table: Table, s3: Any) -> None:
    """A node is started again, the control store is away, a node is gone with its disk; a client works on."""
    with table.under_load("n2 is started again", s3):
        project("restart", "n2")
        project.tool("ready", "--wait", _READY_S)
    with table.under_load("etcd is away", s3):
        project("stop", "etcd")
        time.sleep(5)
        project("start", "etcd")
    with table.under_load("n3 is killed for good, with its disk", s3):
        project("kill", "n3")
        project("rm", "--force", "n3")
        run("docker", "volume", "rm", f"{PROJECT}_n3")
        time.sleep(5)
    with table.under_load("and rebuilt at the others", s3) as seen:
        plan = project.tool("plan", "--lost", "n3", "--json")
        project.tool("apply", "/dev/stdin", stdin=plan.encode())
        leave = ["control", "leave", "--config=/etc/ssastore/n1.toml", "n3"]
        project("run", "--rm", "-T", "--no-deps", "form", *leave)
        nodes = [node["name"] for node in project.status()["nodes"]]
        expect(nodes == ["n1", "n2", "n4"], f"nodes {nodes}")
        seen.append("nodes n1, n2, n4")
    with table.step("all copies are compared") as seen:
        project.tool("scrub", "--wait")
        expect(s3.get_object(Bucket=BUCKET, Key="by-s3")["Body"].read() == _LARGE, "read something else")
        seen.append("healthy; what was stored first is the same")


def end(project: Project) -> None:
    project("--profile", "tools", "down", "--volumes", "--remove-orphans", check=False)
    left = run("docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    left += run("docker", "volume", "ls", "--quiet", "--filter", f"name={PROJECT}_")
    left += run("docker", "network", "ls", "--quiet", "--filter", f"name={PROJECT}_")
    expect(not left.strip(), f"left behind: {left}")


def main() -> None:
    os.environ |= {"SSASTORE_S3_PORT": S3_PORT, "SSASTORE_ADMIN_PORT": ADMIN_PORT}
    try:
        project, table = Project(), Table()
        try:
            begin(project, table)
            s3 = s3_client(project)
            store(project, table, s3)
            hurt(project, table, s3)
        except Failure:
            print(project("logs", "--tail=15", check=False), file=sys.stderr)
            raise
        finally:
            with table.step("down"):
                end(project)
    except Failure as failure:
        sys.exit(f"compose-test: {failure}")


if __name__ == "__main__":
    main()
