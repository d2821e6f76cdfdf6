"""``ssastore demo``: a lab with its console, a gentle load, and a guided tour of what a cluster does.

    store and explain · add a node, and slices move · a node dies · it comes back

Every step is a command that is shown before it runs, so that each can be done again by hand.  Clients work
all the time, natively and by S3; at the end what they were told is judged, and every object is read.  The
lab keeps its data, and the tour its notes, in a directory that goes with the lab: nothing is left, also
when the demo is killed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ssastore.errors import EnvironmentProblem
from ssastore.lab import context as contexts
from ssastore.lab.context import Context
from ssastore.lab.movesreport import Row
from ssastore.lab.processes import free_port
from ssastore.lab.stage import Load, Stage
from ssastore.system import die_with_parent

NODES = 3
"With three replicas, so that each node holds everything until the fourth comes."
OBJECTS = 200
_BUCKET, _KEY = "photos", "cat.jpg"
_PORTS = {"s3": 7482, "admin": 7481}
_START_S = 90
"More than a lab takes before it says why it does not get ready."
_STOP_S = 40
_POLL_S = 0.02
_S3_EVERY_S = 0.1
_CALM_S = 3.0
"Of calls before and after everything."
_WEIGHT = 4
"Of the nodes that are there, where the one that comes has 1: the higher, the fewer slices move."
_CLIENTS = 4
_THINK_S = 0.05


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the demo was asked for."""

    waits: bool
    "For Enter before each scene, and for Ctrl-C at the end."
    is_short: bool
    "Few slices move, and nobody looks on while nothing happens."
    s3_port: int
    admin_port: int


def demo(wanted: Wanted) -> int:
    """Run all of it; 0 only when no call failed, nothing was lost and every object is as it was stored.

    Raises:
        EnvironmentProblem: the lab does not start; says why.
        KeyboardInterrupt: somebody wants no more of it. Everything is gone by then.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began_s = time.monotonic()
    with _lab(wanted) as found:
        took_s = time.monotonic() - began_s
        directory = Path(found.data_dir) / "demo"
        directory.mkdir()
        stage = Stage(directory, found.name, lambda text: None)
        click.echo(
            f"ready in {took_s:.1f} s: {NODES} nodes as network hosts of their own, three replicas, "
            f"at {found.service}\n\n"
            f"  console   http://127.0.0.1:{found.admin_port}/\n"
            f"  commands  in another terminal: ssastore status\n"
        )
        stage.ask("fill", str(OBJECTS))
        with stage.load(clients=_CLIENTS, think_s=_THINK_S) as load, _s3_reader(found):
            Tour(found, stage, load, wanted).all()
            click.echo("\nthe clients read everything that they ever wrote, and end ...")
            load.end()
        result = load.result(stage.phases, OBJECTS, int(stage.ask("check", str(OBJECTS))))
        click.echo(f"\n{result.table()}")
        if wanted.waits:
            click.echo("\nThe cluster goes on: try what you like. Ctrl-C ends it, and leaves nothing.")
            signal.pause()
    click.echo(f"the lab is gone; {time.monotonic() - began_s:.0f} s in all")
    return 0 if result.is_good else 1


# -- the lab ----------------------------------------------------------------------------------------


@contextmanager
def _lab(wanted: Wanted) -> Iterator[Context]:
    """``ssastore up`` as a process of ours, from the time that it is ready; at the end it is gone."""
    name = f"demo-{os.getpid()}"
    ports = ["--s3-port", str(wanted.s3_port), "--admin-port", str(wanted.admin_port)]
    up = ["up", "--nodes", str(NODES), "--replicas", "3", "--workers", "1", "--name", name, *ports]
    said = os.memfd_create("up")
    process = subprocess.Popen(
        [sys.executable, "-m", "ssastore", *up],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        # Ctrl-C is for us, who end it in order; and it ends with us, whatever we die of.
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  # before any thread of ours
    )
    try:
        yield _ready(name, process, said)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C must not cut this short.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        os.close(said)


def _ready(name: str, process: subprocess.Popen[bytes], said: int) -> Context:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        found = contexts.running(name)
        if found is not None and found.pid == process.pid:
            if found.is_simulated:
                why = _said(said).splitlines()[0].removeprefix("ssastore: ")
                raise EnvironmentProblem(
                    f"the demo needs network hosts of its own (`ssastore up` goes on without): {why}"
                )
            return found
        time.sleep(_POLL_S)
    text = _said(said)
    raise EnvironmentProblem(f"the lab does not start: {text or 'it says nothing'}")


def _said(said: int) -> str:
    return os.pread(said, 1 << 20, 0).decode(errors="replace").strip()


def port_for(which: str) -> int:
    """The usual port of S3 or of the admin page, or a free one when somebody has that."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _PORTS[which]))
            return _PORTS[which]
        except OSError:
            return free_port()


@contextmanager
def _s3_reader(found: Context) -> Iterator[None]:
    """Somebody who reads an object by S3 ten times a second, so that the console shows what that takes."""
    key_id, secret = found.access_key()
    path, ended = f"/{_BUCKET}/{_KEY}", threading.Event()
    expires = int(time.time()) + 86_400
    # A URL of Signature Version 2: the short one, good for all of the demo (ssastore/s3/sigv2.py).
    digest = hmac.digest(secret.encode(), f"GET\n\n\n{expires}\n{path}".encode(), hashlib.sha1)
    signature = quote(b64encode(digest), safe="")
    url = f"{path}?AWSAccessKeyId={key_id}&Expires={expires}&Signature={signature}"

    def read() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", found.s3_port, timeout=10)
        while not ended.wait(_S3_EVERY_S):
            try:
                connection.request("GET", url)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()  # The console shows it; here nobody counts.

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# -- the tour ---------------------------------------------------------------------------------------


class Tour:
    """Scenes, each with what is shown, the commands, and what clients noticed meanwhile."""

    def __init__(self, found: Context, stage: Stage, load: Load, wanted: Wanted) -> None:
        self._found = found
        self._stage = stage
        self._load = load
        self._waits = wanted.waits
        self._calm_s, self._weight = (0.3, 100) if wanted.is_short else (_CALM_S, _WEIGHT)

    def all(self) -> None:
        """In order."""
        self._scene("before", "Four clients put, get and delete all the time, natively.", self._calm)
        self._scene(
            "an object",
            "The name of an object gives its addresses, one on each plane; no node is asked where it is.",
            self._object,
        )
        self._scene(
            "a node comes",
            "A fourth host joins, owns nothing, and is given slices while clients work: watch the map.",
            self._node,
        )
        self._scene(
            "a node dies",
            "All processes of n2 end at once, as in a power cut. Two of three replicas go on.",
            self._death,
        )
        self._scene(
            "it comes back",
            "It looks at what it missed, is repaired from the others, and a scrub compares every copy.",
            self._return,
        )
        self._scene("after", "And once more nothing happens.", self._calm)

    def _scene(self, name: str, told: str, work: Callable[[], int | None]) -> None:
        number = len(self._stage.phases) + 1
        click.echo(f"{click.style(f'{number}  {name}', bold=True)}\n   {told}")
        if self._waits:
            click.prompt("   Enter: go on", default="", show_default=False, prompt_suffix=" ")
        self._stage.phase(name, work)
        click.echo(f"   {noticed(self._load.row(self._stage.phases[-1]))}\n")

    def _run(self, *arguments: str) -> None:
        """Show a command of the command line, and what it says."""
        click.echo(f"   $ ssastore {shlex.join(arguments)}")
        for line in self._stage.cli(*arguments).splitlines():
            click.echo(f"     {line}")

    def _calm(self) -> None:
        time.sleep(self._calm_s)

    def _object(self) -> None:
        picture = self._stage.directory / _KEY
        picture.write_bytes(os.urandom(20_000))
        self._run("mb", _BUCKET)
        self._run("put", f"{_BUCKET}/{_KEY}", str(picture))
        self._run("explain", f"{_BUCKET}/{_KEY}")
        located = json.loads(self._stage.cli("locate", f"{_BUCKET}/{_KEY}", "--json"))
        click.echo("   the router's own table knows the rest:")
        for address, owner in self._owners(located["addresses"]):
            click.echo(f"     {address} -> {owner}")

    def _owners(self, addresses: list[str]) -> list[tuple[str, str]]:
        """Who gets a packet, by the router's table of routes."""
        table = self._stage.cli("exec", "--host", "router", "--", "cat", "/proc/net/ipv6_route")
        routes = kernel_routes(table, IPv6Network(self._found.service))
        status: dict[str, Any] = json.loads(self._stage.cli("status", "--json"))
        names = {node["address"]: node["name"] for node in status["nodes"]}
        hops = [next_hop(routes, address) for address in addresses]
        return [
            (address, f"via {hop} = {names.get(hop, '?')}")
            for address, hop in zip(addresses, hops, strict=True)
        ]

    def _node(self) -> int:
        plan = str(self._stage.directory / "plan.json")
        weights = [
            word for number in range(1, NODES + 1) for word in ("--weight", f"n{number}={self._weight}")
        ]
        self._run("node", "add", f"n{NODES + 1}")
        self._run("plan", *weights, "--out", plan)
        click.echo(f"   $ ssastore apply {shlex.quote(plan)}")
        moved = int(json.loads(self._stage.cli("apply", plan, "--json"))["done"])
        click.echo(f"     {moved} slices have their new owner")
        return moved

    def _death(self) -> None:
        self._run("node", "kill", "n2")
        self._run("get", f"{_BUCKET}/{_KEY}", str(self._stage.directory / "copy.jpg"))
        names = (_KEY, "copy.jpg")
        first, second = [(self._stage.directory / name).read_bytes() for name in names]
        if first != second:
            raise SystemExit(f"demo: {_BUCKET}/{_KEY} came back different")
        time.sleep(self._calm_s)
        self._run("status")

    def _return(self) -> None:
        self._run("node", "start", "n2")
        self._run("ready", "--wait", "60")
        self._run("scrub", "--wait")


def noticed(row: Row) -> str:
    """What clients noticed of a scene."""
    return (
        f"clients meanwhile: {row.calls} calls in {row.seconds:.1f} s, "
        f"half of them within {row.p50_ms:.1f} ms, 99 of 100 within {row.p99_ms:.1f} ms"
    )


# -- the router's table -----------------------------------------------------------------------------


def kernel_routes(text: str, service: IPv6Network) -> list[tuple[IPv6Network, str]]:
    """(prefix, next hop or device) of ``/proc/net/ipv6_route`` inside the service prefix."""
    routes = []
    for line in text.splitlines():
        fields = line.split()
        prefix = IPv6Network((int(fields[0], 16), int(fields[1], 16)))
        if prefix.prefixlen >= service.prefixlen and prefix.subnet_of(service):
            hop = IPv6Address(int(fields[4], 16))
            routes.append((prefix, str(hop) if int(hop) else f"dev {fields[9]}"))
    return routes


def next_hop(routes: list[tuple[IPv6Network, str]], address: str) -> str:
    """Longest-prefix match, as the kernel does it."""
    found = [route for route in routes if IPv6Address(address) in route[0]]
    return max(found, key=lambda route: route[0].prefixlen)[1]
