"""Settings and secrets files that are wrong: exit code 2, file and line, and never the secret itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done

NODE = [
    'name = "n1"',
    'control = "/nowhere/control.sock"',
    'data_dir = "/nowhere/data"',
    'secrets_file = "SECRETS"',
]
GATEWAY = ['control = "/nowhere/control.sock"', 'secrets_file = "SECRETS"']


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join([*lines, ""]))
    return str(path)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([*NODE, "prot = 7480"], ":5: unknown setting 'prot'"),
        ([*NODE, "", "[limits]", "x = 1"], ":6: unknown setting 'limits'"),
        ([*NODE, "limits.x = 1"], ":5: unknown setting 'limits'"),
        ([*NODE, 'cluster_secret = "0011223344"'], ":5: unknown setting 'cluster_secret'"),
        ([*NODE, "port = 7480", "port = 7481"], "(at line 6"),
        ([*NODE, 'port = "7480"'], ":5: port must be int, got '7480'"),
        ([*NODE, "port = 7480.0"], ":5: port must be int, got 7480.0"),
        ([*NODE, "port = true"], ":5: port must be int, got True"),
        ([*NODE, "port = 0"], ":5: port must be 1 to 65535"),
        ([*NODE, "port = 65536"], ":5: port must be 1 to 65535"),
        ([*NODE, "port = 8o80"], "(at line 5"),
        ([*NODE, f"port = 1{'0' * 5000}"], "settings.toml"),
        ([*NODE, "workers = 0"], ":5: workers must be 1 to 16"),
        ([*NODE, "workers = 17"], ":5: workers must be 1 to 16"),
        ([*NODE, "map_bytes = 0"], ":5: map_bytes must be 16 MiB to 64 TiB"),
        ([*NODE, "map_bytes = -1"], ":5: map_bytes must be 16 MiB to 64 TiB"),
        ([*NODE, "map_bytes = 70368744177665"], ":5: map_bytes must be 16 MiB to 64 TiB"),
        ([*NODE, "manage_routes = 1"], ":5: manage_routes must be bool, got 1"),
        ([*NODE, 'log_format = "xml"'], ":5: log_format must be text or json"),
        (['name = "../n1"', *NODE[1:]], ":1: name must be letters"),
        (['name = ""', *NODE[1:]], ":1: name must be letters"),
        (NODE[1:], "missing name"),
        ([], "missing name, control, data_dir, secrets_file"),
        ([*NODE, "port 7480"], "(at line 5"),
        ([*NODE, "\x00"], "(at line 5"),
        (["\ufeff" + NODE[0], *NODE[1:]], "begins with a byte order mark"),
        ([*NODE, "a = " + "[" * 100_000], "settings.toml"),
    ],
)
def test_wrong_node_setting_is_named_with_its_line(
    ssastore: Callable[..., Done], tmp_path: Path, lines: list[str], text: str
) -> None:
    path = write(tmp_path / "settings.toml", lines)
    done = ssastore("node", "--config", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"ssastore: {path}")
    assert text in done.err
    assert "0011223344" not in done.err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('s3_listen = "7482"', "HOST:PORT"),
        ('s3_listen = "[::]:0"', "1 to 65535"),
        ('s3_listen = "[::]:65536"', "1 to 65535"),
        ('s3_listen = "[::]:x"', "HOST:PORT"),
        ('admin_listen = "[::1]"', "HOST:PORT"),
        ("deadline_ms = 99", "deadline_ms must be 100 to 60000"),
        ("deadline_ms = 60001", "deadline_ms must be 100 to 60000"),
        ('log_format = ""', "log_format must be text or json"),
        ('data_dir = "d"', "unknown setting 'data_dir'"),
    ],
)
def test_wrong_gateway_setting_is_named_with_its_line(
    ssastore: Callable[..., Done], tmp_path: Path, line: str, text: str
) -> None:
    path = write(tmp_path / "settings.toml", [*GATEWAY, line])
    done = ssastore("gateway", "--config", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"ssastore: {path}:3: ")
    assert text in done.err


def test_tabs_and_comments_are_toml(ssastore: Callable[..., Done], tmp_path: Path) -> None:
    """All settings are read: what is missing is only the secrets file."""
    path = write(tmp_path / "settings.toml", [line.replace(" = ", "\t=\t") + "\t# why" for line in NODE])
    done = ssastore("node", "--config", path)
    assert (done.code, done.err) == (2, "ssastore: SECRETS: No such file or directory\n")


def make_large(path: Path) -> None:
    path.touch()
    os.truncate(path, 100 * 2**20)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # Modes do not stop root; a file whose reads fail stops everybody.


def make_binary(path: Path) -> None:
    path.write_bytes(b'name = "n1"\nx = "\xff"\n')


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (make_large, "larger than 1048576 bytes"),
        (make_endless, "larger than 1048576 bytes"),
        (make_loop, "symbolic links"),
        (make_unreadable, "Input/output error"),
        (make_binary, ":2: not UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", ["node", "gateway"])
def test_file_that_is_no_text_is_refused(
    ssastore: Callable[..., Done], tmp_path: Path, make: Callable[[Path], None], text: str, kind: str
) -> None:
    path = tmp_path / "settings.toml"
    make(path)
    done = ssastore(kind, "--config", str(path))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"ssastore: {path}")
    assert text in done.err


SECRET = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        (
            {"cluster_secret": SECRET, "access_keys": {"K": SECRET}},
            0o604,
            "readable by others; run: chmod 600",
        ),
        (
            {"cluster_secret": SECRET, "access_keys": {"K": SECRET}},
            0o640,
            "readable by others; run: chmod 600",
        ),
        ({"cluster_secret": SECRET[:30], "access_keys": {"K": SECRET}}, 0o600, "at least 16 bytes"),
        ({"cluster_secret": SECRET, "access_keys": {"K": ""}}, 0o600, "must have a secret"),
        ({"cluster_secret": SECRET, "access_keys": {"K": None}}, 0o600, "must be JSON with"),
        ({"cluster_secret": SECRET, "access_keys": SECRET}, 0o600, "must be JSON with"),
        ({"cluster_secret": SECRET}, 0o600, "must be JSON with"),
        ({"cluster_secret": SECRET + "x", "access_keys": {}}, 0o600, "must be JSON with"),
        ([SECRET], 0o600, "must be JSON with"),
        (SECRET + '"', 0o600, "must be JSON with"),
        ("[" * 100_000, 0o600, "must be JSON with"),
        ("\udcff", 0o600, "must be JSON with"),
    ],
)
@pytest.mark.parametrize("kind", ["node", "gateway"])
def test_wrong_secrets_file_is_refused_without_showing_it(
    ssastore: Callable[..., Done], tmp_path: Path, content: object, mode: int, text: str, kind: str
) -> None:
    secrets = tmp_path / "secrets.json"
    raw = content if isinstance(content, str) else json.dumps(content)
    secrets.write_bytes(raw.encode(errors="surrogateescape"))
    secrets.chmod(mode)
    lines = [line.replace("SECRETS", str(secrets)) for line in (NODE if kind == "node" else GATEWAY)]
    done = ssastore(kind, "--config", write(tmp_path / "settings.toml", lines))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"ssastore: {secrets}: ")
    assert text in done.err
    assert SECRET[:8] not in done.err


def test_wrapping_keys_are_added_and_used(
    ssastore: Callable[..., Done], tmp_path: Path, secrets_file: Path
) -> None:
    def ids() -> list[str]:
        return [row["id"] for row in json.loads(secrets_file.read_text())["wrapping_keys"]]

    (first,) = ids()
    standby = ssastore("key", "wrapping", str(secrets_file), "--standby").out.strip()
    assert ids() == [standby, first]
    assert ssastore("key", "wrapping", str(secrets_file), "--use", standby).out.strip() == standby
    assert ids() == [first, standby]
    newest = ssastore("key", "wrapping", str(secrets_file)).out.strip()
    assert ids() == [first, standby, newest]
    unknown = ssastore("key", "wrapping", str(secrets_file), "--use", "unknown")
    assert (unknown.code, unknown.out) == (2, "") and "no wrapping key unknown" in unknown.err
    assert ssastore("key", "wrapping", str(tmp_path / "nothing")).code == 2
