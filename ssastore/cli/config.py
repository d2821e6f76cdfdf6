"""``ssastore config``: files of settings, written, explained and described to other tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.config import GatewayConfig, NodeConfig

_KIND = click.argument("kind", type=click.Choice(["node", "gateway"]))


@click.group("config")
def config_command() -> None:
    """Settings of nodes and gateways."""


@config_command.command("init")
@_KIND
def init_command(kind: str) -> int:
    """Print a file of settings with every key: what it is, and its default."""
    from ssastore.config.described import commented

    click.echo(commented(kind), nl=False)
    return 0


@config_command.command("schema")
@_KIND
def schema_command(kind: str) -> int:
    """Print the JSON schema of the settings."""
    from ssastore.config.described import schema

    click.echo(json.dumps(schema(kind), indent=1))
    return 0


@config_command.command("show")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
@click.option(
    "--origin",
    "is_with_origin",
    is_flag=True,
    help="After each value where it comes from: FILE:LINE, or default.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, with origins.")
def show_command(path: str, is_with_origin: bool, as_json: bool) -> int:
    """Check a file of settings, and print all of what a process that is started with it would use.

    FILE is that of a node or of a gateway; its keys say which. What it does not name has its default.
    """
    import tomllib

    from ssastore.config import load
    from ssastore.config.described import KINDS, kind_of, with_origin
    from ssastore.config.files import read_small

    # What is no TOML is said by `load`, with the line.
    try:
        text = read_small(path).decode()
        kind = kind_of(tomllib.loads(text))
    except ValueError:
        text, kind = "", "node"
    settings: NodeConfig | GatewayConfig = load(path, KINDS[kind])
    rows = with_origin(settings, path, text)
    if as_json:
        click.echo(json.dumps({"kind": kind, "settings": rows}))
        return 0
    for row in rows:
        shown = f"{row['name']} = {json.dumps(row['value'], ensure_ascii=False)}"
        click.echo(f"{shown:<60}  # {row['origin']}" if is_with_origin else shown)
    return 0
