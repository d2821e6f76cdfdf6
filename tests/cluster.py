"""A small cluster inside the test's own process: real frames over the loopback, memory or LMDB below.

Every node is a port of ``::1``; the client's links map an address to the owner's port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from typing import Any, TypeVar

import msgpack

from ssastore.client import AsyncClient
from ssastore.core.acceptor import Acceptor, encode_coverage
from ssastore.core.bill import begin_counting
from ssastore.core.coordinator import MATE_BUDGET_MS, Coordinator
from ssastore.core.proposer import Proposer
from ssastore.core.register import Ballots
from ssastore.core.registers import Registers
from ssastore.core.settle import Settler
from ssastore.env import Links, Store
from ssastore.keyspace import service_network
from ssastore.rules.record import NATIVE_PORT
from ssastore.store.memory import MemoryStore
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.connection import Identity
from ssastore.transport.credentials import Credentials
from ssastore.transport.pool import Pool
from ssastore.transport.session import Service
from ssastore.transport.tcp import TcpLinks

P = TypeVar("P", bound=asyncio.BaseProtocol)

SERVICE = "fd5a:1:2:3::/64"
KEY, SECRET = "TESTKEY", "test-secret"
CREDENTIALS = Credentials(b"c" * 32, {KEY: SECRET.encode()})


class SmallNode:
    """One worker on a port of ``::1``."""

    def __init__(self, slices: set[int], store: Store, *, replicas: int = 1, env_id: int = 1) -> None:
        self.slices = slices
        self.store = store
        self.replicas = replicas
        self.ballots = Ballots(env_id, 1)
        acceptor = Acceptor(replicas=replicas, worker=0, workers=1, ballots=self.ballots)
        acceptor.activate(self.slices)
        self.service: Service = Service(
            store=store,
            acceptor=acceptor,
            credentials=CREDENTIALS,
            cluster_id="ab" * 16,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            describe=lambda: msgpack.packb(
                {"node": f"small{env_id}", "worker": 0, "told": list(self.service.told.parts)}
            ),
        )
        self.service.coverage = encode_coverage(acceptor.owned, 1)
        self.mates: Pool | None = None
        self.port = 0

    def join(self, links: Links) -> None:
        """Let the node propose: its mates can be reached from now on."""
        identity = Identity("node", f"node {self.port}", CREDENTIALS.cluster_secret, self.replicas)
        self.mates = Pool(
            service_network(SERVICE),
            NATIVE_PORT,
            identity,
            links=links,
            randomness=SystemRandomness(),
            deadline_ms=MATE_BUDGET_MS,
        )
        proposer = Proposer(self.ballots, SystemClock(), SystemRandomness())
        self.service.coordinator = Coordinator(
            self.service.acceptor, proposer, self.store, self.mates, SystemClock()
        )
        self.service.counting = begin_counting(
            self.service.coordinator,
            Registers(self.mates, SystemRandomness()),
            Settler(proposer, self.ballots, SystemClock()),
            self.ballots,
            SystemClock(),
            SystemRandomness(),
        )

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self.service.session, "::1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        if self.service.counting is not None:
            self.service.counting.close()
        if self.mates is not None:
            await self.mates.close()
        for session in list(self.service.sessions):
            session.abort()
        await asyncio.sleep(0)


class PortLinks:
    """As ``LoopbackLinks``, of whole /80s by their number.

    Every client and every node of every test gets its own, with 4,096 slices or more: as objects of the
    class they took a tenth of the time of all tests on a cluster.
    """

    def __init__(self, ports: dict[int, int]) -> None:
        self._ports = ports
        self._tcp = TcpLinks()

    async def dial(self, address: IPv6Address, port: int, protocol: Callable[[], P]) -> P:
        """See ``env.Links.dial``; ``port`` is replaced by the owner's."""
        local_port = self._ports.get((int(address) & (1 << 64) - 1) >> 48)
        if local_port is None:
            raise OSError(f"no owner of {address} in the cluster of the test")
        return await self._tcp.dial(IPv6Address("::1"), local_port, protocol)


class SmallCluster:
    """Nodes and clients."""

    def __init__(self, nodes: list[SmallNode]) -> None:
        self.nodes = nodes
        self._clients: list[AsyncClient] = []

    def links(self) -> PortLinks:
        """Who owns what at this moment: a later owner is not known, as to a router that has not heard."""
        return PortLinks({number: node.port for node in self.nodes for number in node.slices})

    def client(self, **options: Any) -> AsyncClient:
        options.setdefault("links", self.links())
        options.setdefault("deadline_ms", 2000)
        client = AsyncClient(SERVICE, access_key=KEY, secret_key=SECRET, **options)
        self._clients.append(client)
        return client

    def node_of(self, iid: int) -> SmallNode:
        return next(node for node in self.nodes if iid >> 48 in node.slices)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        for node in self.nodes:
            await node.stop()
            await node.store.close()


@asynccontextmanager
async def small_cluster(
    count: int = 4, make_store: Callable[[int], Store] | None = None, *, replicas: int = 1
) -> Any:
    """``count`` nodes that share every plane evenly; a group's planes are on different nodes."""
    step = 4096 // count
    nodes = []
    for index in range(count):
        store = make_store(index) if make_store else MemoryStore()
        slices = {
            plane << 12 | group
            for plane in range(replicas)
            for group in range((index + plane) % count * step, ((index + plane) % count + 1) * step)
        }
        nodes.append(SmallNode(slices, store, replicas=replicas, env_id=index + 1))
        await nodes[-1].start()
    cluster = SmallCluster(nodes)
    for node in nodes:
        node.join(cluster.links())
    try:
        yield cluster
    finally:
        await cluster.close()
