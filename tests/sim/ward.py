"""A cluster of four nodes without faults, of which tests scrub all at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ssastore.core.metadata import decode_metadata
from ssastore.core.records import BOOKKEEPING_FIRST, in_plane, split_place
from ssastore.core.register import peek_slot
from ssastore.core.scrub import Progress
from ssastore.core.survey import survey, walk
from ssastore.core.tools import UpkeepRules
from ssastore.messages import Kind
from ssastore.sim.cluster import StoreHost
from ssastore.sim.stage import Scenario, Stage, play_seed
from ssastore.sim.swarm import Swarm
from ssastore.sim.upkeep import UpkeepRegister
from ssastore.sim.workload import Shape

KEYS = 30
OLD_S = 12.0
"By then nothing is young."

Play = Callable[["Ward"], Coroutine[Any, Any, None]]


class Ward:
    """A cluster of four nodes with some objects on it, half of them in blobs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.nodes = stage.cluster.nodes

    async def write(self, count: int = KEYS) -> None:
        for number in range(count):
            await self.put(f"key{number}", f"value{number}")
        await self.stage.pause(OLD_S)

    async def put(self, key: str, value: str) -> None:
        register: Any = self.stage.registers[0]
        await self.stage.on(0, "put", register._write(key, value, None, None))

    async def scrub(self) -> list[Progress]:
        """All nodes at once; what each says at its end."""
        scrubs = [engine_of(node).upkeep.scrub for node in self.nodes]
        wanted = [scrub.request() for scrub in scrubs]
        while any(
            scrub.last is None or scrub.last.number < number
            for scrub, number in zip(scrubs, wanted, strict=True)
        ):
            await self.stage.pause(0.05)
        return [scrub.last for scrub in scrubs if scrub.last is not None]

    def health(self) -> list[str]:
        return [engine_of(node).upkeep.scrub.report()["health"] for node in self.nodes]

    def copies(self, kind: Kind) -> dict[bytes, list[tuple[StoreHost, bytes]]]:
        """Where the copies of each record or blob are, by its key in plane 0."""
        found: dict[bytes, list[tuple[StoreHost, bytes]]] = {}
        for node in self.nodes:
            for key in keys_of(node):
                if split_place(key)[1] == kind:
                    found.setdefault(in_plane(key, 0), []).append((node, key))
        return found

    def blobs_of(self, key: str) -> set[bytes]:
        """Digests that the record of an object names itself."""
        for copies in self.copies(Kind.OBJECT).values():
            node, stored_key = copies[0]
            if stored_key.endswith(key.encode()):
                with node.disk.read() as txn:
                    metadata = peek_slot(bytes(txn.get(stored_key) or b""))[3]
                return {segment.digest for segment in decode_metadata(metadata).segments}
        raise AssertionError(f"there is no {key}")

    def differing(self) -> set[bytes]:
        """Entries that not all planes hold alike."""
        planes: dict[int, set[Any]] = {plane: set() for plane in range(3)}
        for node in self.nodes:
            with node.disk.read() as txn:
                for slice16 in sorted({int.from_bytes(key[:2], "big") for key in keys_of(node)}):
                    planes[slice16 >> 12].update(survey(txn, slice16, b"", b"").rows)
        return {key for one in planes.values() for other in planes.values() for key, _ in one - other}


def engine_of(node: StoreHost) -> Any:
    assert node.engine is not None
    return node.engine


def keys_of(node: StoreHost) -> list[bytes]:
    with node.disk.read() as txn:
        return [key for key, _ in walk(txn, b"\0", BOOKKEEPING_FIRST)]


def play(work: Play, seed: int = 0) -> None:
    """Run a test in a world without faults."""

    async def within(stage: Stage) -> None:
        await stage.open()
        await work(Ward(stage))

    scenario = Scenario(
        "ward",
        "one scrub at a time",
        within,
        lambda seed: Swarm(),
        lambda seed: Shape(clients=1, operations=0),
        nodes=4,
        deadline_ms=30_000,
        rules=UpkeepRules(scrub_first_s=1e6),
        register=UpkeepRegister,
    )
    played = play_seed(scenario, seed)
    assert played.is_good, [*played.violations, *played.stuck, played.crash]
