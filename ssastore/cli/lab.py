"""``up``, ``down``, ``exec``, ``ready``, ``status``: a cluster on this machine."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from shutil import which
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ssastore.lab.context import Context

_POLL_S = 0.05
_DOWN_WAIT_S = 40
"More than a lab gives its processes."
_REPLICAS_DEFAULT = 3
_PORT = click.IntRange(1, 65535)

# As a shell answers.
_EXIT_NOT_EXECUTABLE = 126
_EXIT_NOT_FOUND = 127


@click.command("up")
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="Storage nodes.")
@click.option(
    "--replicas",
    type=int,
    default=None,
    help="Copies of everything: 1, 3, 5; default: 3, or 1 below 3 nodes.",
)
@click.option(
    "--workers", type=click.IntRange(1, 16), default=None, help="Processes a node; default: cores / nodes."
)
@click.option("--data", "data_dir", type=click.Path(), help="Keep the data here; default: none is kept.")
@click.option("--s3-port", type=_PORT, default=7482, show_default=True, help="S3 on 127.0.0.1.")
@click.option(
    "--admin-port", type=_PORT, default=7481, show_default=True, help="Health and status on 127.0.0.1."
)
@click.option(
    "--s3-domain",
    default="",
    metavar="DOMAIN",
    help="BUCKET.DOMAIN is a bucket too (virtual-host style); your resolver must know these names.",
)
@click.option(
    "--rules",
    default="",
    metavar="TEXT",
    help="Service record that everybody keeps, as 'v=SSA1; data=content+source' (docs/reference/rules.md).",
)
@click.option("--service", metavar="PREFIX/64", help="Service prefix; default: a random one of fd00::/8.")
@click.option("--name", default="lab", show_default=True, help="Name of this lab's context.")
@click.option(
    "--node-setting",
    "node_settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of all nodes, as in their files; may be repeated.",
)
@click.option(
    "--control",
    metavar="embedded|etcd|etcd://HOST:PORT",
    default="embedded",
    show_default=True,
    help="Control store: in this process, an etcd of the lab, or (with --simulate) a given one.",
)
@click.option(
    "--recover-after",
    type=int,
    metavar="SECONDS",
    help="What a node had that is gone for so long is recovered at others; 0: never; default: 600, or as is.",
)
@click.option(
    "--gateways", type=click.IntRange(1, 16), default=1, show_default=True, help="Of S3, in the front plane."
)
@click.option(
    "--topology",
    type=click.Choice(["bridge", "bgp", "bgp-built-in", "two-sites", "tiers", "filter"]),
    default="bridge",
    show_default=True,
    help="How the router hears of slices: from this process, or by BGP of the nodes (docs/how-to/bgp.md). "
    "filter: from this process, and it filters (docs/how-to/filter.md); needs root.",
)
@click.option("--simulate", is_flag=True, help="No namespaces: every node is a port of ::1.")
@click.option("--detach", is_flag=True, help="Return when the lab is ready; stop it with: ssastore down.")
def up_command(detach: bool, **options: Any) -> int:
    """Start a cluster of real network hosts on this machine, without root.

    Nodes are network namespaces on a router's bridge; S3 and status are reachable on 127.0.0.1.
    Runs in the foreground until Ctrl-C; with --data the data survives a restart.
    """
    from ssastore.lab.options import UpOptions
    from ssastore.lab.up import up

    if options["replicas"] is None:
        options["replicas"] = _REPLICAS_DEFAULT if options["nodes"] >= _REPLICAS_DEFAULT else 1
    if options["workers"] is None:
        options["workers"] = max(1, min(16, (os.cpu_count() or 1) // options["nodes"]))
    if detach:
        return _up_detached(options)
    return up(UpOptions(**options), lambda found: _banner(found, options))


def _banner(found: Context, options: dict[str, Any]) -> None:
    simulated = "  (simulated network)" if found.is_simulated else ""
    by_name = f"  name    {found.domain}, on its hosts: http://{found.domain}:7482\n" if found.domain else ""
    # A link that logs in is for a person, not for a file of what was said.
    console = (
        f"{found.login_url()}    logs in once; another one: ssastore console"
        if sys.stdout.isatty()
        else f"http://127.0.0.1:{found.admin_port}/    to act there: ssastore console"
    )
    kept = found.data_dir if options["data_dir"] else "dropped at the end (keep it with --data DIR)"
    print(
        f"ssastore  {len(found.nodes)} nodes · {options['workers']} worker(s) each · "
        f"{options['replicas']} replica(s) · "
        f"{found.service}{simulated}\n"
        f'  S3      http://127.0.0.1:{found.s3_port}    keys: eval "$(ssastore s3 env)"\n'
        f"  console {console}\n"
        f"  status  ssastore status    http://127.0.0.1:{found.admin_port}/status\n"
        f"  data    {kept}\n"
        f"{by_name}"
        "  try     ssastore mb photos; ssastore put photos/cat.jpg FILE; ssastore explain photos/cat.jpg\n"
        "          ssastore exec -- ip -6 route    ssastore exec --host n1 -- ip -6 route show table local",
        flush=True,
    )


def _up_detached(options: dict[str, Any]) -> int:
    """Start the same command without --detach in a session of its own, and wait until it is ready."""
    from ssastore.lab.context import check_free, make_state_dir

    check_free(options["name"])
    log_path = make_state_dir() / f"{options['name']}.log"
    with open(log_path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ssastore", "up", *_arguments(options)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        found = _await_context(options["name"], process)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if found is None:
        print(log_path.read_text(errors="replace"), end="", file=sys.stderr)
        return process.returncode or 1
    _banner(found, options)
    return 0


def _arguments(options: dict[str, Any]) -> list[str]:
    """The options of ``up`` as they are written."""
    names = {"data_dir": "data"}
    given = {
        f"--{names.get(name, name).replace('_', '-')}": value
        for name, value in options.items()
        if value is not None and value is not False and name != "node_settings"
    }
    arguments = [option if value is True else f"{option}={value}" for option, value in given.items()]
    return arguments + [f"--node-setting={setting}" for setting in options["node_settings"]]


def _await_context(name: str, process: subprocess.Popen[bytes]) -> Context | None:
    """What ``process`` leaves when its lab is ready; None when it ends before."""
    from ssastore.lab.context import running

    while process.poll() is None:
        found = running(name)
        if found is not None and found.pid == process.pid:
            return found
        time.sleep(_POLL_S)
    return None


@click.command("down")
@click.pass_obj
def down_command(context: str | None) -> int:
    """Stop a running lab and wait until it is gone."""
    from ssastore.errors import Unavailable
    from ssastore.lab.context import find_lab

    found = find_lab(context)
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_WAIT_S
    while found.is_running:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"lab {found.name!r} (process {found.pid}) is still there after {_DOWN_WAIT_S} s"
            )
        time.sleep(0.05)
    return 0


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--host", default="client", show_default=True, help="client, gw, router, n1, n2 ...")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_command(context: str | None, host: str, command: tuple[str, ...]) -> int:
    """Run a command on a host of the lab, as a client's machine would.

    SSASTORE_URL and the access key are in its environment: Client.from_env() just works.
    """
    from ssastore.errors import ConfigError
    from ssastore.lab.context import find

    found = find(context)
    if found.is_simulated:
        raise ConfigError(
            f"the network of lab {found.name!r} is simulated: it has no hosts to run a command on. "
            "ssastore put, get, ls and S3 work without"
        )
    key, secret = found.access_key()
    environment = os.environ | {
        "SSASTORE_URL": found.url,
        "SSASTORE_RULES": found.rules,
        "SSASTORE_ACCESS_KEY": key,
        "SSASTORE_SECRET_KEY": secret,
    }
    if found.name_server:
        environment["SSASTORE_NAME_SERVER"] = found.name_server
    if found.tls_name:
        environment |= {"SSASTORE_TLS_NAME": found.tls_name, "SSASTORE_TLS_CA": found.tls_ca}
    found.enter(host)
    _ask_the_lab(found)
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606
    except OSError as error:
        # A directory of PATH that may not be entered makes "permission denied" of what is nowhere.
        is_missing = isinstance(error, FileNotFoundError) or not which(command[0], os.F_OK)
        reason = os.strerror(errno.ENOENT) if is_missing else error.strerror
        print(f"ssastore: {command[0]}: {reason}", file=sys.stderr)
        return _EXIT_NOT_FOUND if is_missing else _EXIT_NOT_EXECUTABLE


def _ask_the_lab(found: Context) -> None:
    """Let what is about to run find the lab by its name; where that cannot be had, by its prefix alone."""
    from ssastore.errors import NamespaceRefused
    from ssastore.lab.namespaces import use_name_server

    with suppress(NamespaceRefused):
        if found.name_server:
            use_name_server(found.name_server)


@click.command("ready")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0.0, help="Seconds to wait; default: ask once."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def ready_command(context: str | None, wait_s: float, as_json: bool) -> int:
    """Wait until every worker of every node answers; exit code 5 when not."""
    import asyncio

    from ssastore.errors import ConfigError
    from ssastore.lab.context import find
    from ssastore.lab.status import AdminLink, wait_until_ready

    deadline = time.monotonic() + wait_s
    while True:
        try:
            found = find(context)
            break
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    report = asyncio.run(wait_until_ready(AdminLink(found.admin_port), max(0.0, deadline - time.monotonic())))
    print(json.dumps(report) if as_json else f"ready: {len(report['nodes'])} nodes of {report['service']}")
    return 0


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def status_command(context: str | None, as_json: bool) -> int:
    """Health first, then every node: prefixes, objects, bytes."""
    from ssastore.cli.renumber import renumbering
    from ssastore.lab.context import find
    from ssastore.lab.status import fetch, health_of

    found = find(context)
    _, report = fetch(found.admin_port, "/status")
    if as_json:
        print(json.dumps(report | {"context": found.name, "health": health_of(report)}))
        return 0
    if report.get("coordinator") == "":
        print("no node coordinates at this moment")
    answers = "all workers answer" if report["ready"] else report["reason"]
    print(f"{report['service']}  replicas {report['replicas']}  {answers}; data: {health_of(report)}")
    if report["renumbering"]:
        print(f"{report['service']}: {renumbering(report['renumbering'])}")
    print(
        f"{'node':8} {'worker':>6} {'slices':>6} {'records':>9} {'stored':>9} {'requests':>9}  "
        f"{'health':18} prefixes"
    )
    for node in report["nodes"]:
        for worker in node["workers"]:
            print(_row(node, worker))
        if node.get("alive") is False:
            print(absence(node))
    for gate in report["front"]["gateways"]:
        moving = [f"{word} {gate[word]}" for word in ("gives", "takes") if gate[word]]
        moving += ["is about to end"] if gate["leaves"] else []
        shown = " ".join(gate["prefixes"][:4])
        print(f"gateway {gate['name']:8} {100 * gate['share']:5.1f} % of the front plane  {shown}", *moving)
    for key, reason in report["front"]["not_understood"].items():
        print(f"front plane: nothing is planned; {key} is not understood: {reason}")
    return 0


def absence(node: dict[str, Any]) -> str:
    """A line about a node without a lease."""
    if "since_ms" not in node:
        return f"{node['name']:8} absent"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(node["since_ms"] / 1000))
    return f"{node['name']:8} absent since {since}; {node['says']}"


def _row(node: dict[str, Any], worker: dict[str, Any]) -> str:
    if not worker["ok"]:
        return f"{node['name']:8} {worker['worker']:6} does not answer: {worker['error']}"
    requests = sum(worker.get("requests", {}).values())
    figures = (
        f"{node['name']:8} {worker['worker']:6} {worker.get('slices', 0):6} {worker.get('records', 0):9} "
        f"{worker.get('used_bytes', 0) / 2**20:8.1f}M {requests:9}  "
        f"{worker.get('scrub', {}).get('health', 'idle'):18} {' '.join(node['prefixes'][:4])}"
    )
    return "\n".join([figures, *silence(worker)])


def silence(worker: dict[str, Any]) -> list[str]:
    """Lines about slices of a worker that do not vote, and about their recovery."""
    silent, recovery = worker.get("silent", {}), worker.get("recovery", {})
    if not silent:
        return []
    states = ", ".join(f"{count} {state}" for state, count in silent.items())
    lines = [f"{'':8} slices that do not vote: {states}" + (f" ({worker['lost']})" if worker["lost"] else "")]
    waiting = f"; waits: {recovery['waiting']}" if recovery["waiting"] else ""
    mib = recovery["bytes"] / 2**20
    lines.append(f"{'':8} recovery: {recovery['done']} done, {recovery['left']} left, {mib:.1f}M{waiting}")
    return lines
