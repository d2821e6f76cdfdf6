"""``bundle``: one archive for a report of a fault, without secrets."""

from __future__ import annotations

import http.client
import json
import os
import platform
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssastore.errors import ConfigError, EnvironmentProblem, SsaStoreError

if TYPE_CHECKING:
    from ssastore.lab.context import Context

_ASKED = {
    "status.json": "/status",
    "readyz.txt": "/readyz?verbose",
    "health.json": "/healthz/cluster",
    "metrics.txt": "/metrics",
}
_ASK_S = 10.0
_ABOUT = """\
A bundle of ssastore: what this host and its cluster looked like when it was made.

doctor.json      ssastore doctor --json
versions.json    ssastore, Python, kernel, libraries, SSASTORE_ variables
status.json      /status, /readyz, /healthz/cluster and /metrics of the gateway's admin port
settings/        settings of nodes and gateways of this host
logs/            the ends of their logs

Secrets are masked. Names of buckets, objects, hosts and addresses are not: look before you send it.
missing.txt says what could not be had, and why.
"""


@click.command("bundle")
@click.option("-o", "--output", metavar="FILE", help="Where to; default: ssastore-bundle-TIME.tar.gz here.")
@click.option(
    "--config",
    "configs",
    metavar="FILE",
    multiple=True,
    help="Settings of a node or gateway of this host; again for more.",
)
@click.option("--log", "logs", metavar="FILE", multiple=True, help="A log of this host; again for more.")
@click.pass_obj
def bundle_command(
    context: str | None, output: str | None, configs: tuple[str, ...], logs: tuple[str, ...]
) -> int:
    """Write one archive for a report of a fault: doctor, settings, versions, health, metrics, logs.

    Of a lab everything is found. Of a cluster on several hosts name this host's files by --config and --log;
    health and metrics are those of the gateway that --context FILE.toml names. What cannot be had is left
    out and told: the cluster need not answer.

    Secrets are masked, names of buckets, objects and hosts are not: look before you send it. Run it as
    somebody who can read the secrets file; it is refused else, as nobody knows then what to mask.
    """
    from ssastore.bundle import Masks, archive, secrets_of

    missing: dict[str, str] = {}
    found = _context(context, missing)
    settings = [*map(Path, configs), *_settings_of(found)]
    secrets_files = {Path(found.secrets_file)} if found else set()
    for path in settings:
        secrets_files |= _secrets_file_of(path)
    try:
        masks = Masks(secrets_of(sorted(secrets_files), os.environ))
    except (OSError, ValueError):
        # Not "from": the cause may quote a secret.
        names = ", ".join(map(str, sorted(secrets_files)))
        raise ConfigError(
            f"{names}: cannot be read, so nobody knows what to mask; run it as their owner"
        ) from None
    files = {"README.txt": _ABOUT}
    for name, make in _parts(found, settings, [*map(Path, logs), *_logs_of(found)]):
        try:
            files[name] = make()
        except (OSError, SsaStoreError, http.client.HTTPException, ValueError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
    files["missing.txt"] = "".join(f"{name}: {why}\n" for name, why in missing.items()) or "nothing\n"
    folder = time.strftime("ssastore-bundle-%Y%m%d-%H%M%S")
    target = Path(output or f"{folder}.tar.gz")
    _write(target, archive(folder, files, masks, int(time.time())))
    click.echo(
        f"{target}: {len(files)} files, {target.stat().st_size / 1024:.0f} KiB; secrets are masked, names not"
    )
    for name in missing:
        click.echo(f"without {name}: {missing[name]}")
    return 0


def _write(target: Path, content: bytes) -> None:
    """For the eyes of who made it alone. Raises EnvironmentProblem."""
    try:
        with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
    except OSError as error:
        raise EnvironmentProblem(f"{target}: {error.strerror}") from None


def _context(name: str | None, missing: dict[str, str]) -> Context | None:
    from ssastore.lab.context import find

    try:
        return find(name)
    except SsaStoreError as error:
        missing["cluster"] = str(error)
        return None


def _settings_of(found: Context | None) -> list[Path]:
    if found is None:
        return []
    if not found.is_lab:
        return [Path(found.name)]
    return sorted((Path(found.data_dir) / "config").glob("*.toml"))


def _logs_of(found: Context | None) -> list[Path]:
    if found is None or not found.is_lab:
        return []
    return sorted((Path(found.data_dir) / "log").glob("*.log"))


def _secrets_file_of(path: Path) -> set[Path]:
    try:
        named = tomllib.loads(path.read_text()).get("secrets_file")
    except (OSError, ValueError):
        return set()  # What is wrong with it is said where it is packed.
    return {Path(named)} if isinstance(named, str) else set()


def _parts(
    found: Context | None, settings: list[Path], logs: list[Path]
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name in the archive, and what makes the text."""
    from ssastore.bundle import tail

    yield "doctor.json", lambda: _doctor(settings)
    yield "versions.json", lambda: json.dumps(_versions(), indent=1)
    if found is not None:
        port = found.admin_port
        for name, question in _ASKED.items():
            yield name, partial(_ask, port, question)
    for path, name in zip(settings, _names(settings), strict=True):
        yield f"settings/{name}", path.read_text
    for path, name in zip(logs, _names(logs), strict=True):
        yield f"logs/{name}", partial(tail, path)


def _names(paths: list[Path]) -> list[str]:
    """File names, or whole paths where two have the same."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [str(path.absolute()).strip("/").replace("/", "_") for path in paths]


def _ask(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read().decode(errors="replace")
    finally:
        connection.close()


def _doctor(settings: list[Path]) -> str:
    from ssastore.cli.doctor import look
    from ssastore.config import NodeConfig, load
    from ssastore.doctor.findings import as_json

    config = None
    for path in settings:
        try:
            config = load(str(path), NodeConfig)
            break
        except ConfigError:
            continue  # A gateway's, or none: the next.
    where = Path(config.data_dir) if config else Path()
    return json.dumps(as_json(look(config, where, config.port if config else 7480)), indent=1)


def _versions() -> dict[str, Any]:
    from ssastore import __version__

    libraries = {}
    for name in ("aiohttp", "lmdb", "uvloop", "msgpack", "cryptography", "pyroute2", "blake3", "xxhash"):
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "absent"
    return {
        "ssastore": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "libraries": libraries,
        "environment": {name: value for name, value in os.environ.items() if name.startswith("SSASTORE_")},
    }
