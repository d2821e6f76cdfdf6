"""A host's files, written: those of a site's first host, and those of one that was admitted."""

from __future__ import annotations

import json
import os
import pwd
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
    places.tls.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def write_settings(site: Site, node: NodeRecord, places: Places) -> None:
    """All that is no secret; the record of the site at last."""
    for directory in (places.settings, places.data):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    """To be asked for before anything is made, or a token is used up. ConfigError: there is no such user."""
    try:
        return pwd.getpwnam(user)
    except (LookupError, ValueError):
        raise ConfigError(f"--user {user}: no such user; systemd-sysusers makes the user ssastore") from None


def give_to(places: Places, user: str) -> None:
    """Let a user of the machine have settings and data, but for what only who admits hosts needs.

    Raises:
        ConfigError: there is no such user, or we may not.
    """
    # By name: whatever else is there, and wherever links lead, is not ours to give away.
    secret = [places.secrets, *(places.tls / name for name in ("ca.pem", "host.pem", "host.key"))]
    settings = [places.site, places.node, places.gateway, places.etcd]
    found = known_user(user)
    try:
        for path in (places.settings, places.tls, places.data, *secret, *settings):
            with suppress(FileNotFoundError):
                os.chown(path, found.pw_uid, found.pw_gid, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"--user {user}: {error}") from None
