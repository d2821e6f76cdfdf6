"""The cluster secret is exchanged while connections are open; a file that changes is read again."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from ssastore.config import (
    exchange_cluster_secret,
    keys,
    load_secrets,
    make_secrets,
    watch_secrets,
    write_private,
)
from ssastore.errors import AccessDenied, ConfigError
from ssastore.messages import Report
from ssastore.system import SystemRandomness
from ssastore.transport.connection import Connection, Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.tcp import TcpLinks
from tests.cluster import small_cluster

OLD, NEW = b"o" * 32, b"n" * 32


async def connected(port: int, mine: Credentials) -> Connection:
    identity = Identity("node", "n9", credentials=mine)
    made = await TcpLinks().dial(
        IPv6Address("::1"), port, lambda: Connection(identity, SystemRandomness(), lambda _: None)
    )
    await made.greeted()
    return made


async def test_at_no_step_is_anybody_shut_out() -> None:
    """One host is a step ahead of the other at any time: it dials it, and is dialled by it."""
    steps = [
        Credentials(OLD, {}),
        Credentials(OLD, {}, (NEW,)),
        Credentials(NEW, {}, (OLD,)),
        Credentials(NEW, {}),
    ]
    async with small_cluster(2) as cluster:
        here, there = (node.service for node in cluster.nodes)
        here.credentials, there.credentials = Credentials(OLD, {}), Credentials(OLD, {})
        first = await connected(cluster.nodes[1].port, here.credentials)
        for step in steps:
            here.credentials.become(step)
            (await connected(cluster.nodes[1].port, here.credentials)).close()
            (await connected(cluster.nodes[0].port, there.credentials)).close()
            there.credentials.become(step)
        with pytest.raises(AccessDenied, match="wrong secret"):
            await connected(cluster.nodes[1].port, Credentials(OLD, {}))
        # Who was there before stays.
        header, _ = await first.request(Report(0).header(0))
        assert header[0] == 0
        first.close()


def test_a_step_skipped_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "secrets.json")
    make_secrets(path)
    before = load_secrets(path)
    for step in ("switch", "forget"):
        with pytest.raises(ConfigError, match="no exchange is under way"):
            exchange_cluster_secret(path, step)
    assert exchange_cluster_secret(path, "next") == "a new secret is accepted"
    for step in ("next", "forget"):
        with pytest.raises(ConfigError, match="accepted already: --switch comes next"):
            exchange_cluster_secret(path, step)
    new = load_secrets(path).further_secrets
    assert load_secrets(path).cluster_secret == before.cluster_secret and len(new) == 1
    exchange_cluster_secret(path, "switch")
    found = load_secrets(path)
    assert ((found.cluster_secret,), found.further_secrets) == (new, (before.cluster_secret,))
    # Made again it would swap them back, and the next step forget the new one.
    for step in ("switch", "next"):
        with pytest.raises(ConfigError, match="used already: --forget comes next"):
            exchange_cluster_secret(path, step)
    assert load_secrets(path) == found
    exchange_cluster_secret(path, "forget")
    assert load_secrets(path) == Credentials(new[0], before.access_keys)


async def test_a_file_that_changes_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "secrets.json"
    make_secrets(str(path))
    credentials = Credentials(b"", {})
    watch = watch_secrets(str(path), credentials)
    assert credentials == load_secrets(str(path))
    keys, before = credentials.access_keys, dict(credentials.access_keys)
    content = json.loads(path.read_text())
    write_private(path, "{}")
    watch.look()
    assert "files.not_read_again" in caplog.text and keys == before
    content["access_keys"] = {"ONE": "1"}
    write_private(path, json.dumps(content))
    keeping = asyncio.ensure_future(watch.keep(every_ms=10))
    async with asyncio.timeout(5):
        while keys == before:
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert keys == {"ONE": b"1"} and "files.read_again" in caplog.text
    assert content["cluster_secret"] not in caplog.text


def test_what_changes_while_it_is_read_first_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "secrets.json", tmp_path / "other.json"
    make_secrets(str(path))
    make_secrets(str(other))

    def load_and_replace(name: str) -> Credentials:
        found = load_secrets(name)
        write_private(path, other.read_text())
        return found

    credentials = Credentials(b"", {})
    with monkeypatch.context() as changing:
        changing.setattr(keys, "load_secrets", load_and_replace)
        watch = watch_secrets(str(path), credentials)
    watch.look()
    assert credentials == load_secrets(str(other))


@pytest.mark.parametrize("further", [["ab"], "ab", [1], ["x" * 64]])
def test_what_is_no_secret(tmp_path: Path, further: object) -> None:
    path = tmp_path / "secrets.json"
    make_secrets(str(path))
    write_private(path, json.dumps(json.loads(path.read_text()) | {"further_secrets": further}))
    with pytest.raises(ConfigError):
        load_secrets(str(path))
