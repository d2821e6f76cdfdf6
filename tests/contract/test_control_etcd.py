"""What only etcd does: it is killed and comes back, is compacted, has several endpoints and passwords.

All on real processes of etcd, but for the servers that are none.
"""

from __future__ import annotations

import asyncio
import signal
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ssastore.authority import CERTIFICATE_DAYS
from ssastore.control import etcd as etcd_module
from ssastore.control import etcdlink
from ssastore.control.etcd import EtcdControlStore
from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import ConfigError, Unavailable
from ssastore.limits import KIB
from tests.authorities import Signer
from tests.etcds import Etcd, address_of, require_etcd, running_etcd

SOON_S = 10


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running_etcd(tmp_path) as found:
        yield found


@pytest.fixture
async def store(etcd: Etcd) -> AsyncIterator[EtcdControlStore]:
    found = EtcdControlStore(etcd.address("/c"), timeout_ms=500, quiet_ms=100)
    yield found
    await found.close()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Etcd]]:
    """An etcd of three members."""
    require_etcd()
    found = [Etcd(tmp_path, name=f"m{number}") for number in range(3)]
    for member in found:
        member.members = ",".join(f"{other.name}={other.peer}" for other in found)
    try:
        for member in found:
            member.start()
        for member in found:
            member.wait()
        yield found
    finally:
        for member in found:
            member.kill()


def store_of(members: list[Etcd], **options: Any) -> EtcdControlStore:
    hosts = ",".join(f"127.0.0.1:{member.port}" for member in members)
    return EtcdControlStore(address_of(f"etcd://{hosts}/c"), **options)


async def put(store: EtcdControlStore, key: str, value: bytes, lease: int | None = None) -> int:
    revision = await store.transact([], [Write(key, value, lease)])
    assert revision is not None
    return revision


async def put_soon(store: EtcdControlStore, key: str, value: bytes) -> int:
    """As whoever gets Unavailable does it: again, and seeing that once is enough."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await put(store, key, value)
            except Unavailable:
                await asyncio.sleep(0.02)


async def take(store: EtcdControlStore, prefix: str, after_revision: int, count: int) -> list[Event]:
    found: list[Event] = []
    async with aclosing(store.watch(prefix, after_revision)) as watch, asyncio.timeout(SOON_S):
        while len(found) < count:
            found.append(await anext(watch))
    return found


# -- etcd ends and comes back -----------------------------------------------------------------------


async def test_killed_etcd_comes_back_with_everything_and_the_watch_goes_on(
    etcd: Etcd, store: EtcdControlStore
) -> None:
    lease = await store.grant(60_000)
    first = await put(store, "a", b"1", lease)
    async with aclosing(store.watch("", 0)) as watch:
        assert await anext(watch) == Event("a", b"1", first)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        etcd.kill()
        with pytest.raises(Unavailable):
            await waiting
    with pytest.raises(Unavailable, match="refused"):
        await store.get("a")
    with pytest.raises(Unavailable):
        await store.transact([], [Write("a", b"lost")])
    etcd.restart()
    second = await put_soon(store, "b", b"2")
    assert (await store.list(""))[0] == [Item("a", b"1", first), Item("b", b"2", second)]
    assert await take(store, "", first, 1) == [Event("b", b"2", second)]
    assert await store.keep_alive(lease) is True


async def test_compaction_while_a_watch_is_away_says_list_again(etcd: Etcd, store: EtcdControlStore) -> None:
    seen = await put(store, "a", b"1")
    assert await take(store, "", seen - 1, 1)
    etcd.stop()
    etcd.restart()
    await put_soon(store, "a", b"2")
    await put(store, "gone", b"")
    last = await store.transact([], [Write("gone", None)])
    assert last is not None
    await etcd.compact(last)
    with pytest.raises(WatchCompacted):
        await take(store, "", seen, 1)
    items, revision = await store.list("")
    assert [(item.key, item.value) for item in items] == [("a", b"2")]
    later = await put(store, "a", b"3")
    assert await take(store, "", revision, 1) == [Event("a", b"3", later)]


async def test_store_that_lost_everything_is_another_history(tmp_path: Path, etcd: Etcd) -> None:
    store = EtcdControlStore(etcd.address())
    for number in range(3):
        revision = await put(store, "a", b"%d" % number)
    await store.close()
    etcd.kill()
    (tmp_path / "default").rename(tmp_path / "lost")
    etcd.restart()
    store = EtcdControlStore(etcd.address())
    with pytest.raises(WatchCompacted):
        await take(store, "", revision, 1)
    await store.close()


async def test_stopped_etcd_is_not_taken_for_a_quiet_one(etcd: Etcd, store: EtcdControlStore) -> None:
    """Its connections stand and its kernel takes new ones; only an answer tells."""
    waiting = asyncio.ensure_future(take(store, "", 0, 1))
    await store.get("a")
    etcd.send(signal.SIGSTOP)
    try:
        async with asyncio.timeout(SOON_S):
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable, match="in time"):
                await store.get("a")
    finally:
        etcd.send(signal.SIGCONT)
    revision = await put_soon(store, "a", b"1")
    assert (await take(store, "", revision - 1, 1))[0].value == b"1"


async def test_quiet_watch_of_a_healthy_etcd_stays(store: EtcdControlStore) -> None:
    waiting = asyncio.ensure_future(take(store, "a", 0, 1))
    await asyncio.sleep(0.35)
    assert not waiting.done()
    await put(store, "a", b"1")
    assert (await waiting)[0].value == b"1"


# -- several endpoints ------------------------------------------------------------------------------


async def test_calls_and_watches_go_on_at_other_members(members: list[Etcd]) -> None:
    """Each member in turn is killed: nothing that was acknowledged is lost, no event twice or missing."""
    store = store_of(members)
    revision, written = 0, 0
    seen: list[Any] = []
    for member in members:
        written += 1
        await put_soon(store, "n", b"%d" % written)
        member.kill()
        written += 1
        await put_soon(store, "n", b"%d" % written)
        async with asyncio.timeout(SOON_S):
            while not seen or seen[-1].value != b"%d" % written:
                try:
                    seen += await take(store, "", revision, 1)
                    revision = seen[-1].revision
                except Unavailable:
                    await asyncio.sleep(0.02)
        member.restart()
    values = [int(event.value or b"0") for event in seen]
    assert sorted(set(values)) == list(range(1, written + 1)) and values == sorted(values)
    await store.close()


async def test_member_without_the_others_is_left_alone(members: list[Etcd]) -> None:
    """A watch at a member that lost its majority ends, though the member runs and holds the connection."""
    store = store_of(members[:1], timeout_ms=1000)
    await put_soon(store, "a", b"1")
    waiting = asyncio.ensure_future(take(store, "b", 0, 1))
    await asyncio.sleep(0.2)
    for member in members[1:]:
        member.kill()
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await store.get("a")
    await store.close()


async def test_dead_endpoint_beside_a_living_one_costs_nothing(etcd: Etcd, tmp_path: Path) -> None:
    dead = Etcd(tmp_path, name="dead")
    store = store_of([dead, etcd])
    assert await store.transact([Compare("a", 0)], [Write("a", b"1")])
    assert await store.transact([Compare("a", 0)], [Write("a", b"1")]) is None
    assert (await take(store, "", 0, 1))[0].value == b"1"
    await store.close()


async def test_transaction_whose_answer_is_lost_is_not_sent_twice(etcd: Etcd) -> None:
    """The first endpoint takes every question and hangs up; a read is asked again at the second."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    first = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for is_read_first in (False, True):
        store = EtcdControlStore(address_of(f"etcd://{first},127.0.0.1:{etcd.port}/c"))
        if is_read_first:
            assert await store.get("a") is None
            assert await store.transact([], [Write("a", b"1")])
        else:
            with pytest.raises(Unavailable):
                await store.transact([], [Write("a", b"1")])
            assert await store.get("a") is None
        await store.close()
    server.close()


async def test_endpoints_of_two_clusters_are_not_one_store(etcd: Etcd, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with running_etcd(tmp_path / "other") as other:
        store = store_of([etcd, other], timeout_ms=1000)
        await put(store, "a", b"1")
        etcd.kill()
        with pytest.raises(Unavailable, match="another etcd cluster"):
            await store.get("a")
        await store.close()


# -- pages ------------------------------------------------------------------------------------------


async def test_pages_of_a_listing_are_of_one_revision(
    store: EtcdControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys are rewritten in one transaction again and again; a listing shows one of these states."""
    monkeypatch.setattr(etcd_module, "CONTROL_PAGE_ITEMS", 3)
    keys = [f"k{number}" for number in range(10)]

    async def rewrite(rounds: int) -> None:
        for number in range(rounds):
            await store.transact([], [Write(key, b"%d" % number) for key in keys])

    await rewrite(1)
    writing = asyncio.ensure_future(rewrite(100))
    versions = set()
    while not writing.done():
        items, revision = await store.list("")
        assert [item.key for item in items] == keys
        assert len({item.value for item in items}) == 1
        assert max(item.revision for item in items) <= revision
        versions.add(items[0].value)
    assert len(versions) > 3, "the listings were not made beside the writes"
    await writing


async def test_page_above_the_bound_is_asked_for_in_smaller_ones(
    store: EtcdControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await put(store, f"{number:02}", bytes(10 * KIB))
    monkeypatch.setattr(etcdlink, "CONTROL_ANSWER_BYTES_MAX", 64 * KIB)
    items, _ = await store.list("")
    assert [item.key for item in items] == [f"{number:02}" for number in range(20)]
    monkeypatch.setattr(etcdlink, "CONTROL_ANSWER_BYTES_MAX", 4 * KIB)
    with pytest.raises(ConfigError):
        await store.list("")


# -- passwords and TLS ------------------------------------------------------------------------------


def enable_auth(etcd: Etcd) -> None:
    """User ``ssa`` may read and write below /c/, nobody else may anything but root."""
    first, end = b64encode(b"/c/").decode(), b64encode(b"/c0").decode()
    for user, password, role in (("root", "r00t", "root"), ("ssa", "s3cr3t", "cluster")):
        etcd.ask("/v3/auth/role/add", name=role)
        etcd.ask("/v3/auth/user/add", name=user, password=password)
        etcd.ask("/v3/auth/user/grant", user=user, role=role)
    etcd.ask(
        "/v3/auth/role/grant",
        name="cluster",
        perm={"permType": "READWRITE", "key": first, "range_end": end},
    )
    etcd.ask("/v3/auth/enable")


async def test_users_may_what_etcd_says_and_are_told_why_not(etcd: Etcd) -> None:
    enable_auth(etcd)
    mine, foreign = etcd.address("/c"), etcd.address("/other")
    good = EtcdControlStore(mine, user="ssa", password="s3cr3t")
    revision = await put(good, "a", b"1")
    assert await good.get("a") == Item("a", b"1", revision)
    assert await take(good, "", revision - 1, 1) == [Event("a", b"1", revision)]
    for refused in (
        EtcdControlStore(mine),
        EtcdControlStore(mine, user="ssa", password="wr0ng"),
        EtcdControlStore(mine, user="nobody", password="s3cr3t"),
        EtcdControlStore(foreign, user="ssa", password="s3cr3t"),
    ):
        for call in (refused.get("a"), refused.transact([], [Write("a", b"2")]), refused.list("")):
            with pytest.raises(ConfigError) as caught:
                await call
            assert "secrets file" in str(caught.value)
            assert "s3cr3t" not in str(caught.value) and "wr0ng" not in str(caught.value)
        await refused.close()
    await good.close()


async def test_token_of_an_etcd_that_started_again_is_renewed(etcd: Etcd) -> None:
    """etcd's tokens are gone with its process."""
    enable_auth(etcd)
    store = EtcdControlStore(etcd.address("/c"), user="ssa", password="s3cr3t")
    revision = await put(store, "a", b"1")
    etcd.stop()
    etcd.start()
    second = await put_soon(store, "a", b"2")
    etcd.stop()
    etcd.start()
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                assert await take(store, "", revision, 1) == [Event("a", b"2", second)]
                break
            except Unavailable:
                await asyncio.sleep(0.02)
    await store.close()


async def test_user_where_everybody_may_in_is_no_error(etcd: Etcd) -> None:
    store = EtcdControlStore(etcd.address(), user="ssa", password="s3cr3t")
    assert await put(store, "a", b"1")
    await store.close()


async def test_tls_is_verified(tmp_path: Path) -> None:
    require_etcd()
    etcd = Etcd(tmp_path, "--auto-tls", scheme="https")
    try:
        etcd.restart()
        hosts = f"etcds://127.0.0.1:{etcd.port}"
        store = EtcdControlStore(address_of(f"{hosts}?ca={tmp_path}/default/fixtures/client/cert.pem"))
        revision = await put(store, "a", b"1")
        assert await take(store, "", revision - 1, 1) == [Event("a", b"1", revision)]
        await store.close()
        stranger = EtcdControlStore(address_of(hosts))
        with pytest.raises(ConfigError, match="TLS"):
            await stranger.get("a")
        await stranger.close()
        plain = EtcdControlStore(etcd.address(), timeout_ms=1000)
        with pytest.raises((ConfigError, Unavailable)):
            await plain.get("a")
        await plain.close()
    finally:
        etcd.kill()


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    """The etcd wants one of an authority, and the first one that the client had has ended."""
    require_etcd()
    signer = Signer(tmp_path / "tls")
    own, mine = (
        signer.files("127.0.0.1", file="etcd"),
        signer.files(file="client", age_days=CERTIFICATE_DAYS + 1),
    )
    options = [
        "--cert-file",
        own.cert,
        "--key-file",
        own.key,
        "--trusted-ca-file",
        own.ca,
        "--client-cert-auth",
    ]
    etcd = Etcd(tmp_path, *options, scheme="https")
    try:
        etcd.restart()
        text = f"etcds://127.0.0.1:{etcd.port}?ca={mine.ca}&cert={mine.cert}&key={mine.key}"
        store = EtcdControlStore(address_of(text), timeout_ms=2000)
        with pytest.raises((ConfigError, Unavailable)):
            await store.get("a")
        signer.files(file="client")
        assert await put_soon(store, "a", b"1")
        await store.close()
    finally:
        etcd.kill()


def test_missing_certificate_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere/ca"):
        EtcdControlStore(address_of("etcds://localhost?ca=/nowhere/ca.pem"))


# -- servers that are no etcd -----------------------------------------------------------------------


@asynccontextmanager
async def answering(
    *answers: bytes, path: str = "", status: int = 200, kind: str = "application/json"
) -> AsyncIterator[EtcdControlStore]:
    """A client of a server that sends ``answers`` to every request (of ``path``; 404 to others)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        is_asked = path in head.split(b"\r\n")[0].decode()
        code = status if is_asked else 404
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\n\r\n" % (code, kind.encode()))
        for answer in answers if is_asked else ():
            writer.write(answer)
            try:
                await writer.drain()
            except ConnectionError:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = EtcdControlStore(address_of(f"etcd://127.0.0.1:{port}/c"), timeout_ms=2000)
    yield store
    await store.close()
    server.close()


HEADER = b'"header":{"cluster_id":"7","revision":"9"}'


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html>", "JSON"),
        (b"[]", "form"),
        (b"[" * 100_000, "JSON"),
        (b"{}", "form"),
        (b'{"header":{"revision":"9"}}', "cluster id"),
        (b'{"header":{"cluster_id":"7","revision":"nine"}}', "number"),
        (b'{"header":{"cluster_id":"7","revision":9.5}}', "number"),
        (b"{%s,%s}" % (HEADER, b'"kvs":7'), "form"),
        (b"{%s,%s}" % (HEADER, b'"kvs":[{"key":"!"}]'), "base64"),
        (b"{%s,%s}" % (HEADER, b'"kvs":[{"key":7}]'), "base64"),
        (b"{%s,%s}" % (HEADER, b'"kvs":[{"key":"b3RoZXI="}]'), "not asked for"),
        (b"{%s,%s}" % (HEADER, b'"kvs":[{"key":"L2Mv/w=="}]'), "not ours"),
    ],
)
async def test_what_is_no_answer_of_etcd_is_said(answer: bytes, why: str) -> None:
    async with answering(answer) as store:
        with pytest.raises(ConfigError, match=why):
            await store.get("a")


@pytest.mark.parametrize("line", [b"<html>\n", b"7\n", b'{"result":[]}\n', b"{}\n"])
async def test_what_is_no_stream_of_etcd_is_said(line: bytes) -> None:
    async with answering(line) as store:
        with pytest.raises(ConfigError):
            await take(store, "", 0, 1)


@pytest.mark.parametrize(
    ("status", "kind", "problem"),
    [(404, "text/plain", ConfigError), (301, "text/html", ConfigError), (502, "text/html", Unavailable)],
)
async def test_other_servers_are_told_apart(status: int, kind: str, problem: type[Exception]) -> None:
    async with answering(b"no", status=status, kind=kind) as store:
        with pytest.raises(problem, match=r"127\.0\.0\.1"):
            await store.get("a")


async def test_version_that_is_too_old_is_named() -> None:
    async with answering(b'{"etcdserver":"3.3.25"}', path="/version", kind="text/plain") as store:
        with pytest.raises(ConfigError, match=r"runs etcd 3\.3\.25"):
            await store.get("a")


async def test_answer_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcdlink, "CONTROL_ANSWER_BYTES_MAX", 256 * KIB)
    async with answering(*[b" " * 64 * KIB] * 64) as store:
        with pytest.raises(ConfigError):
            await store.list("")
        with pytest.raises(ConfigError, match="endless"):
            await take(store, "", 0, 1)


async def test_revision_that_is_cut_in_two_is_not_shown_in_part() -> None:
    """Whoever watches again from the last event seen must not miss the rest of its revision."""

    def event(key: bytes, revision: int) -> bytes:
        return b'{"kv":{"key":"%s","mod_revision":"%d"}}' % (b64encode(b"/c/" + key), revision)

    def line(*events: bytes, fragment: bytes) -> bytes:
        body = b'"events":[%s],"fragment":%s' % (b",".join(events), fragment)
        return b'{"result":{%s,%s}}\n' % (HEADER, body)

    whole = [line(event(b"a", 4), event(b"b", 5), fragment=b"true"), line(event(b"c", 5), fragment=b"false")]
    seen: list[str] = []
    for lines in (whole[:1], whole):
        async with answering(*lines) as store:
            seen.append("")
            with pytest.raises(Unavailable):
                async for found in store.watch("", 3):
                    seen[-1] += found.key
    assert seen == ["a", "abc"]
