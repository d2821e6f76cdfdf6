"""A host's files, written: those of a site's first host, and those of one that was admitted.

What services only read is root's, and their group may read it: a service that was taken over must not say
what root, or who admits hosts, believes next (docs/adr/0044).
"""

from __future__ import annotations

import json
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from ssastore.authority import Authority, key_text, new_key, now_utc
from ssastore.config import make_secrets, write_private
from ssastore.core.cluster import NodeRecord
from ssastore.errors import ConfigError
from ssastore.hosting.plan import (
    Places,
    Site,
    decode_site,
    etcd_settings,
    gateway_settings,
    names_of,
    node_settings,
    toml,
)


def make_first(site: Site, places: Places) -> None:
    """Secrets, authority and settings of the first host of a new site.

    Raises:
        ConfigError: the host is one of a site already.
    """
    refuse_second(places)
    make_directories(places)
    node = site.nodes[0]
    make_secrets(str(places.secrets))
    authority = Authority.make(places.tls, site.name, now_utc())
    key = new_key()
    write_private(places.tls / "host.key", key_text(key))
    write_private(places.tls / "host.pem", authority.sign(key.public_key(), names_of(site, node), now_utc()))
    write_settings(site, node, places)


def refuse_second(places: Places) -> None:
    """Raises ConfigError: the host is one of a site already, or has files that would be lost."""
    if places.site.exists():
        raise ConfigError(f"{places.site} is there: this host is one of {read_site(places).name} already")
    # Of a cluster that was made by other commands: with its wrapping keys go all encrypted objects.
    for path in (places.secrets, places.node, places.gateway, places.tls / "ca.pem"):
        if path.exists():
            raise ConfigError(f"{path} is there, and no site.json: move away what is not of this site")


def make_directories(places: Places) -> None:
    """Those of settings and data; nobody else can exchange what is written into the former.

    Raises ConfigError.
    """
    for directory in (places.settings, places.tls, places.data):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in (places.settings, places.tls):
        found = directory.stat()
        others = 0o002 if found.st_gid == os.getegid() else 0o022
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & others:
            raise ConfigError(
                f"{directory}: others can replace what is in it; look what is there, then run:"
                f" chown {os.geteuid()} {directory} && chmod go-w {directory}"
            )


def write_settings(site: Site, node: NodeRecord, places: Places) -> None:
    """All that is no secret; the record of the site at last."""
    etcd = etcd_settings(site, node, places)
    if etcd is not None:
        write_private(places.etcd, json.dumps(etcd, indent=1))
    write_private(places.gateway, toml(gateway_settings(site, places)))
    write_private(places.node, toml(node_settings(site, node, places)))
    write_private(places.site, site.encode())


def read_site(places: Places) -> Site:
    """The site that a host is one of. Raises ConfigError."""
    try:
        return decode_site(places.site.read_bytes())
    except OSError as error:
        raise ConfigError(f"{places.site}: {error.strerror}: `ssastore init` makes a site") from None
    except ConfigError as error:
        raise ConfigError(f"{places.site}: {error}") from None


def token_book(places: Places) -> Path:
    """Where a first host keeps what it knows of tokens."""
    return places.settings / "tokens.json"


def known_user(user: str) -> pwd.struct_passwd:
    """To be asked for before anything is made, or a token is used up.

    Raises ConfigError: there is no such user, or its group is others' as well.
    """
    try:
        found = pwd.getpwnam(user)
    except (LookupError, ValueError):
        raise ConfigError(f"--user {user}: no such user; systemd-sysusers makes the user ssastore") from None
    others = [one.pw_name for one in pwd.getpwall() if one.pw_gid == found.pw_gid and one.pw_name != user]
    if others and found.pw_uid != os.geteuid():
        raise ConfigError(
            f"--user {user}: its group, which is to read secrets, is that of {others[0]} too: give it its own"
        )
    return found


def give_to(places: Places, user: str) -> None:
    """Let the services' user read what services read, and have the data.

        settings, tls                  root's, 0750 for the user's group
        what services read in them     the same, 0640
        tls/ca.key, tokens             root's alone, 0600
        data                           the user's

    Of somebody who does so for himself all stays his alone.

    Raises:
        ConfigError: there is no such user, we may not, or what is there is no file or directory of its own.
    """
    # By name: whatever else is there, and wherever links lead, is not ours to give away.
    tls = [places.tls / name for name in ("ca.pem", "host.pem", "host.key")]
    read = [places.site, places.secrets, places.admin_token, places.node, places.gateway, places.etcd, *tls]
    book = token_book(places)
    found, own = known_user(user), os.geteuid()
    further = 0 if found.pw_uid == own else 0o050
    try:
        # From above: in a directory that is ours nobody exchanges what comes next.
        for directory in (places.settings.resolve(), places.tls):
            _give(directory, stat.S_IFDIR, own, found.pw_gid, 0o700 | further)
        for path in read:
            _give(path, stat.S_IFREG, own, found.pw_gid, 0o600 | further & 0o040)
        for path in (places.tls / "ca.key", book, book.with_suffix(".lock")):
            _give(path, stat.S_IFREG, own, os.getegid(), 0o600)
        with suppress(FileNotFoundError):
            os.chown(places.data.resolve(), found.pw_uid, found.pw_gid, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"--user {user}: {error}") from None


def _give(path: Path, kind: int, owner: int, group: int, mode: int) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    # A second name, or what a link leads to, may be a file that has nothing to do with us.
    is_its_own = kind == stat.S_IFDIR or found.st_nlink == 1
    if stat.S_IFMT(found.st_mode) != kind or not is_its_own:
        raise ConfigError(f"{path}: a link, or no file of its own: put what it is to be in its place")
    os.chown(path, owner, group, follow_symlinks=False)
    os.chmod(path, mode)
