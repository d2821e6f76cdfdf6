"""Three environments without a network: acceptor, custody and recovery of each on a memory store.

Four groups of three planes; plane p of every group is node p's.  Messages go through the
codec; a node that is ``down`` does not answer, and ``hook`` sees every message first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ssastore.control.memory import MemoryControlStore
from ssastore.core.acceptor import WRITES, Acceptor
from ssastore.core.boot import Environment
from ssastore.core.caller import STATUS_ERRORS
from ssastore.core.custody import CUSTODIAL, Custody
from ssastore.core.groups import GroupRecord, PlaneOwner, group_key
from ssastore.core.place import Place, expected_position
from ssastore.core.recovery import Recovery
from ssastore.core.register import LIVE, NO_BALLOT, Ballots, Value, make_ballot
from ssastore.core.replacer import Replacer
from ssastore.core.replies import Refusal
from ssastore.core.standing import State
from ssastore.env import Write
from ssastore.errors import Unavailable
from ssastore.keyspace import GROUP_BITS, GROUPS, group_of, iid_of, plane_of
from ssastore.limits import MOVE_BYTES_PER_S_MAX
from ssastore.messages import Accept, Kind, Prepare, Status, decode_request
from ssastore.store.memory import MemoryStore
from ssastore.wire import Body
from tests.direct import through_wire

NODES = ("a", "b", "c")
PLACE = Place(7, 0)
NOW_MS = 1_700_000_000_000


KEYS = {group_of(expected_position(7, 0, b"%d" % n)): b"%d" % n for n in range(4)}
GROUPS_USED = sorted(KEYS)


class Node:
    """One node with one worker."""

    def __init__(
        self, world: World, name: str, env_id: int, store: MemoryStore | None = None, plane: int | None = None
    ) -> None:
        """``plane``: of a node that owns nothing at the beginning, the one that it is asked about."""
        self.world = world
        self.name = name
        self.plane = NODES.index(name) if plane is None else plane
        self.store = store or MemoryStore()
        self.environment = Environment(env_id, 1, self.plane + 1)
        self.acceptor = Acceptor(replicas=3, worker=0, workers=1, ballots=Ballots(env_id, 1))
        owned = {self.plane << GROUP_BITS | group for group in GROUPS_USED} if plane is None else set()
        self.acceptor.served.own(owned)
        self.forgotten = 0
        self.control = world.control.another_client()
        self.custody = Custody(
            node=name,
            environment=self.environment,
            acceptor=self.acceptor,
            store=self.store,
            forget=self._forget,
        )
        self.recovery = Recovery(
            custody=self.custody,
            store=self.store,
            control=self.control,
            mates=world,
            workers=dict.fromkeys(NODES, 1),
            cover=lambda txn, ballot: self.acceptor.ceiling.cover(txn, ballot, NOW_MS),
            bytes_per_s_max=MOVE_BYTES_PER_S_MAX,
        )
        self.replacer = Replacer(custody=self.custody, control=self.control, worker=0)
        self.following: asyncio.Task[None] | None = None
        self.is_down = False

    def _forget(self) -> None:
        self.forgotten += 1

    async def start(self) -> Node:
        await self.custody.load(self.control)
        self.following = asyncio.ensure_future(self.custody.follow(self.control))
        return self

    def stop(self) -> None:
        self.is_down = True
        if self.following is not None:
            self.following.cancel()

    def state(self, group: int) -> State:
        """Of the node's slice of a group."""
        return self.custody.states.get(self.plane << GROUP_BITS | group, State.ACTIVE)

    def records(self) -> dict[bytes, bytes]:
        """All that is stored for slices, by plain key."""
        with self.store.read() as txn:
            return {bytes([key[0] & 15]) + key[1:]: bytes(value) for key, value in txn.scan(b"", b"\xf0")}


class World:
    """The nodes and their control store. Implements ``core.caller.Caller``."""

    deadline_ms, replicas = 1000, 3

    def __init__(self) -> None:
        self.control = MemoryControlStore()
        self.nodes: dict[str, Node] = {}
        self.hook: Callable[[Any], Awaitable[None]] | None = None
        self.calls: list[str] = []

    async def form(self) -> World:
        planes = tuple(map(PlaneOwner, NODES))
        writes = [Write(group_key(group), GroupRecord(group, planes).encode()) for group in GROUPS_USED]
        await self.control.transact([], writes)
        for number, name in enumerate(NODES, 1):
            await self.run(Node(self, name, number))
        return self

    async def run(self, node: Node) -> Node:
        """Let a node be the one of its name."""
        self.nodes[node.name] = node
        return await node.start()

    async def replace(self, name: str, env_id: int, store: MemoryStore | None = None) -> Node:
        """The node's process ends, and another environment comes up under its name."""
        self.nodes[name].stop()
        return await self.run(Node(self, name, env_id, store))

    def close(self) -> None:
        for node in self.nodes.values():
            node.stop()

    async def record(self, group: int) -> GroupRecord:
        item = await self.control.get(group_key(group))
        assert item is not None
        return GroupRecord.decode(item.value)

    def begin(self, message: Any, iid: int, body: Any = b"") -> None:
        """No connection is open."""

    async def is_silent(self, iid: int, within_ms: int) -> bool:
        return False

    async def replica_count(self, position: int | None = None) -> int:
        return self.replicas

    async def call(
        self, message: Any, iid: int, body: Body = b"", *, within_ms: int | None = None
    ) -> tuple[list[Any], Body]:
        self.calls.append(type(message).__name__)
        if self.hook is not None:
            await self.hook(message)
        return await self.ask(self.nodes[NODES[plane_of(iid)]], message, body)

    async def ask(self, node: Node, message: Any, body: Body = b"") -> tuple[list[Any], Body]:
        """What exactly this node answers, whoever has its name."""
        header, sent = through_wire(message.header(7), body)
        request = decode_request(header)
        await asyncio.sleep(0)
        if node.is_down:
            raise Unavailable("down")
        try:
            if request.TYPE in CUSTODIAL:
                fields, data = await node.custody.handle(request)
            elif request.TYPE in WRITES:
                fields, data = await node.store.submit(
                    lambda txn: node.acceptor.write(request, txn, sent, NOW_MS)
                )
            else:
                with node.store.read() as txn:
                    fields, data = node.acceptor.read(request, txn)
        except Refusal as refusal:
            raise STATUS_ERRORS[refusal.status](f"{refusal.status.name} {refusal.text}") from None
        return through_wire([int(Status.OK), 7, *fields], data)

    # -- the register -------------------------------------------------------------------------------

    def _name(self, group: int, plane: int) -> tuple[int, int, int, int, bytes]:
        key = KEYS[group]
        return iid_of(expected_position(7, 0, key), plane), int(Kind.OBJECT), 7, 0, key

    async def prepare(self, node: Node, group: int, counter: int, cfg: int = 1) -> list[Any]:
        """PREP at one node: its reply's fields; raises what it refuses with."""
        message = Prepare(*self._name(group, node.plane), cfg, make_ballot(counter, 9, 1))
        header, _ = await self.ask(node, message)
        return header[2:]

    async def accept(self, node: Node, group: int, counter: int, data: bytes, cfg: int = 1) -> None:
        """ACC at one node."""
        value = b"".join(Value(LIVE, 1, b"", data).encode())
        ballot = make_ballot(counter, 9, 1)
        await self.ask(node, Accept(*self._name(group, node.plane), cfg, ballot, NO_BALLOT), value)


assert all(group < GROUPS for group in KEYS) and len(KEYS) == 4
