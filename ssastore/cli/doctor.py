"""``doctor``: what this host lacks, and the command that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.config import NodeConfig
    from ssastore.doctor.findings import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "bad": "red", "unknown": "cyan"}


@click.command("doctor")
@click.option(
    "--config",
    "path",
    metavar="FILE",
    help="A node's settings: its data, control store and routes are looked at too.",
)
@click.option("--data", metavar="DIRECTORY", help="Where data would be; with --config its data_dir.")
@click.option("--port", type=click.IntRange(1, 65535), help="Native port; with --config its port.")
@click.option("--name", metavar="NAME", help="A service's name, looked up in DNS as clients do.")
@click.option(
    "--server", metavar="ADDRESS", envvar="SSASTORE_NAME_SERVER", default="", help="Name server to ask."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor_command(
    path: str | None, data: str | None, port: int | None, name: str | None, server: str, as_json: bool
) -> int:
    """Look at this host: what was found, what is wanted, and the command that mends it.

    Nothing is changed: AnyIP is tried in a name space of its own, and a few blocks are written to a file
    without a name. Exit code 1: something is bad.
    """
    from ssastore.config import NodeConfig, load
    from ssastore.doctor.findings import State
    from ssastore.doctor.findings import as_json as shown_as_json

    config = load(path, NodeConfig) if path else None
    findings = look(
        config, Path(data or (config.data_dir if config else ".")), port or (config.port if config else 7480)
    )
    if name:
        findings.append(_look_at_name(name, server))
    if as_json:
        click.echo(json.dumps(shown_as_json(findings)))
    else:
        _show(findings)
    return 1 if any(finding.state is State.BAD for finding in findings) else 0


def look(config: NodeConfig | None, data: Path, port: int) -> list[Finding]:
    from functools import partial

    from ssastore.doctor import certificates, disk, host, network, owners, service
    from ssastore.doctor.findings import Look, look_at

    # The first that exists: a node makes its directory when it starts.
    place = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.is_dir())
    looks: dict[str, Look] = {
        "kernel": host.look_at_kernel,
        "python": host.look_at_python,
        "ipv6": network.look_at_ipv6,
        "anyip": network.look_at_anyip,
        "privilege": network.look_at_privilege,
        "lane steering": network.look_at_steering,
        "mtu": network.look_at_mtu,
        "packet filter": partial(network.look_at_packet_filter, port),
        "clock": host.look_at_clock,
        "open files": host.look_at_files,
        "file system": partial(disk.look_at_file_system, place),
        "room": partial(disk.look_at_room, place),
        "flush": partial(disk.look_at_flush, place),
    }
    findings = [look_at(name, look) for name, look in looks.items()]
    if config is None:
        return findings
    findings.append(look_at("tls", partial(certificates.look_at_certificates, config)))
    findings.append(look_at("settings", partial(owners.look_at_settings, config)))
    return findings + service.look_at_service(config)


def _look_at_name(name: str, server: str) -> Finding:
    from ssastore.doctor.service import look_at_name

    return look_at_name(name, server)


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        state = click.style(f"{finding.state:<7}", fg=_COLOURS[finding.state])
        click.echo(f"{state} {finding.name:<{width}}  {finding.found}")
        if finding.wanted:
            click.echo(f"{'':<8}{'':<{width}}  wanted: {finding.wanted}")
        if finding.mend:
            click.echo(f"{'':<8}{'':<{width}}  mend:   {finding.mend}")
