"""Which environment a store is, and when the state that it had must not be trusted any more."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.boot import (
    ENV_PREFIX,
    ENVIRONMENT_KEY,
    FIRST_PREFIX,
    Environment,
    make_durable,
    publish,
    start_environment,
)
from ssastore.core.marks import Watermark, mark_name
from ssastore.env import Write
from ssastore.errors import ConfigError
from ssastore.store.memory import MemoryStore
from tests.direct import SeededRandomness


class Machine:
    """One worker's store, its control store and its peers."""

    def __init__(self) -> None:
        self.control = MemoryControlStore()
        self.store = MemoryStore()
        self.randomness = SeededRandomness()
        self.peers = Watermark()
        self.asked: list[int] = []

    async def start(self, owner: str = "n2/0") -> Environment:
        async def ask(env_id: int) -> Watermark:
            self.asked.append(env_id)
            return self.peers

        return await start_environment(self.store, self.control, self.randomness, owner, ask)

    async def write(self) -> None:
        await self.store.submit(lambda txn: txn.put(b"k", b"v"))

    async def tell(self, found: Environment, sequence: int) -> bool:
        """A mark as the worker makes it: durable first."""
        mark = Watermark(found.boot, sequence)
        await make_durable(self.store, found.env_id, mark)
        return await publish(self.control, found.env_id, mark)

    def image(self) -> Any:
        return copy.deepcopy(self.store._records)

    def restore(self, image: Any) -> None:
        self.store = MemoryStore()
        self.store._records = image


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_first_start_claims_an_id_and_votes(machine: Machine) -> None:
    found = await machine.start()
    assert found.boot == 1 and found.first_env == found.env_id and not found.lost
    item = await machine.control.get(f"{ENV_PREFIX}{found.env_id:08x}")
    assert item is not None and item.value == b"n2/0"
    assert machine.asked == []


async def test_restart_keeps_the_id_and_raises_the_boot_number(machine: Machine) -> None:
    first = await machine.start()
    await machine.write()
    second = await machine.start()
    assert (second.env_id, second.boot, second.lost) == (first.env_id, 2, "")
    assert second.ballots().next(bytes(16), 5) > first.ballots().next(bytes(16), 5)


async def test_an_empty_store_is_not_the_first_environment_again(machine: Machine) -> None:
    first = await machine.start()
    machine.store = MemoryStore()
    second = await machine.start()
    assert second.env_id != first.env_id and second.first_env == first.env_id and second.boot == 1


async def test_copy_from_before_a_later_start_is_a_new_environment(machine: Machine) -> None:
    """The boot number alone tells, however little was written since."""
    first = await machine.start()
    image = machine.image()
    await machine.start()
    machine.restore(image)
    third = await machine.start()
    assert third.env_id != first.env_id and third.boot == 1 and "boot 2" in third.lost
    # From then on it is that one: its data is kept, its past is not looked at again.
    fourth = await machine.start()
    assert (fourth.env_id, fourth.boot, fourth.lost) == (third.env_id, 2, "")


async def test_disk_that_forgot_commits_is_a_new_environment(machine: Machine) -> None:
    first = await machine.start()
    image = machine.image()
    await machine.write()
    assert await machine.tell(first, 1)
    machine.restore(image)
    for _ in range(3):
        await machine.write()  # More commits than there were do not make up for those that are gone.
    assert "mark 1" in (await machine.start()).lost


async def test_mark_that_is_there_is_no_loss(machine: Machine) -> None:
    first = await machine.start()
    assert await machine.tell(first, 1) and await machine.tell(first, 2)
    second = await machine.start()
    assert (second.env_id, second.sequence, second.lost) == (first.env_id, 2, "")
    assert await machine.tell(second, 3)
    assert not (await machine.start()).lost


async def test_what_was_not_told_is_not_missed(machine: Machine) -> None:
    """The seconds since the last mark are not promised."""
    first = await machine.start()
    image = machine.image()
    await machine.write()
    machine.restore(image)
    second = await machine.start()
    assert second.env_id == first.env_id and not second.lost


async def test_peers_word_is_enough(machine: Machine) -> None:
    first = await machine.start()
    machine.peers = Watermark(1, 1)
    assert "peers" in (await machine.start()).lost
    assert machine.asked == [first.env_id]


@pytest.mark.parametrize("owner", ["n3/0", "n2/1"])
async def test_environment_of_another_worker_is_not_taken_over(machine: Machine, owner: str) -> None:
    first = await machine.start()
    second = await machine.start(owner)
    assert second.env_id != first.env_id and "belongs to n2/0" in second.lost


async def test_control_store_that_forgot_the_environment(machine: Machine) -> None:
    first = await machine.start()
    await machine.control.transact([], [Write(f"{ENV_PREFIX}{first.env_id:08x}", None)])
    assert "does not know" in (await machine.start()).lost


async def test_environment_from_before_there_were_marks_is_taken_as_it_is(machine: Machine) -> None:
    first = await machine.start()
    await machine.control.transact(
        [], [Write(mark_name(first.env_id), None), Write(f"{FIRST_PREFIX}n2/0", None)]
    )
    old = first.env_id.to_bytes(4, "big") + (1).to_bytes(4, "big")
    await machine.store.submit(lambda txn: txn.put(ENVIRONMENT_KEY, old))
    second = await machine.start()
    assert (second.env_id, second.first_env, second.lost) == (first.env_id, first.env_id, "")


async def test_of_two_copies_one_starts(machine: Machine) -> None:
    """Both have read the same mark: the compare-and-set of the boot number decides."""
    await machine.start()
    image = machine.image()
    other = Machine()
    other.control, other.randomness = machine.control, machine.randomness
    other.restore(image)

    async def other_first(env_id: int) -> Watermark:
        await other.start()
        return Watermark()

    with pytest.raises(ConfigError, match="another process"):
        await start_environment(machine.store, machine.control, machine.randomness, "n2/0", other_first)


async def test_mark_of_a_later_boot_is_not_overwritten(machine: Machine) -> None:
    first = await machine.start()
    second = await machine.start()
    assert not await machine.tell(first, 1)
    assert await machine.tell(second, 1)
