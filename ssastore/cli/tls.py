"""``ssastore tls``: a small authority of the cluster, and certificates that it signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.authority import Authority

_DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
_ALSO = click.option(
    "--also", metavar="NAME", multiple=True, help="Another name or address that it proves; again for more."
)
_NAME = click.option("--name", metavar="NAME", required=True, help="Name of the service: tls_name.")


@click.group("tls")
def tls_command() -> None:
    """Certificates for the native protocol, for S3 and for an etcd, by an authority of the cluster's own."""


@tls_command.command("init")
@_DIRECTORY
@_NAME
@_ALSO
def init_command(directory: Path, name: str, also: tuple[str, ...]) -> int:
    """Make an authority in DIR, and a first certificate.

    ca.pem goes to all hosts and clients, ca.key stays here. service.pem and service.key are for this host, or
    for all of them. An authority that is there is left as it is.
    """
    from contextlib import suppress

    from ssastore.authority import Authority, now_utc, read_certificates
    from ssastore.errors import ConfigError

    _check(name)
    with suppress(FileExistsError):
        Authority.make(directory, name, now_utc())
    authority, path = Authority.load(directory), directory / "service.pem"
    if not path.exists():
        _issue(authority, directory / "service", [name, *also], None)
    elif name not in (proved := read_certificates(path.read_bytes(), str(path))[0].names):
        raise ConfigError(f"{path} proves {', '.join(proved)}; `ssastore tls issue` makes another")
    print(f'tls_name = "{name}"')
    for setting, file in (("tls_ca", "ca.pem"), ("tls_cert", "service.pem"), ("tls_key", "service.key")):
        print(f"{setting} = {json.dumps(str((directory / file).absolute()))}")
    return 0


@tls_command.command("issue")
@_DIRECTORY
@_NAME
@_ALSO
@click.option("--days", type=click.IntRange(1), help="How long it is valid, by default two years.")
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="PATH.pem and PATH.key, which are replaced; DIR/service by default.",
)
def issue_command(
    directory: Path, name: str, also: tuple[str, ...], days: int | None, out: Path | None
) -> int:
    """Sign a new certificate with the authority in DIR: for one more host, or before the last one ends.

    Nodes and gateways that run use it within 5 s, or at once after SIGHUP.
    """
    from ssastore.authority import Authority

    _check(name)
    path = out or directory / "service"
    _issue(Authority.load(directory), path, [name, *also], days)
    print(f"{path}.pem")
    return 0


@tls_command.command("show")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def show_command(path: Path, as_json: bool) -> int:
    """What the certificates of a file prove, and until when."""
    from ssastore.authority import read_certificates

    found = read_certificates(path.read_bytes(), str(path))
    rows = [
        {
            "names": list(one.names),
            "begins": one.begins.isoformat(),
            "ends": one.ends.isoformat(),
            "sha256": one.fingerprint,
            "is_authority": one.is_authority,
        }
        for one in found
    ]
    if as_json:
        print(json.dumps(rows))
        return 0
    for one in found:
        print("an authority" if one.is_authority else ", ".join(one.names))
        print(f"  from   {one.begins:%Y-%m-%d %H:%M} UTC\n  until  {one.ends:%Y-%m-%d %H:%M} UTC")
        print(f"  sha256 {one.fingerprint}")
    return 0


def _issue(authority: Authority, path: Path, names: list[str], days: int | None) -> None:
    """The key before the certificate, which is what a process waits for that sees both change."""
    from ssastore.authority import CERTIFICATE_DAYS, key_text, new_key, now_utc
    from ssastore.config import write_private

    key = new_key()
    text = authority.sign(key.public_key(), names, now_utc(), days or CERTIFICATE_DAYS)
    # Appended: a host's name may have dots.
    write_private(f"{path}.key", key_text(key))
    write_private(f"{path}.pem", text)


def _check(name: str) -> None:
    from ssastore.config.claims import check_tls

    check_tls(name, (".", ".", "."))
