"""Whose the settings of a host are: who takes services over must not replace what root believes."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssastore.config import NodeConfig
from ssastore.doctor.findings import Finding, State, good
from ssastore.hosting.files import token_book
from ssastore.hosting.plan import Places

_WANTED = "root's, for the services to read: docs/how-to/deploy.md, Files"
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a file is, and who may write it."""

    user: int
    group: int
    mode: int

    def lets(self, other: Owner) -> bool:
        """Whether the owner of something else may write here, or replace what is here."""
        by_group = self.group == other.group and self.mode & 0o020
        return self.user == other.user or bool(by_group or self.mode & 0o002)


def look_at_settings(config: NodeConfig) -> Finding:
    """Those of a host that `ssastore init` or `node join` made."""
    data = Path(config.data_dir)
    places = Places(Path(config.secrets_file).parent, data.parent)
    if not places.site.exists():
        return good("settings", "not made by `ssastore init`: whose they are is not looked at")
    tls, book = places.tls, token_book(places)
    paths = [places.settings, tls, tls / "ca.key", book, places.secrets, places.site, places.node]
    paths += [places.gateway, places.etcd, places.admin_token]
    paths += [tls / name for name in ("ca.pem", "host.pem", "host.key")]
    # Before a node has started once, what is to hold its directory is the user's already.
    services = owner_of(data if data.exists() else data.parent)
    return judge_settings(services, {str(path): owner_of(path) for path in paths if path.exists()}, places)


def judge_settings(services: Owner, found: Mapping[str, Owner], places: Places) -> Finding:
    """``services``: of the data, which is theirs; ``found``: of files and directories of settings."""
    if services.user == 0:
        return good("settings", "root's, as whom the services run")
    replaced = [path for path, owner in found.items() if owner.lets(services)]
    name = _name_of(services.user)
    if not replaced:
        return good("settings", f"not {name}'s, as whom the services run")
    listed = ", ".join(replaced[:_NAMED]) + (", ..." if len(replaced) > _NAMED else "")
    mend = f"ssastore node protect --user {name} --settings {places.settings} --data {places.data}"
    says = f"{name}, as whom the services run, can replace {listed}"
    return Finding("settings", State.WARN, says, _WANTED, mend)


def owner_of(path: Path) -> Owner:
    """Of what a link leads to. Raises OSError."""
    found = path.stat()
    return Owner(found.st_uid, found.st_gid, found.st_mode)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except LookupError:
        return str(user)
