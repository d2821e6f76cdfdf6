"""Bad arguments end with exit code 2 and a reason; every command explains itself and costs little to ask."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import click
import pytest

from ssastore.cli import _COMMANDS, cli
from tests.cli.conftest import Done
from tests.labs import PYTHON

HEAVY = {"aiohttp", "lmdb", "pyroute2", "msgpack", "uvloop", "blake3", "boto3"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "Usage: ssastore [OPTIONS] COMMAND"),
        ("--", "Missing command"),
        ("--nope", "No such option"),
        ("frobnicate", "No such command 'frobnicate'"),
        ("--context", "requires an argument"),
        ("up --nope", "No such option"),
        ("up --nodes", "requires an argument"),
        ("up --nodes 0", "0 is not in the range"),
        ("up --nodes 65", "65 is not in the range"),
        ("up --nodes 4 extra", "unexpected extra argument"),
        ("up --workers 17", "17 is not in the range"),
        ("up --replicas 0", "is 1, 3 or 5"),
        ("up --replicas 2", "is 1, 3 or 5"),
        ("up --nodes 4 --replicas 5", "5 replicas need as many nodes"),
        ("up --s3-port 0", "0 is not in the range"),
        ("up --s3-port 65536", "65536 is not in the range"),
        ("up --admin-port 8o80", "'8o80' is not a valid"),
        ("up --admin-port -1", "-1 is not in the range"),
        ("up --service 2001:db8:5a::/48", "must be a /64"),
        ("up --service 2001:db8:5a:1::", "must be a /64"),
        ("up --service 2001:db8:5a:1::1/64", "has host bits set"),
        ("up --service 10.0.0.0/8", "--service:"),
        ("up --service fe80::%eth0/64", "must not name a zone"),
        ("up --service fe80::/64", "must be unicast"),
        ("up --service ff02::/64", "must be unicast"),
        ("up --service ::/64", "must be unicast"),
        ("up --service x", "--service:"),
        ("renumber 2001:db8:5a::/48", "must be a /64"),
        ("renumber 2001:db8:5a:1::1/64", "has host bits set"),
        ("renumber fe80::/64", "must be unicast"),
        ("renumber ff02::/64", "must be unicast"),
        ("renumber fe80::%eth0/64", "must not name a zone"),
        ("renumber x", "renumber: At least 3 parts"),
        ("renumber --ttl 5", "--ttl is for a prefix"),
        ("renumber 2001:db8:5a:1::/64 --ttl -1", "not in the range"),
        ("renumber 2001:db8:5a:1::/64 --ttl 2592001", "not in the range"),
        ("up --control consul", "--control is embedded, etcd, or etcd://"),
        ("up --control etcd://db1", "with --control etcd"),
        ("up --simulate --control etcd://", "HOST:PORT"),
        ("up --name ../x", "'../x' is no name for a lab"),
        ("up --name a/b --detach", "'a/b' is no name for a lab"),
        ("up --name= --detach", "'' is no name for a lab"),
        ("--context ../x status", "'../x' is no name of a lab"),
        ("--context= status", "'' is no name of a lab"),
        ("status", "no lab is running; start one with: ssastore up"),
        ("--context other down", "no lab 'other' is running"),
        ("exec", "Missing argument 'COMMAND...'"),
        ("exec --host", "requires an argument"),
        ("ready --wait -1", "is not in the range"),
        ("ready --wait soon", "'soon' is not a valid float"),
        ("put", "Missing argument 'TARGET'"),
        ("put bucket/key /no/such/file", "'/no/such/file' does not exist"),
        ("put bucket/key /", "is a directory"),
        ("put bucket", "'bucket' must be BUCKET/KEY"),
        ("put bucket/key --if-none-match etag", "is not '*'"),
        ("get bucket/", "must be BUCKET/KEY"),
        ("get /key", "must be BUCKET/KEY"),
        ("get b/k --start x", "'x' is not a valid integer"),
        ("get b/k --length -1", "-1 is not in the range"),
        ("get http://host/bucket/key", "no lab is running"),
        ("get ssa://[::1/bucket/key", "the host of"),
        ("get ssa://10.0.0.1/bucket/key", "service prefix in brackets"),
        ("mb bucket --shards 4097", "4097 is not in the range"),
        ("s3", "Usage: ssastore s3"),
        ("s3 nope", "No such command"),
        ("node", "Missing option '--config'"),
        ("node --config", "requires an argument"),
        ("node --config /no/such/file", "/no/such/file: No such file or directory"),
        ("moves --rate fast", "'fast' is no number of bytes a second"),
        ("moves --rate 1023K", "'1023K' is not in the range 1M to 1024G"),
        ("apply plan.json --rate 0", "'0' is not in the range"),
        ("pause --wait -1", "is not in the range"),
        ("resume", "no lab is running"),
        ("gateway --config /", "/: Is a directory"),
    ],
)
def test_bad_arguments_are_refused(ssastore: Callable[..., Done], line: str, text: str) -> None:
    done = ssastore(*line.split())
    assert (done.code, done.out) == (2, "")
    assert text in done.err
    assert "Traceback" not in done.err


def all_commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in _COMMANDS:
        command = cli.get_command(context, name)
        assert command
        yield name, command
        if isinstance(command, click.Group):
            for inner, found in command.commands.items():
                yield f"{name} {inner}", found


@pytest.mark.parametrize("name", [name for name, _ in all_commands()])
def test_help_is_useful(ssastore: Callable[..., Done], name: str) -> None:
    """It has a sentence on the command and one on each option, and needs no lab."""
    done = ssastore(*name.split(), "--help")
    command = dict(all_commands())[name]
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: ssastore {name}")
    assert len(command.help or "") > 20
    unexplained = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden and not parameter.help
    ]
    assert unexplained == []


def test_help_names_every_command_and_exit_code(ssastore: Callable[..., Done]) -> None:
    text = ssastore("--help").out
    assert all(f"\n  {name} " in text for name in _COMMANDS)
    assert "0 done, 1 failed, 2 wrong usage" in text
    assert ssastore("--version").out.startswith("ssastore ")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["up", "--help"], ["put", "--help"], ["nope"]]
)
def test_asking_imports_nothing_heavy(arguments: list[str]) -> None:
    command = [PYTHON, "-X", "importtime", "-m", "ssastore", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line
    }
    assert {"click", "ssastore"} <= imported
    assert imported & HEAVY == set()


@pytest.mark.parametrize("module", ["ssastore.worker", "ssastore.node", "ssastore.gateway"])
def test_a_daemon_starts_without_what_only_labs_need(module: str) -> None:
    """A lab starts a dozen of them, a host one for each core; pyroute2 was a fifth of a worker's start."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"pyroute2", "boto3", "click"} == set()


@pytest.mark.parametrize("module", ["ssastore", "ssastore.worker"])
@pytest.mark.parametrize("how", ["flag", "variable"])
def test_optimised_python_is_refused(module: str, how: str) -> None:
    """It would strip the assertions that guard our own invariants."""
    flags = ["-O"] if how == "flag" else []
    environment = os.environ | ({"PYTHONOPTIMIZE": "1"} if how == "variable" else {})
    command = [PYTHON, *flags, "-m", module, "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refusing to run under python -O" in done.stderr


def test_no_option_takes_a_secret() -> None:
    """What stands on a command line is seen by every user of the machine.

    The token of `node join` may: it is used up by the command that shows it, and `-` reads it instead.
    """
    names = {
        option for _, command in all_commands() for parameter in command.params for option in parameter.opts
    }
    assert "--config" in names
    assert [
        name
        for name in names
        if any(word in name for word in ("secret", "password", "token", "key")) and not name.endswith("-file")
    ] == ["token"]
