"""Settings and secrets: every mistake is one line that names the file, the line, and what would be right."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import resource
import stat
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ssastore.client import AsyncClient, parse_url, secret_from
from ssastore.config import (
    GatewayConfig,
    NodeConfig,
    add_wrapping_key,
    keys,
    load,
    load_rules,
    load_secrets,
    load_tls,
    load_wrapping_keys,
    open_control,
    parse_listen,
    use_wrapping_key,
    write_private,
    write_secrets,
)
from ssastore.control.embedded import EmbeddedControlStore
from ssastore.control.etcd import EtcdControlStore
from ssastore.errors import ConfigError
from ssastore.limits import CALL_DEADLINE_MS_MAX, MAP_BYTES_DEFAULT
from ssastore.rules.hashes import ServiceKeys
from tests.authorities import NAME, Signer

NODE: dict[str, Any] = {
    "name": "n1",
    "control": "/run/control",
    "data_dir": "/var/lib/n1",
    "secrets_file": "/etc/secrets",
}
GROUP = 54321
"One that no machine has."
GATEWAY: dict[str, Any] = {"control": "/run/control", "secrets_file": "/etc/secrets"}


def toml(**settings: Any) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


def complaint(path: Path, text: str | bytes, kind: type = NodeConfig) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(str(path), kind)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


# -- files ------------------------------------------------------------------------------------------


def test_smallest_file_has_the_defaults(path: Path) -> None:
    path.write_text(toml(**NODE))
    assert load(str(path), NodeConfig) == NodeConfig(**NODE)
    found = NodeConfig(**NODE)
    assert (found.port, found.workers, found.map_bytes, found.manage_routes) == (
        7480,
        1,
        MAP_BYTES_DEFAULT,
        True,
    )
    path.write_text(toml(**GATEWAY))
    assert load(str(path), GatewayConfig) == GatewayConfig(**GATEWAY)


@pytest.mark.parametrize(
    ("number", "neighbours", "says"),
    [
        (0, "2001:db8::1 as 65000", "bgp_as must be 1 to 4294967294"),
        (65001, "", "bgp_neighbours: '' is no neighbour: `ADDRESS as NUMBER`"),
        (65001, "2001:db8::1 as 0", "bgp_neighbours: '2001:db8::1 as 0' is no neighbour"),
        (65001, "192.0.2.1 as 65000", "bgp_neighbours: '192.0.2.1 as 65000' is no neighbour"),
        (65001, "2001:db8::1 as 1, 2001:db8::1 as 2", "bgp_neighbours: 1 to 16 neighbours, each once"),
    ],
)
def test_announcing_by_itself_a_node_needs_to_know_whom(
    path: Path, number: int, neighbours: str, says: str
) -> None:
    lines = NODE | {"announce": "bgp", "bgp_as": number, "bgp_neighbours": neighbours}
    assert says in complaint(path, toml(**lines))


def test_a_gateway_announces_as_a_node_does_when_it_has_a_name(path: Path) -> None:
    lines = GATEWAY | {"announce": "bgp", "bgp_as": 65001, "bgp_neighbours": "2001:db8::1 as 65000"}
    assert "announce must be empty without name" in complaint(path, toml(**lines), GatewayConfig)
    lines |= {"name": "gw1", "address": "fd00::51"}
    path.write_text(toml(**lines))
    assert load(str(path), GatewayConfig).announce == "bgp"
    assert "bgp_as must be" in complaint(path, toml(**lines | {"bgp_as": 0}), GatewayConfig)


@pytest.mark.parametrize("kind", [NodeConfig, GatewayConfig])
def test_every_setting_can_be_set(path: Path, kind: type) -> None:
    values = {
        "name": "n-2.b_c", "control": "c", "data_dir": "d", "secrets_file": "s", "port": 65535, "workers": 16,
        "map_bytes": 1 << 30, "tombstone_kept_s": 60, "blob_grace_s": 120, "scrub_every_s": 300,
        "scrub_bytes_per_s": 1 << 20, "lifecycle_day_s": 5, "manage_routes": False, "log_format": "json",
        "simulated": True, "s3_listen": "[::]:80", "address": "fd00::51", "weight": 3,
        "rules": "v=SSA1; replicas=3; data=content+source",
        "rules_monitor": True, "announce": "",
        "bgp_as": 65001, "bgp_neighbours": "2001:db8::1 as 65000",
        "region": "eu", "s3_domain": "s3.example.org",
        "admin_listen": "127.0.0.1:1", "deadline_ms": 60_000, "cache_bytes": 1, "admin_token_file": "t",
        "tls_name": "store.example", "tls_ca": "ca.pem", "tls_cert": "n.pem", "tls_key": "n.key",
        "s3_cert": "s3.pem", "s3_key": "s3.key",
    }  # fmt: skip
    mine = {field.name: values[field.name] for field in fields(kind)}
    path.write_text(toml(**mine))
    found: Any = load(str(path), kind)
    assert {field.name: getattr(found, field.name) for field in fields(kind)} == mine


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("name", "", "name must be letters"),
        ("name", "a/b", "name must be letters"),
        ("name", "-a", "name must be letters"),
        ("name", "a" * 64, "name must be letters"),
        ("name", "a\n", "name must be letters"),
        ("name", 5, "name must be str, got 5"),
        ("port", 0, "port must be 1 to 65535"),
        ("port", 65536, "port must be 1 to 65535"),
        ("port", "7480", "port must be int, got '7480'"),
        ("port", True, "port must be int, got True"),
        ("port", 7480.0, "port must be int, got 7480.0"),
        ("workers", 0, "workers must be 1 to 16"),
        ("workers", 17, "workers must be 1 to 16"),
        ("map_bytes", 0, "map_bytes must be 16 MiB to 64 TiB"),
        ("map_bytes", 1 << 47, "map_bytes must be 16 MiB to 64 TiB"),
        ("announce", "bird", "announce must be kernel, bgp, or empty"),
        ("manage_routes", 1, "manage_routes must be bool, got 1"),
        ("log_format", "xml", "log_format must be text or json"),
        ("colour", "red", "unknown setting 'colour'"),
    ],
)
def test_wrong_setting_of_a_node_names_its_line(path: Path, name: str, value: Any, says: str) -> None:
    lines = NODE | {name: value}
    found = complaint(path, "# a comment\n" + toml(**lines))
    assert found.startswith(f":{list(lines).index(name) + 2}: {says}")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("s3_domain", "s3.example.org:80", "s3_domain must be a domain"),
        ("s3_domain", ".example.org", "s3_domain must be a domain"),
        ("s3_domain", "S3.example.org", "s3_domain must be a domain"),
        ("s3_domain", "a" * 200, "s3_domain must be a domain"),
        ("s3_listen", "7482", "s3_listen: '7482' must be HOST:PORT"),
        ("s3_listen", "[::]:0", "s3_listen: port must be 1 to 65535"),
        ("admin_listen", "[::1]:http", "admin_listen: '[::1]:http' must be HOST:PORT"),
        ("deadline_ms", 99, "deadline_ms must be 100 to 60000"),
        ("deadline_ms", 60_001, "deadline_ms must be 100 to 60000"),
        ("cache_bytes", -1, "cache_bytes must be 0 to 1 TiB"),
        ("log_format", "", "log_format must be text or json"),
        ("port", 7480, "unknown setting 'port'"),
        ("name", "a b", "name must be letters"),
        ("rules", "v=SSA1; front=telepathy", "rules: "),
    ],
)
def test_wrong_setting_of_a_gateway_names_its_line(path: Path, name: str, value: Any, says: str) -> None:
    found = complaint(path, toml(**(GATEWAY | {name: value})), GatewayConfig)
    assert found.startswith(f":3: {says}")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "address must be a routable"),
        ({"address": "fe80::1"}, "address must be a routable"),
        ({"address": "fd00::51", "weight": 0}, "weight must be 1 to"),
        ({"address": "fd00::51", "s3_listen": "127.0.0.1:80"}, "s3_listen must be [::]:PORT"),
    ],
)
def test_a_gateway_of_the_front_plane_has_an_address(path: Path, values: dict[str, Any], says: str) -> None:
    assert says in complaint(path, toml(**(GATEWAY | {"name": "gw1"} | values)), GatewayConfig)


@pytest.mark.parametrize("kind", [NodeConfig, GatewayConfig])
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tls_cert": "c"}, "tls_name must be a name such as"),
        ({"tls_name": "Store"}, "tls_name must be a name such as"),
        ({"tls_name": "2001:db8::1"}, "tls_name must be a name such as"),
        ({"tls_name": "store.example"}, "tls_ca must be the name of a file"),
        ({"tls_name": "store.example", "tls_ca": "a", "tls_cert": "c"}, "tls_key must be the name of a file"),
    ],
)
def test_settings_of_tls_belong_together(path: Path, kind: type, values: dict[str, Any], says: str) -> None:
    base = NODE if kind is NodeConfig else GATEWAY
    assert says in complaint(path, toml(**(base | values)), kind)


@pytest.mark.parametrize("name", ["s3_cert", "s3_key"])
def test_https_needs_both_files(path: Path, name: str) -> None:
    assert "s3_key must be there with s3_cert" in complaint(
        path, toml(**(GATEWAY | {name: "f"})), GatewayConfig
    )


def test_a_key_is_private(path: Path, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "tls")
    files = signer.files()
    tls = {"tls_name": NAME, "tls_ca": files.ca, "tls_cert": files.cert, "tls_key": files.key}
    path.write_text(toml(**(NODE | tls)))
    found = load_tls(load(str(path), NodeConfig))
    assert found is not None and found.name == NAME
    os.chmod(files.key, 0o640)
    assert load_tls(load(str(path), NodeConfig)) is not None
    os.chmod(files.key, 0o644)
    with pytest.raises(ConfigError, match="chmod o="):
        load_tls(load(str(path), NodeConfig))
    os.remove(files.key)
    with pytest.raises(ConfigError, match="No such file"):
        load_tls(load(str(path), NodeConfig))
    path.write_text(toml(**NODE))
    assert load_tls(load(str(path), NodeConfig)) is None


@pytest.mark.parametrize("name", NODE)
def test_missing_setting_is_named(path: Path, name: str) -> None:
    rest = {other: value for other, value in NODE.items() if other != name}
    assert complaint(path, toml(**rest)) == f": missing {name}"


def test_all_missing_settings_are_named_at_once(path: Path) -> None:
    assert complaint(path, "") == ": missing name, control, data_dir, secrets_file"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'a'\nname = 'b'\n", "(at line 2"),
        ("name = \n", "(at line 1"),
        ("\tname == 1\n", "(at line 1"),
        (b"\xef\xbb\xbfname = 'a'\n", "byte order mark"),
        (b"name = 'a'\nport = '\xff'\n", ":2: not UTF-8"),
        ("[node]\nname = 'a'\n", ":1: unknown setting 'node'"),
        ("node.name = 'a'\n", ":1: unknown setting 'node'"),
        ("x = " + "[" * 5000, ""),
        ("x" * (1 << 20) + "x", "larger than"),
    ],
    ids=["twice", "no value", "no TOML", "BOM", "latin-1", "table", "dotted", "nesting", "large"],
)
def test_file_that_is_none(path: Path, text: str | bytes, says: str) -> None:
    assert says in complaint(path, text)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, says in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "Is a directory"),
        (loop, "symbolic links"),
        (Path("/dev/zero"), "larger than"),
    ):
        with pytest.raises(ConfigError, match=says):
            load(str(path), NodeConfig)
        with pytest.raises(ConfigError, match=says):
            load_secrets(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[::1]:7482", ("::1", 7482)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::]:80", ("::", 80)),
    ],
)
def test_listen_address(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", ":80", "host", "host:", "host:8o80", "host:-1", "host:0", "[::1]:65536"]
)
def test_listen_address_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_listen(text)


# -- secrets ----------------------------------------------------------------------------------------

SECRET = bytes(range(32))
GOOD = {"cluster_secret": SECRET.hex(), "access_keys": {"KEY": "secret-of-key"}}


def secrets(tmp_path: Path, content: Any, mode: int = 0o600) -> str:
    path = tmp_path / "secrets"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return str(path)


def test_secrets_are_written_for_the_owner_only_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    write_secrets(str(path), SECRET, {"KEY": "sécret"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = load_secrets(str(path))
    assert (found.cluster_secret, found.access_keys) == (SECRET, {"KEY": "sécret".encode()})
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets"]


def test_rules_come_with_their_secrets(tmp_path: Path) -> None:
    content = {"cluster_secret": SECRET.hex(), "access_keys": {}, "rule_secrets": ["00" * 16, "11" * 16]}
    path = secrets(tmp_path, content)
    found = load_rules("v=SSA1; data=content+keyed; key=" + "ab" * 16, path)
    assert found is not None
    record, keys = found
    assert str(record.data) == "content+keyed"
    assert keys == ServiceKeys((b"\xab" * 16,), (bytes(16), b"\x11" * 16))
    assert load_rules("", path) is None


@pytest.mark.parametrize("wrong", [["00" * 15], ["zz" * 16], "00" * 16, [5], {}, 7])
def test_wrong_secrets_of_rules_are_refused_and_not_quoted(tmp_path: Path, wrong: Any) -> None:
    path = secrets(tmp_path, GOOD | {"rule_secrets": wrong})
    with pytest.raises(ConfigError, match="rule_secrets") as refused:
        load_rules("v=SSA1; data=content+keyed", path)
    assert "00" * 15 not in str(refused.value)


def test_a_keyed_rule_needs_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a keyed rule needs rule_secrets"):
        load_rules("v=SSA1; front=keyed", secrets(tmp_path, GOOD))


@pytest.mark.parametrize("kind", [NodeConfig, GatewayConfig])
def test_wrong_rules_are_refused_with_their_line(path: Path, kind: type) -> None:
    settings = NODE if kind is NodeConfig else GATEWAY
    said = complaint(path, toml(**(settings | {"rules": "v=SSA1; data=telepathy"})), kind)
    assert "rules: no such word" in said


@pytest.mark.parametrize("token", ["", "00" * 15, "zz" * 16])
async def test_a_wrong_token_is_refused_and_not_quoted(token: str) -> None:
    if token:
        with pytest.raises(ConfigError, match="32 hexadecimal digits") as refused:
            AsyncClient("2001:db8:5a:1::/64", rule_token=token)
        assert token not in str(refused.value)
    else:
        AsyncClient("2001:db8:5a:1::/64", rule_token=token)


def test_secrets_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    write_secrets(str(path), SECRET, {})
    with pytest.raises(FileExistsError):
        write_secrets(str(path), bytes(32), {})
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_secrets(str(path), bytes(32), {})
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_file_that_finds_no_room_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_private(tmp_path / "backup", "x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "backup") and not list(tmp_path.iterdir())


def test_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_what_root_gave_to_a_group_is_renewed_for_it(tmp_path: Path) -> None:
    """Else services could not read the key or the secrets that root has just renewed; nobody else gets in."""
    group = GROUP if os.geteuid() == 0 else os.getegid()
    path = Path(secrets(tmp_path, GOOD, 0o640))
    os.chown(path, -1, group)
    if os.geteuid() == 0:
        assert load_secrets(str(path)).access_keys
    else:
        with pytest.raises(ConfigError, match="chmod 600"):  # Of a user who has not said so.
            load_secrets(str(path))
    for former, kept in ((0o600, 0o600), (0o640, 0o640), (0o4666, 0o640)):
        path.chmod(former)
        write_private(path, "new")
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (os.geteuid(), group)
        assert stat.S_IMODE(found.st_mode) == (kept if os.geteuid() == 0 else 0o600)
    write_private(tmp_path / "beside", "token", like=path)
    assert (tmp_path / "beside").stat().st_gid == group
    assert (tmp_path / "beside").stat().st_mode == path.stat().st_mode


@pytest.mark.parametrize("mode", [0o660, 0o644, 0o650])
def test_a_group_that_root_gave_secrets_to_may_read_them_and_no_more(tmp_path: Path, mode: int) -> None:
    path = secrets(tmp_path, GOOD, mode)
    os.chown(path, -1, GROUP if os.geteuid() == 0 else -1)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_secrets(path)


def test_a_private_file_is_nobody_s_who_waits_for_it(tmp_path: Path) -> None:
    """Whoever may write the directory could guess the name, and have that file open to read what comes."""
    path = tmp_path / "private"
    waiting = tmp_path / f".private.{os.getpid()}"
    with open(waiting, "w+") as planted:
        write_private(path, "secret")
        assert path.read_text() == "secret" and planted.read() == ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("of somebody")
    waiting.symlink_to(elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)
    write_private(path, "secret")
    assert elsewhere.read_text() == "of somebody" and not path.is_symlink()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_secrets_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        load_secrets(secrets(tmp_path, GOOD, mode))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        {"cluster_secret": SECRET.hex()},
        {"access_keys": {}},
        GOOD | {"cluster_secret": "zz" * 32},
        GOOD | {"cluster_secret": 5},
        GOOD | {"cluster_secret": "00" * 15},
        GOOD | {"cluster_secret": ""},
        GOOD | {"access_keys": []},
        GOOD | {"access_keys": {"KEY": None}},
        GOOD | {"access_keys": {"KEY": 5}},
        GOOD | {"access_keys": {"KEY": ["x"]}},
        GOOD | {"access_keys": {"KEY": ""}},
    ],
    ids=lambda content: str(content)[-40:],
)
def test_secrets_that_are_none_are_refused_and_not_shown(tmp_path: Path, content: Any) -> None:
    """A key whose secret is empty or missing would let everybody in who knows its name."""
    path = secrets(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_secrets(path)
    assert str(caught.value).startswith(path) and SECRET.hex() not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_cluster_without_access_keys(tmp_path: Path) -> None:
    assert load_secrets(secrets(tmp_path, GOOD | {"access_keys": {}})).access_keys == {}


# -- the control store ------------------------------------------------------------------------------


async def test_setting_chooses_the_control_store(tmp_path: Path) -> None:
    path = secrets(tmp_path, GOOD | {"etcd": {"user": "ssa", "password": "s3cr3t"}})
    assert type(open_control("/run/control.sock", path)) is EmbeddedControlStore
    assert type(open_control("etcd://db1,db2/c", path)) is EtcdControlStore
    assert type(open_control("etcd://db1", secrets(tmp_path, GOOD))) is EtcdControlStore


@pytest.mark.parametrize(
    "login",
    [
        "s3cr3t",
        ["s3cr3t"],
        {"password": "s3cr3t"},
        {"user": "ssa"},
        {"user": "ssa", "password": ""},
        {"user": "", "password": "s3cr3t"},
        {"user": 5, "password": "s3cr3t"},
        {"user": "ssa", "password": ["s3cr3t"]},
    ],
)
def test_login_for_etcd_that_is_none_is_refused_and_not_shown(tmp_path: Path, login: Any) -> None:
    path = secrets(tmp_path, GOOD | {"etcd": login})
    with pytest.raises(ConfigError, match="etcd must have user and password") as caught:
        open_control("etcd://db1", path)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_login_for_etcd_in_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        open_control("etcd://db1", secrets(tmp_path, GOOD, 0o640))


@pytest.mark.parametrize("kind", [NodeConfig, GatewayConfig])
def test_control_store_that_is_none_is_said_with_its_line(path: Path, kind: type) -> None:
    settings = NODE if kind is NodeConfig else GATEWAY
    for control in ("etcd://", "http://h", "etcd://u:s3cr3t@h", "etcd://h/ö", "etcds://h?x=1"):
        said = complaint(path, toml(**(settings | {"control": control})), kind)
        assert re.match(r":\d+: control", said) and "s3cr3t" not in said


# -- the client's side ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "port", "replicas", "parts"),
    [
        ("ssa://[2001:db8:5a:1::]", 0, 0, []),
        ("ssa://[2001:db8:5a:1::]/", 0, 0, []),
        ("SSA://[2001:DB8:5A:1::]:99/photos", 99, 0, ["photos"]),
        ("ssa://[2001:db8:5a:1::]/photos/a/b?replicas=3", 0, 3, ["photos", "a/b"]),
        ("ssa://[2001:db8:5a:1::]?replicas=5", 0, 5, []),
    ],
)
def test_url(url: str, port: int, replicas: int, parts: list[str]) -> None:
    service, *rest = parse_url(url)
    assert (str(service), rest) == ("2001:db8:5a:1::/64", [port, replicas, parts])


def test_url_with_a_name() -> None:
    assert parse_url("ssa://store.example/photos/a")[0] == "store.example"
    assert parse_url("ssa://Store.Example.:99?replicas=3") == ("store.example.", 99, 3, [])


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "http://[2001:db8::]", "ssa:/[2001:db8::]", "ssa://", "ssa:///photos", "ssa://photos/a",
        "ssa://192.0.2.1", "ssa://[2001:db8:5a:1::1]", "ssa://[2001:db8:5a:1::", "ssa://[fe80::]", "ssa://[ff02::]",
        "ssa://[::]", "ssa://[2001:db8:5a:1::%25eth0]", "ssa://[2001:db8:5a:1::]:99999", "ssa://[2001:db8:5a:1::]:x",
        "ssa://[2001:db8:5a:1::]?replicas=2", "ssa://[2001:db8:5a:1::]?replicas=x", "ssa://[zz::]",
    ],
)  # fmt: skip
def test_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(url)


@pytest.mark.parametrize("deadline_ms", [0, -1, CALL_DEADLINE_MS_MAX + 1, 10**9])
async def test_deadline_that_nodes_do_not_remember(deadline_ms: int) -> None:
    """A call that repeats itself for longer than nodes remember operations could be applied twice."""
    with pytest.raises(ConfigError, match="deadline_ms"):
        AsyncClient("2001:db8:5a:1::/64", deadline_ms=deadline_ms)


@pytest.mark.parametrize("service", ["", "2001:db8::/48", "192.0.2.0/24", "2001:db8::1/64", "x"])
async def test_service_that_is_no_prefix(service: str) -> None:
    with pytest.raises(ConfigError, match="service"):
        AsyncClient(service)


async def test_client_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("SSASTORE_"):
            monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="SSASTORE_URL"):
        AsyncClient.from_env()
    monkeypatch.setenv("SSASTORE_URL", "ssa://[2001:db8:5a:1::]:99?replicas=3")
    monkeypatch.setenv("SSASTORE_ACCESS_KEY", "KEY")
    monkeypatch.setenv("SSASTORE_SECRET_KEY", "from the variable")
    client = AsyncClient.from_env(deadline_ms=500)
    identity = client.pool.identity
    assert (identity.key_id, identity.secret, identity.replicas) == ("KEY", b"from the variable", 3)
    assert client.pool.port == 99
    secret = tmp_path / "secret"
    secret.write_text("from the file\n")
    assert secret_from({"X": "a", "X_FILE": str(secret)}, "X") == "from the file"
    assert secret_from({"X": "a"}, "X") == "a" and secret_from({}, "X") == ""


# -- wrapping keys ----------------------------------------------------------------------------------

ROWS = [{"id": "old", "key": "11" * 32}, {"id": "new", "key": "22" * 32}]


def test_wrapping_keys_are_read_in_order(tmp_path: Path) -> None:
    found = load_wrapping_keys(secrets(tmp_path, GOOD | {"wrapping_keys": ROWS}))
    assert found == [("old", b"\x11" * 32), ("new", b"\x22" * 32)]
    assert load_wrapping_keys(secrets(tmp_path, GOOD)) == []


def test_new_secrets_have_a_wrapping_key(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_secrets(str(tmp_path / name), SECRET, {})
    (one,), (other,) = [load_wrapping_keys(str(tmp_path / name)) for name in ("a", "b")]
    assert len(one[1]) == 32 and one[1] != other[1]


def test_a_secrets_file_on_nfs_is_locked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There ``flock`` is a lock of bytes, which alone may be had only of what is open to write."""
    lock, path = fcntl.flock, secrets(tmp_path, GOOD)

    def flock(descriptor: int, operation: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    add_wrapping_key(path, is_first=True)
    assert len(load_wrapping_keys(path)) == 1


def test_a_secrets_file_that_cannot_be_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigError, match="cannot be locked: No locks available"):
        add_wrapping_key(secrets(tmp_path, GOOD), is_first=True)


def test_a_wrapping_key_is_added(tmp_path: Path) -> None:
    path = secrets(tmp_path, GOOD | {"wrapping_keys": ROWS, "etcd": {"user": "u", "password": "p"}})
    last, first = add_wrapping_key(path, is_first=False), add_wrapping_key(path, is_first=True)
    assert [name for name, _ in load_wrapping_keys(path)] == [first, "old", "new", last]
    assert load_secrets(path).cluster_secret == SECRET and json.loads(Path(path).read_text())["etcd"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_wrapping_key_is_used_from_now_on(tmp_path: Path) -> None:
    path = secrets(tmp_path, GOOD | {"wrapping_keys": ROWS})
    use_wrapping_key(path, "old")
    assert [name for name, _ in load_wrapping_keys(path)] == ["new", "old"]
    with pytest.raises(ConfigError, match="no wrapping key other"):
        use_wrapping_key(path, "other")


def test_no_wrapping_key_is_lost_when_several_are_added_at_once(tmp_path: Path) -> None:
    path = secrets(tmp_path, GOOD | {"wrapping_keys": ROWS})
    adders = [multiprocessing.Process(target=_add, args=(path,)) for _ in range(6)]
    for adder in adders:
        adder.start()
    _add(path)
    for adder in adders:
        adder.join()
        assert adder.exitcode == 0
    assert len(load_wrapping_keys(path)) == len(ROWS) + 7 * 5
    assert [entry.name for entry in tmp_path.iterdir()] == [Path(path).name]


def _add(path: str) -> None:
    for _ in range(5):
        add_wrapping_key(path, is_first=False)


def test_what_somebody_else_writes_meanwhile_is_not_undone(tmp_path: Path) -> None:
    """An editor holds no lock."""
    path = secrets(tmp_path, GOOD | {"wrapping_keys": ROWS[:1]})
    edited = json.dumps(GOOD | {"wrapping_keys": ROWS})

    def edit(known: list[dict[str, str]]) -> list[dict[str, str]]:
        Path(path).write_text(edited)
        return known

    with pytest.raises(ConfigError, match="meanwhile"):
        keys._change_wrapping_keys(path, edit)
    assert Path(path).read_text() == edited


def test_of_a_link_the_file_is_changed(tmp_path: Path) -> None:
    path, link = secrets(tmp_path, GOOD | {"wrapping_keys": ROWS}), tmp_path / "link"
    link.symlink_to(path)
    add_wrapping_key(str(link), is_first=False)
    assert link.is_symlink() and len(load_wrapping_keys(path)) == len(ROWS) + 1


@pytest.mark.parametrize(
    "rows",
    [
        5,
        {"id": "old", "key": "11" * 32},
        ["11" * 32],
        [{"id": "old"}],
        [{"id": "old", "key": "11" * 31}],
        [{"id": "old", "key": "zz" * 32}],
        [{"id": "", "key": "11" * 32}],
        [{"id": 5, "key": "11" * 32}],
        [ROWS[0], ROWS[0]],
    ],
)
def test_wrapping_keys_that_are_none_are_refused_and_not_shown(tmp_path: Path, rows: Any) -> None:
    path = secrets(tmp_path, GOOD | {"wrapping_keys": rows})
    for call in (load_wrapping_keys, lambda path: add_wrapping_key(path, is_first=False)):
        with pytest.raises(ConfigError) as caught:
            call(path)
        assert str(caught.value).startswith(path) and "11" * 16 not in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__
