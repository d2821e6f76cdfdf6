"""Whose a host's files are: a service that was taken over must not say what root believes next."""

from __future__ import annotations

import os
import pwd
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ssastore.cli import cli
from ssastore.config import load_secrets, write_private
from ssastore.config.files import read_secret
from ssastore.console.token import token_path
from ssastore.core.cluster import NodeRecord
from ssastore.errors import ConfigError
from ssastore.hosting import files
from ssastore.hosting.files import give_to, make_directories, make_first, read_site, token_book
from ssastore.hosting.plan import Places, Site
from ssastore.hosting.tokens import TokenBook

IS_ROOT = os.geteuid() == 0
NODES = tuple(NodeRecord(f"n{n}", f"fd00::{n}") for n in range(1, 4))
SITE = Site("store.example", "fd5a:0:0:1::/64", 3, NODES, {}, "ab")
SERVICES = pwd.struct_passwd(
    ("services", "x", 54321, 54322, "", "/", "/bin/sh")
    if IS_ROOT
    else ("services", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh")
)
"As whom the services would run; who is not root can only be it himself."
READ = {"etc/site.json", "etc/secrets.json", "etc/node.toml", "etc/gateway.toml", "etc/etcd.json"}
READ |= {"etc/admin-token", "etc/tls/ca.pem", "etc/tls/host.pem", "etc/tls/host.key"}
ALONE = {"etc/tls/ca.key", "etc/tokens.json", "etc/tokens.lock"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory to which everybody finds the way, which is not so below pytest's own."""
    with TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SERVICES if name == "services" else known(name))


@pytest.fixture
def places(folder: Path) -> Places:
    """A first host, with a token of another one, as it was before anything is given."""
    places = Places(folder / "etc", folder / "data")
    make_first(SITE, places)
    TokenBook(token_book(places)).issue(NODES[1], ttl_s=60)
    write_private(places.admin_token, "0" * 64)
    return places


def whose(folder: Path, *names: str) -> set[tuple[int, int, int]]:
    """(user, group, mode) of files."""
    found = [(folder / name).lstat() for name in names]
    return {(one.st_uid, one.st_gid, stat.S_IMODE(one.st_mode)) for one in found}


def as_services(work: Callable[[], object]) -> None:
    """Have a process of that user do something; what it raises is ours to see."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(SERVICES.pw_gid, SERVICES.pw_gid, SERVICES.pw_gid)
            os.setresuid(SERVICES.pw_uid, SERVICES.pw_uid, SERVICES.pw_uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def check_given(folder: Path) -> None:
    own, shared = os.geteuid(), IS_ROOT * 0o050
    assert whose(folder, "etc", "etc/tls") == {(own, SERVICES.pw_gid, 0o700 | shared)}
    assert whose(folder, *READ) == {(own, SERVICES.pw_gid, 0o600 | shared & 0o040)}
    assert whose(folder, *ALONE) == {(own, os.getegid(), 0o600)}
    assert whose(folder, "data") == {(SERVICES.pw_uid, SERVICES.pw_gid, 0o700)}


def test_services_read_what_is_root_s(places: Places, folder: Path) -> None:
    """The other files of the directory, and what links lead to, stay whose they were."""
    (places.settings / "other").mkdir()
    (folder / "elsewhere").write_text("of somebody else")
    (places.settings / "link").symlink_to(folder / "elsewhere")
    before = whose(folder, "etc/other", "elsewhere")
    give_to(places, "services")
    check_given(folder)
    assert whose(folder, "etc/other", "elsewhere") == before
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert names == READ | ALONE | {"etc", "etc/tls", "data", "etc/other", "etc/link", "elsewhere"}
    with pytest.raises(ConfigError, match="--user nobody-at-all"):
        give_to(places, "nobody-at-all")


def test_a_service_that_was_taken_over_replaces_nothing_there(places: Places) -> None:
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    give_to(places, "services")

    def work() -> None:
        assert read_site(places) == SITE
        assert load_secrets(str(places.secrets)).access_keys
        assert read_secret(str(places.admin_token)) and (places.tls / "host.key").read_text()
        (places.data / "node").mkdir()
        for secret in (places.tls / "ca.key", token_book(places)):
            with pytest.raises(PermissionError):
                secret.read_bytes()
        for path in (*places.settings.glob("*.*"), places.admin_token, *places.tls.glob("*")):
            for take in (
                path.unlink,
                lambda at=path: at.rename(places.data / "mine"),
                lambda at=path: os.open(at, os.O_WRONLY),
            ):
                with pytest.raises(PermissionError):
                    take()
        for directory in (places.settings, places.tls):
            with pytest.raises(PermissionError):
                (directory / ".new").touch()

    as_services(work)


def test_root_renews_what_services_go_on_reading(places: Places) -> None:
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    give_to(places, "services")
    where = str(places.tls)
    issue = ["tls", "issue", where, "--name", SITE.name, "--out", f"{where}/host"]
    for command in (issue, ["key", "cluster", str(places.secrets), "--next"]):
        assert cli.main(command, standalone_mode=False) == 0

    def work() -> None:
        assert (places.tls / "host.key").read_text() and (places.tls / "host.pem").read_text()
        assert "further_secrets" in places.secrets.read_text()

    as_services(work)


def test_a_host_of_an_earlier_version_is_protected(places: Places, folder: Path) -> None:
    """There the services' user had settings and tls, with all that it reads; the token is yet to be made."""
    places.admin_token.unlink()
    if IS_ROOT:
        for name in {"etc", "etc/tls", "data"} | READ - {"etc/admin-token"}:
            os.chown(folder / name, SERVICES.pw_uid, SERVICES.pw_gid)
    protect = ["node", "protect", "--user", "services"]
    where = ["--settings", str(places.settings), "--data", str(places.data)]
    assert cli.main([*protect, *where], standalone_mode=False) == 0
    check_given(folder)
    assert token_path(str(places.secrets)) == places.admin_token
    token = places.admin_token.read_text()
    assert cli.main([*protect, *where], standalone_mode=False) == 0  # Again changes nothing.
    check_given(folder)
    assert places.admin_token.read_text() == token


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
@pytest.mark.parametrize("name", ["node.toml", "tls/ca.pem", "tls"])
def test_links_that_were_planted_are_not_followed(kind: str, name: str, places: Places, folder: Path) -> None:
    elsewhere, planted = folder / "elsewhere", places.settings / name
    planted.rename(folder / "before")
    if name == "tls":
        (folder / "before").rename(elsewhere)
        planted.symlink_to(elsewhere)
    else:
        elsewhere.write_text("of somebody else")
        elsewhere.chmod(0o600)
        planted.symlink_to(elsewhere) if kind == "symbolic" else planted.hardlink_to(elsewhere)
    before = whose(folder, "elsewhere")
    with pytest.raises(ConfigError, match=f"{planted}: a link, or no file of its own"):
        give_to(places, "services")
    assert whose(folder, "elsewhere") == before


def test_secrets_are_not_written_where_others_can_replace_them(folder: Path) -> None:
    places = Places(folder / "etc", folder / "data")
    places.settings.mkdir()
    places.settings.chmod(0o757)
    with pytest.raises(ConfigError, match=f"chown {os.geteuid()} {places.settings} && chmod go-w"):
        make_first(SITE, places)
    assert not places.secrets.exists()
    places.settings.chmod(0o755)
    if IS_ROOT:
        os.chown(places.settings, SERVICES.pw_uid, -1)
        with pytest.raises(ConfigError, match="others can replace what is in it"):
            make_directories(places)
        os.chown(places.settings, 0, SERVICES.pw_gid)
        places.settings.chmod(0o775)
        with pytest.raises(ConfigError, match="others can replace what is in it"):
            make_directories(places)
        places.settings.chmod(0o755)
    make_directories(places)


def test_a_group_of_others_does_not_get_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    other = pwd.struct_passwd(("other", "x", 54399, SERVICES.pw_gid, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [SERVICES, other])
    monkeypatch.setattr(os, "geteuid", lambda: 54300)
    with pytest.raises(ConfigError, match="is that of other too"):
        files.known_user("services")
