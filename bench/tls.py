"""What TLS costs a client and a node: ``python -m bench.tls``.

One node on ::1 that holds everything in memory, plain and by TLS on a port each; CPU time of both processes
for a GET, many in flight, and for a new connection.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import tempfile
import time
from ipaddress import IPv6Address
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from ssastore.authority import Authority, key_text, new_key, now_utc
from ssastore.client import AsyncClient
from ssastore.config import write_private
from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.register import Ballots
from ssastore.keyspace import Slice
from ssastore.limits import KIB, MIB
from ssastore.store.memory import MemoryStore
from ssastore.system import SystemClock, SystemRandomness, run
from ssastore.transport.connection import Connection, Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.secure import SecureListener
from ssastore.transport.session import SPEAK_TLS, Service
from ssastore.transport.tcp import LoopbackLinks, TcpLinks
from ssastore.transport.tls import Tls, TlsFiles

_NAME, _SERVICE, _KEY, _SECRET = "store.example", "fd5a:1:2:3::/64", "BENCH", "secret"
_INFLIGHT = 16
_SIZES = ((4 * KIB, 20_000), (MIB, 1_000))
_DIALS = 300
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _make_files(directory: Path) -> TlsFiles:
    authority, key = Authority.make(directory, _NAME, now_utc()), new_key()
    cert, path = directory / "service.pem", directory / "service.key"
    write_private(cert, authority.sign(key.public_key(), [_NAME], now_utc()))
    write_private(path, key_text(key))
    return TlsFiles(str(directory / "ca.pem"), str(cert), str(path))


def _serve(files: TlsFiles, pipe: Pipe) -> None:
    async def main() -> None:
        acceptor = Acceptor(replicas=1, worker=0, workers=1, ballots=Ballots(1, 1))
        acceptor.activate(set(range(4096)))
        service = Service(
            store=MemoryStore(),
            acceptor=acceptor,
            credentials=Credentials(bytes(32), {_KEY: _SECRET.encode()}),
            cluster_id="ab" * 16,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            describe=bytes,
        )
        service.coverage = encode_coverage(acceptor.owned, 1)
        plain, secret = (socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in range(2))
        await asyncio.get_running_loop().create_server(service.session, sock=plain)
        listener = SecureListener(secret, Tls(files, _NAME), service.session, plainly=SPEAK_TLS)
        pipe.send([plain.getsockname()[1], secret.getsockname()[1]])
        await asyncio.to_thread(pipe.recv)
        listener.close()

    run(main())


def _cpu_of(pid: int) -> float:
    """Seconds, in steps of a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def _measure(tls: Tls | None, port: int, pid: int) -> list[tuple[str, float, float]]:
    """(what, CPU time of the client, and of the node) in microseconds."""
    rows = []
    links = LoopbackLinks({Slice(0, 0): port}, tls=tls)
    async with AsyncClient(_SERVICE, access_key=_KEY, secret_key=_SECRET, links=links) as client:
        bucket = await client.create_bucket(f"b{port}", shards=1)
        for size, count in _SIZES:
            # A key for each caller: they would share the reads of one.
            keys = [f"{size}/{number}" for number in range(_INFLIGHT)]
            for key in keys:
                await bucket.put(key, os.urandom(size))

            async def get(key: str, times: int) -> None:
                for _ in range(times):
                    await bucket.get(key)

            await asyncio.gather(*(get(key, 3) for key in keys))
            begun, theirs = time.process_time(), _cpu_of(pid)
            await asyncio.gather(*(get(key, count // _INFLIGHT) for key in keys))
            mine, theirs = time.process_time() - begun, _cpu_of(pid) - theirs
            rows.append((f"GET of {size // KIB} KiB", mine / count * 1e6, theirs / count * 1e6))
    begun, theirs = time.process_time(), _cpu_of(pid)
    for _ in range(_DIALS):
        identity = Identity("client", _KEY, _SECRET.encode())
        made: Any = await TcpLinks(tls).dial(
            IPv6Address("::1"),
            port,
            lambda who=identity: Connection(who, SystemRandomness(), lambda _: None),
        )
        await made.greeted()
        made.abort()
    mine, theirs = time.process_time() - begun, _cpu_of(pid) - theirs
    return [*rows, ("connection", mine / _DIALS * 1e6, theirs / _DIALS * 1e6)]


def main() -> None:
    """See the module's docstring."""
    with tempfile.TemporaryDirectory() as directory:
        files = _make_files(Path(directory))
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(files, theirs))
        process.start()
        plain_port, tls_port = ours.recv()
        assert process.pid is not None
        plain = run(_measure(None, plain_port, process.pid))
        secret = run(_measure(Tls(TlsFiles(files.ca), _NAME), tls_port, process.pid))
        ours.send(None)
        process.join()
    print(f"{'CPU, us':16}{'client':>10}{'node':>8}{'by TLS: client':>16}{'node':>8}{'together':>11}")
    for (what, client, node), (_, tls_client, tls_node) in zip(plain, secret, strict=True):
        more = (tls_client + tls_node) / (client + node)
        print(f"{what:16}{client:10.0f}{node:8.0f}{tls_client:16.0f}{tls_node:8.0f}{more:10.1f}x")


if __name__ == "__main__":
    main()
