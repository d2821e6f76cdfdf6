"""``ssastore key``: access keys for S3, made and revoked while the cluster runs."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ssastore.cli.objects import run_with_client

if TYPE_CHECKING:
    from ssastore.client import AsyncClient
    from ssastore.core.users import AccessKey, Users


@click.group("key")
def key_command() -> None:
    """Access keys of S3 users, and a cluster's secrets file.

    `create`, `list` and `revoke` ask the running cluster; `init`, `wrapping` and `cluster` change a file, and
    nothing else.

    A key belongs to a user. Buckets that are made with it are the user's; what else it may do, bucket
    policies and ACLs say. The keys that the cluster began with are root's, and may do everything.
    """


def _users(client: AsyncClient) -> Users:
    from ssastore.core.users import Users
    from ssastore.system import SystemClock, SystemRandomness

    return Users(client.objects.registers, SystemClock(), SystemRandomness())


def _shown(key: AccessKey) -> dict[str, Any]:
    """A key without its secret."""
    state = "revoked" if key.is_revoked else "active"
    return {"access_key": key.key_id, "user": key.user, "state": state, "created_ms": key.created_ms}


@key_command.command("create")
@click.option("--user", required=True, help="Whose key it is; a user is a name, and needs nothing else.")
@click.option("--id", "identifier", default="", help="Its identifier, instead of a random one.")
@click.option(
    "--from-stdin",
    "from_stdin",
    is_flag=True,
    help="Read its secret from standard input, instead of drawing one.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def create_command(context: str | None, user: str, identifier: str, from_stdin: bool, as_json: bool) -> int:
    """Make a key and print it. The secret is shown this once."""
    secret = sys.stdin.readline().rstrip("\n") if from_stdin else ""
    if from_stdin and not secret:
        raise click.UsageError("standard input has no secret")

    async def create(client: AsyncClient) -> None:
        key = await _users(client).create(user, key_id=identifier, secret=secret)
        if as_json:
            print(json.dumps(_shown(key) | {"secret_key": key.secret}))
        else:
            print(f"access key  {key.key_id}\nsecret key  {key.secret}\nuser        {key.user}")

    return run_with_client(context, create)


@key_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def list_command(context: str | None, as_json: bool) -> int:
    """All keys that were made, without their secrets."""

    async def show(client: AsyncClient) -> None:
        keys = [_shown(key) async for key in _users(client).all()]
        if as_json:
            print(json.dumps(keys))
            return
        width = max([10, *[len(key["access_key"]) for key in keys]])
        print(f"{'ACCESS KEY':<{width}}  {'STATE':<8}  USER")
        for key in keys:
            print(f"{key['access_key']:<{width}}  {key['state']:<8}  {key['user']}")

    return run_with_client(context, show)


@key_command.command("revoke")
@click.argument("identifier", metavar="ACCESS_KEY")
@click.pass_obj
def revoke_command(context: str | None, identifier: str) -> int:
    """Let a key open nothing any more, within five seconds at every gateway. It stays in the list."""

    async def revoke(client: AsyncClient) -> None:
        await _users(client).revoke(identifier)
        print(f"revoked {identifier}")

    return run_with_client(context, revoke)


@key_command.command("wrapping")
@click.argument("path", metavar="SECRETS_FILE", type=click.Path(dir_okay=False))
@click.option("--standby", is_flag=True, help="It only unwraps for now: for when there are several gateways.")
@click.option("--use", "identifier", default="", help="No new one: let this one wrap from now on.")
def wrapping_command(path: str, standby: bool, identifier: str) -> int:
    """Put a new wrapping key into a secrets file, for the encryption of the S3 gateway. Prints its id.

    Gateways read it when they start. The last key wraps; the others are needed as long as there are objects
    whose keys they wrapped.
    """
    from ssastore.config import add_wrapping_key, use_wrapping_key

    if standby and identifier:
        raise click.UsageError("--standby makes a key, --use does not")
    if identifier:
        use_wrapping_key(path, identifier)
    else:
        identifier = add_wrapping_key(path, is_first=standby)
    print(identifier)
    return 0


@key_command.command("init")
@click.argument("path", metavar="SECRETS_FILE", type=click.Path(dir_okay=False))
def init_command(path: str) -> int:
    """Make a cluster's secrets file, with an access key of root's, whose id is printed.

    One that is there is checked and left as it is. Nodes and gateways of a cluster have the same file.
    """
    from ssastore.config import load_secrets, make_secrets

    with suppress(FileExistsError):
        make_secrets(path)
    print(next(iter(load_secrets(path).access_keys), "no access key"))
    return 0


@key_command.command("cluster")
@click.argument("path", metavar="SECRETS_FILE", type=click.Path(dir_okay=False))
@click.option(
    "--next",
    "step",
    flag_value="next",
    help="First: a new secret is made and accepted, beside the one in use.",
)
@click.option(
    "--switch",
    "step",
    flag_value="switch",
    help="Second: the new one is used, and the former still accepted.",
)
@click.option("--forget", "step", flag_value="forget", help="Third: the former one is not accepted any more.")
def cluster_command(path: str, step: str | None) -> int:
    """Exchange the cluster secret while everything runs, in three steps.

    By this secret nodes and gateways prove to one another that they belong together. It is in the file that
    `secrets_file` in their settings names, of which each host has a copy. Make a step on one host: only
    SECRETS_FILE is changed. Copy the file to all other hosts, wait 5 s until everybody has read it (or send
    SIGHUP), and make the next step. A step that is not the next one is refused, and changes nothing.
    """
    from ssastore.config import exchange_cluster_secret

    if step is None:
        raise click.UsageError("Needs one of --next, --switch, --forget.")
    print(exchange_cluster_secret(path, step))
    return 0
