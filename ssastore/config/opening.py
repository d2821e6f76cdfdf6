"""The control store that settings name."""

from __future__ import annotations

import json
from pathlib import Path

from ssastore.config.files import read_secret
from ssastore.control.address import parse_control
from ssastore.env import ControlStore
from ssastore.errors import ConfigError


def open_control(control: str, secrets_file: str) -> ControlStore:
    """A client of the control store that a setting names; nothing is connected before its first call.

    The secrets file may hold ``etcd``, with user and password.

    Raises:
        ConfigError: the setting, the secrets file, or a file for TLS is wrong.
    """
    # Each loads much that the other has no use for.
    if (address := parse_control(control)) is None:
        from ssastore.control.embedded import EmbeddedControlStore

        return EmbeddedControlStore(Path(control))
    from ssastore.control.etcd import EtcdControlStore

    user, password = _etcd_login(secrets_file)
    return EtcdControlStore(address, user=user, password=password)


def _etcd_login(path: str) -> tuple[str, str]:
    """(user, password) for etcd; empty when the secrets file names none. Raises ConfigError."""
    text = read_secret(path)
    try:
        login = json.loads(text).get("etcd", {})
        user, password = (login["user"], login["password"]) if login else ("", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        user = None
    if not isinstance(user, str) or not isinstance(password, str) or bool(user) != bool(password):
        raise ConfigError(f"{path}: etcd must have user and password, two texts") from None
    return user, password
