"""TLS on real sockets, on asyncio's loop and on uvloop: who is believed, who is told what, renewals."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ssastore.client import AsyncClient
from ssastore.errors import AccessDenied, ConfigError, Unavailable, Unproved
from ssastore.keyspace import Slice
from ssastore.limits import MIB
from ssastore.messages import Report
from ssastore.system import SystemRandomness
from ssastore.transport import secure
from ssastore.transport.connection import Connection, Identity
from ssastore.transport.knock import knock
from ssastore.transport.secure import SecureListener
from ssastore.transport.session import SPEAK_TLS
from ssastore.transport.tcp import LoopbackLinks, TcpLinks
from ssastore.transport.tls import Tls, TlsFiles
from tests.authorities import NAME, Signer
from tests.cluster import CREDENTIALS, KEY, SECRET, SERVICE, SmallCluster, small_cluster

HERE = IPv6Address("::1")
Test = Callable[[], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on one of the two loops."""

    def on_loop(work: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return on_loop


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "tls")


class Secured:
    """A small cluster whose nodes have a second port each, which speaks TLS."""

    def __init__(self, cluster: SmallCluster, tls: Tls, last: Tls | None = None) -> None:
        """``last``: of the last node, where it is another one."""
        self.cluster = cluster
        self.listeners: list[SecureListener] = []
        self.ports: dict[Slice, int] = {}
        for node in cluster.nodes:
            shown = tls if last is None or node is not cluster.nodes[-1] else last
            sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
            service = node.service
            service.node_name = tls.name
            self.port = sock.getsockname()[1]
            self.ports |= {Slice(number << 48, 16): self.port for number in node.slices}
            self.listeners.append(
                SecureListener(sock, shown, service.session, plainly=SPEAK_TLS, lets_in=service.lets_in)
            )

    def client(self, tls: Tls | None) -> AsyncClient:
        links = LoopbackLinks(self.ports, tls=tls)
        return AsyncClient(SERVICE, access_key=KEY, secret_key=SECRET, links=links, deadline_ms=2000)


@asynccontextmanager
async def secured(tls: Tls, **options: Any) -> AsyncIterator[Secured]:
    async with small_cluster(2, **options) as cluster:
        made = Secured(cluster, tls)
        try:
            yield made
        finally:
            for listener in made.listeners:
                listener.close()


async def connected(port: int, tls: Tls, identity: Identity | None = None) -> Connection:
    """A connection that has been greeted."""
    identity = identity or Identity("client", KEY, SECRET.encode())
    made = await TcpLinks(tls).dial(
        HERE, port, lambda: Connection(identity, SystemRandomness(), lambda _: None)
    )
    await made.greeted()
    return made


def test_objects_of_all_sizes_come_back(run: Any, signer: Signer) -> None:
    async def work() -> None:
        async with secured(signer.tls()) as site, site.client(Tls(TlsFiles(signer.ca), NAME)) as client:
            bucket = await client.create_bucket("photos", shards=4)
            bodies = {f"{size}": os.urandom(size) for size in (0, 1, 65536, 5 * MIB + 1, 12 * MIB)}
            for key, body in bodies.items():
                await bucket.put(key, body)
            assert await asyncio.gather(*(bucket.get(key) for key in bodies)) == list(bodies.values())
            assert [entry.key async for entry in bucket.list()] == sorted(bodies)  # type: ignore[union-attr]

    run(work())


def test_who_is_dialled_proves_the_name_of_the_service(run: Any, signer: Signer, tmp_path: Path) -> None:
    strangers = Signer(tmp_path / "strangers")

    async def work() -> None:
        async with secured(signer.tls()) as site:
            for tls, text in (
                (
                    Tls(TlsFiles(signer.ca), "other.example"),
                    "does not prove that it is other.example: Hostname",
                ),
                (Tls(TlsFiles(strangers.ca), NAME), f"does not prove that it is {NAME}: "),
            ):
                async with site.client(tls) as client:
                    with pytest.raises(Unavailable, match=text):
                        await client.create_bucket("photos")

    run(work())


def test_an_expired_certificate_is_refused(run: Any, signer: Signer) -> None:
    async def work() -> None:
        believed = Tls(TlsFiles(signer.ca), NAME)
        async with secured(signer.tls(is_expired=True)) as site, site.client(believed) as client:
            with pytest.raises(Unavailable, match="certificate has expired"):
                await client.create_bucket("photos")

    run(work())


def test_a_node_whose_certificate_has_expired_is_as_one_that_is_away(run: Any, signer: Signer) -> None:
    """Two of three planes are a majority, whatever becomes of the third one's files."""

    async def work() -> None:
        good, expired = signer.tls(), signer.tls(file="expired", is_expired=True)
        async with small_cluster(3, replicas=3) as cluster:
            site = Secured(cluster, good, expired)
            links = LoopbackLinks(site.ports, tls=good)
            for node in cluster.nodes:
                node.join(links)
            async with site.client(Tls(TlsFiles(signer.ca), NAME)) as client:
                bucket = await client.create_bucket("photos", shards=4)
                for size in (100, MIB):
                    for number in range(4):
                        body = os.urandom(size)
                        await bucket.put(f"{size} {number}", body)
                        assert await bucket.get(f"{size} {number}") == body
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await knock(TcpLinks(Tls(TlsFiles(signer.ca), NAME)), HERE, site.port)
            for listener in site.listeners:
                listener.close()

    run(work())


def test_a_client_without_tls_is_told_so(run: Any, signer: Signer) -> None:
    async def work() -> None:
        async with secured(signer.tls()) as site, site.client(None) as client:
            with pytest.raises(AccessDenied, match="it speaks TLS: tls_name and tls_ca are to be set"):
                await client.create_bucket("photos")

    run(work())


def test_who_does_not_speak_tls_does_not_write_the_log_full(
    run: Any, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with secured(signer.tls()) as site:
            for said in (b"no handshake", b"\x16 nor is this"):
                for _ in range(5):
                    reader, writer = await asyncio.open_connection("::1", site.port)
                    writer.write(said)
                    await reader.read()
                    writer.close()

    run(work())
    lines = [(record.getMessage(), vars(record)["peer"], vars(record)["count"]) for record in caplog.records]
    assert lines == [("connection.without_tls", "::1", 1), ("tls.refused", "::1", 1)]


def test_a_client_with_tls_says_that_there_is_none(run: Any, signer: Signer) -> None:
    async def work() -> None:
        async with small_cluster(1) as cluster:
            with pytest.raises(OSError, match="is TLS on there"):
                await connected(cluster.nodes[0].port, Tls(TlsFiles(signer.ca), NAME))

    run(work())


def test_a_node_shows_a_certificate_of_the_service(run: Any, signer: Signer) -> None:
    """The cluster secret alone opens nothing."""
    node = Identity("node", "n9", CREDENTIALS.cluster_secret)

    async def work() -> None:
        async with secured(signer.tls()) as site:
            with pytest.raises(AccessDenied, match=f"a node shows a certificate of {NAME}"):
                await connected(site.port, Tls(TlsFiles(signer.ca), NAME), node)
            with pytest.raises(AccessDenied, match=f"a node shows a certificate of {NAME}"):
                await connected(site.port, signer.tls("client.example", file="client"), node)
            (await connected(site.port, signer.tls(file="n9"), node)).close()
            # Its certificate is looked at by TLS itself, before the greeting.
            with pytest.raises(OSError):
                await connected(site.port, signer.tls(file="n9", is_expired=True), node)

    run(work())


def test_a_new_certificate_is_used_and_connections_stay(
    run: Any, signer: Signer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    others = Signer(tmp_path / "others")
    tls = signer.tls()

    async def work() -> None:
        async with secured(tls) as site:
            believed = Tls(TlsFiles(signer.ca), NAME)
            first = await connected(site.port, believed)
            tls.watch.look()
            assert "files." not in caplog.text
            # Half of it: the key is another's already. What was read last goes on.
            new = others.files()
            Path(signer.directory / "service.key").write_bytes(Path(new.key).read_bytes())
            tls.watch.look()
            assert "files.not_read_again" in caplog.text
            (await connected(site.port, believed)).close()
            Path(signer.directory / "service.pem").write_bytes(Path(new.cert).read_bytes())
            tls.watch.look()
            assert "files.read_again" in caplog.text
            with pytest.raises(Unproved):
                await connected(site.port, believed)
            (await connected(site.port, Tls(TlsFiles(others.ca), NAME))).close()
            assert first.is_open
            header, _ = await first.request(Report(0).header(0))
            assert header[1] == 1
            first.close()

    run(work())


def test_files_are_looked_at_by_themselves(run: Any, signer: Signer) -> None:
    tls = signer.tls()

    async def work() -> None:
        before = tls.server
        keeping = asyncio.ensure_future(tls.watch.keep(every_ms=20))
        await asyncio.sleep(0.1)
        assert tls.server is before
        signer.files()
        async with asyncio.timeout(5):
            while tls.server is before:
                await asyncio.sleep(0.02)
        keeping.cancel()

    run(work())


def test_who_says_nothing_does_not_stay(run: Any, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "GREETING_TIMEOUT_MS", 100)

    async def work() -> None:
        async with secured(signer.tls()) as site:
            for first in (b"", b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection("::1", site.port)
                writer.write(first)
                async with asyncio.timeout(5):
                    assert await _rest(reader) == b""
                writer.close()
            # It has room for others meanwhile, and ends with none of its own left over.
            (await connected(site.port, Tls(TlsFiles(signer.ca), NAME))).close()

    run(work())


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_who_breaks_the_rule_gets_no_handshake(run: Any, signer: Signer) -> None:
    asked: list[Any] = []

    async def work() -> None:
        sock = socket.create_server(("::1", 0), family=socket.AF_INET6)

        def lets_in(peer: Any, own: Any) -> bool:
            asked.append((peer[0], own[1]))
            return False

        listener = SecureListener(sock, signer.tls(), asyncio.Protocol, plainly=b"", lets_in=lets_in)
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="ended the TLS handshake"):
            await connected(port, Tls(TlsFiles(signer.ca), NAME))
        assert asked == [("::1", port)]
        listener.close()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await connected(port, Tls(TlsFiles(signer.ca), NAME))

    run(work())


def test_a_knock_hears_that_somebody_is_there(run: Any, signer: Signer) -> None:
    async def work() -> None:
        async with secured(signer.tls()) as site, asyncio.timeout(2):
            await knock(TcpLinks(Tls(TlsFiles(signer.ca), NAME)), HERE, site.port)

    run(work())


def test_files_that_become_readable_are_read(
    signer: Signer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `chown` after a new certificate was made by root: nothing but their owner is another one."""
    caplog.set_level("INFO")
    tls = signer.tls()
    before = tls.server
    files = signer.files()

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as unreadable:
        unreadable.setattr(ssl.SSLContext, "load_cert_chain", refused)
        tls.watch.look()
        assert "files.not_read_again" in caplog.text and tls.server is before
    os.chmod(files.key, 0o640)
    tls.watch.look()
    assert tls.server is not before and "files.read_again" in caplog.text


async def test_a_certificate_that_cannot_be_described_ends_no_looking(
    signer: Signer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be replaced between being read and being described, and other readers are stricter."""
    tls = signer.tls()

    def gone(path: str) -> str:
        raise ConfigError(f"{path}: no certificate in PEM")

    monkeypatch.setattr("ssastore.transport.tls.valid_until", gone)
    keeping = asyncio.ensure_future(tls.watch.keep(every_ms=10))
    signer.files()
    await asyncio.sleep(0.1)
    assert not keeping.done()
    keeping.cancel()


def test_files_that_cannot_be_used(signer: Signer, tmp_path: Path) -> None:
    good = signer.files()
    other = signer.files(file="other")
    (tmp_path / "no.pem").write_text("no certificate")
    for files in (
        TlsFiles(str(tmp_path / "none.pem")),
        TlsFiles(str(tmp_path / "no.pem")),
        TlsFiles(good.ca, good.cert, other.key),
        TlsFiles(good.ca, str(tmp_path / "no.pem"), good.key),
    ):
        with pytest.raises(ConfigError, match="for TLS: "):
            Tls(files, NAME)


def test_a_client_needs_a_name_to_verify(signer: Signer) -> None:
    with pytest.raises(ConfigError, match="tls_name says it"):
        AsyncClient(SERVICE, tls_ca=signer.ca)
    AsyncClient("store.example", tls_ca=signer.ca)
    with pytest.raises(ConfigError, match=r"cannot use /nowhere/ca\.pem for TLS"):
        AsyncClient(SERVICE, tls_ca="/nowhere/ca.pem", tls_name=NAME)


def test_versions_before_1_2_are_refused(signer: Signer) -> None:
    tls = signer.tls()
    assert tls.server is not None
    assert tls.client.minimum_version == tls.server.minimum_version == ssl.TLSVersion.TLSv1_2
