"""A host is admitted by another over real sockets: once, by whom it believes, and by nobody else."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ssastore.authority import read_certificates
from ssastore.config import NodeConfig, load
from ssastore.core.cluster import NodeRecord
from ssastore.errors import AccessDenied, ConfigError, SsaStoreError, Unavailable
from ssastore.hosting.admitting import Admission
from ssastore.hosting.files import make_first, read_site, token_book
from ssastore.hosting.joining import join
from ssastore.hosting.plan import Places, Site
from ssastore.hosting.tokens import Token, TokenBook

N1, N2, N3 = (NodeRecord(f"n{n}", f"fd00::{n}") for n in (1, 2, 3))
SITE = Site("store.example", "fd5a:0:0:1::/64", 3, (N1, N2, N3))
N4 = NodeRecord("n4", "fd00::4")


class First:
    """The first host, which admits at ``::1``."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder / "etc", folder / "data")
        make_first(SITE, self.places)
        self.book = TokenBook(token_book(self.places))
        self.joined: list[NodeRecord] = []
        self.refusal: SsaStoreError | None = None
        self.port = 0

    async def _join(self, node: NodeRecord) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.joined.append(node)

    @asynccontextmanager
    async def admitting(self) -> AsyncIterator[None]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.places.tls / "host.pem", self.places.tls / "host.key")
        runner = web.AppRunner(Admission(self.places, self._join).application())
        await runner.setup()
        site = web.TCPSite(runner, "::1", self.port, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    def token(self, node: NodeRecord = N2) -> Token:
        ca = read_certificates((self.places.tls / "ca.pem").read_bytes(), "")[0]
        return Token("::1", self.port, SITE.name, ca.fingerprint, self.book.issue(node, ttl_s=60))


@pytest.fixture
def first(tmp_path: Path) -> First:
    return First(tmp_path / "n1")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "n2" / "etc", tmp_path / "n2" / "data")


async def test_a_host_gets_what_it_has_to_know(first: First, places: Places) -> None:
    async with first.admitting():
        assert await join(first.token(), places) == N2
    assert read_site(places) == SITE and first.joined == []
    assert places.secrets.read_bytes() == first.places.secrets.read_bytes()
    settings = load(str(places.node), NodeConfig)
    assert settings.name == "n2" and (places.settings / "etcd.json").exists()
    context = ssl.create_default_context(cafile=settings.tls_ca)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    (own,) = read_certificates(Path(settings.tls_cert).read_bytes(), "")
    assert own.names[:3] == ("store.example", "*.store.example", "fd00::2")
    # Not the authority's key, and nobody else can read what is secret.
    assert not (places.tls / "ca.key").exists()
    assert {path.stat().st_mode & 0o077 for path in places.settings.rglob("*")} == {0}


async def test_it_works_once_and_a_host_is_of_one_site(first: First, places: Places, tmp_path: Path) -> None:
    async with first.admitting():
        token = first.token()
        await join(token, places)
        with pytest.raises(ConfigError, match="already"):
            await join(first.token(), places)
        other = Places(tmp_path / "thief", tmp_path / "loot")
        with pytest.raises(AccessDenied, match="used already"):
            await join(token, other)
        with pytest.raises(AccessDenied, match="not known"):
            await join(replace(token, secret="0" * 32), other)
        assert not other.secrets.exists() and not other.site.exists()


@pytest.mark.parametrize("name", ["secrets.json", "node.toml", "gateway.toml", "tls/ca.pem"])
async def test_files_of_another_cluster_are_not_replaced(first: First, places: Places, name: str) -> None:
    """The only copy of its wrapping keys may be among them; and the token stays good."""
    path = places.settings / name
    path.parent.mkdir(parents=True)
    path.write_text("not of this site")
    async with first.admitting():
        token = first.token()
        with pytest.raises(ConfigError, match=f"{name} is there, and no site.json"):
            await join(token, places)
        with pytest.raises(ConfigError, match=f"{name} is there, and no site.json"):
            make_first(SITE, places)
        assert path.read_text() == "not of this site" and not places.site.exists()
        path.unlink()
        await join(token, places)


async def test_who_answers_has_to_be_the_one_of_the_token(
    first: First, places: Places, tmp_path: Path
) -> None:
    """Somebody else with an authority and a site of the same name learns no secret."""
    stranger = First(tmp_path / "stranger")
    token = first.token()
    async with stranger.admitting():
        with pytest.raises(AccessDenied, match="is not the host that the token is of"):
            await join(replace(token, port=stranger.port), places)
        # Its own authority, and another name: the secret is not sent either.
        with pytest.raises(Unavailable):
            await join(replace(stranger.token(), name="other.example"), places)
        assert stranger.book.open_until() > 0
    assert first.book.open_until() > 0 and not places.site.exists()


async def test_nobody_answers(first: First, places: Places) -> None:
    async with first.admitting():
        token = first.token()
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await join(token, places)
    assert "SSLContext" not in str(caught.value)


async def test_a_node_that_is_new_joins_the_cluster(first: First, places: Places) -> None:
    async with first.admitting():
        first.refusal = Unavailable("the control store is away")
        token = first.token(N4)
        with pytest.raises(Unavailable, match="the control store is away"):
            await join(token, places)
        first.refusal = None
        assert await join(token, places) == N4, "the token was not used up by that"
    assert first.joined == [N4]
    assert not (places.settings / "etcd.json").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"secret": "x"}',
        json.dumps({"secret": "x", "public_key": "y"}).encode(),
        b"x" * 20_000,
        b"[" * 16_000,
        b'{"secret": "x", "public_key": 5}',
    ],
)
async def test_what_is_no_request_uses_up_no_token(first: First, body: bytes) -> None:
    async with first.admitting():
        first.token()
        async with aiohttp.ClientSession() as session:
            url: Any = f"https://[::1]:{first.port}/join"
            async with session.post(url, data=body, ssl=False) as response:
                assert response.status in (400, 403, 413)
        assert first.book.open_until() > 0
