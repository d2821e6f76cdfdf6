"""What a client knows of access keys and users, and what it reads to know it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssastore.core import users as module
from ssastore.core.objects import Objects
from ssastore.core.users import Users
from ssastore.errors import Unavailable
from ssastore.limits import CONFIG_AGE_MS
from ssastore.messages import Get
from tests.direct import DirectCaller, SeededRandomness

KNOWN_MAX = 4


def client(caller: DirectCaller, seed: int = 1) -> Users:
    randomness = SeededRandomness(seed)
    return Users(Objects(caller, caller.clock, randomness).registers, caller.clock, randomness)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCESS_KEYS_KNOWN_MAX", KNOWN_MAX)


@pytest.mark.usefixtures("few")
async def test_made_up_keys_do_not_have_good_ones_forgotten() -> None:
    caller = DirectCaller()
    users = client(caller)
    good = [await users.create("alice") for _ in range(KNOWN_MAX)]
    for key in good:
        assert await users.find(key.key_id) == key
    for number in range(3 * KNOWN_MAX):
        assert await users.find(f"SSAMADEUP{number}") is None
    caller.calls.clear()
    for key in good:
        assert await users.find(key.key_id) == key
    assert not caller.calls
    assert (len(users._good), len(users._bad)) == (KNOWN_MAX, KNOWN_MAX)


async def test_a_key_is_good_or_not_as_it_was_read_last() -> None:
    caller = DirectCaller()
    users, other = client(caller), client(caller, seed=2)
    assert await users.find("made-later") is None
    key = await other.create("alice", key_id="made-later")
    caller.clock.ms += CONFIG_AGE_MS
    assert await users.find("made-later") == key
    await other.revoke("made-later")
    assert await users.find("made-later") == key, "as it was a moment ago"
    caller.clock.ms += CONFIG_AGE_MS
    assert await users.find("made-later") is None
    assert (len(users._good), len(users._bad)) == (0, 1)


async def test_what_was_read_last_holds_while_nothing_can_be_read() -> None:
    caller = DirectCaller()
    users = client(caller)
    key = await users.create("alice")
    assert await users.find(key.key_id) == key and await users.find("nobodys") is None

    async def fail(message: Any) -> None:
        raise Unavailable("away")

    caller.hook = fail
    caller.clock.ms += CONFIG_AGE_MS
    assert await users.find(key.key_id) == key and await users.find("nobodys") is None
    with pytest.raises(Unavailable):
        await users.find("another")


# -- names ------------------------------------------------------------------------------------------


async def test_a_user_is_known_from_his_first_key_on() -> None:
    caller = DirectCaller()
    users = client(caller)
    assert await users.unknown({"alice"}) == {"alice"}
    key = await client(caller, seed=2).create("alice")
    assert await users.unknown({"alice", "bob"}) == {"bob"}
    await client(caller, seed=2).revoke(key.key_id)
    caller.calls.clear()
    assert await users.unknown({"alice"}) == set() and await users.unknown(set()) == set()
    assert not caller.calls, "who was a user is one"


async def test_however_many_ask_for_unknown_users_there_are_two_looks() -> None:
    """One is under way, and one more begins for all who asked after it had begun."""
    caller = DirectCaller()
    await client(caller, seed=2).create("alice")
    users, gate, is_first = client(caller), asyncio.Event(), True

    async def wait(message: Any) -> None:
        nonlocal is_first
        if isinstance(message, Get) and is_first:
            is_first = False
            await gate.wait()

    caller.hook = wait
    asking = [asyncio.create_task(users.unknown({"bob"}))]
    await asyncio.sleep(0)
    asking += [asyncio.create_task(users.unknown({f"nobody-{number}", "alice"})) for number in range(50)]
    await asyncio.sleep(0)
    await client(caller, seed=3).create("bob")
    late = asyncio.create_task(users.unknown({"bob"}))
    await asyncio.sleep(0)
    gate.set()
    assert [await one for one in asking[1:]] == [{f"nobody-{number}"} for number in range(50)]
    assert await late == set(), "a user who was made before the question is found"
    assert users._listings == 2


async def test_a_look_that_fails_tells_nobody_that_there_is_no_such_user() -> None:
    """Who waited for it looks again."""
    caller = DirectCaller()
    await client(caller, seed=2).create("alice")
    users, gate, failures = client(caller), asyncio.Event(), 2

    async def fail(message: Any) -> None:
        nonlocal failures
        await gate.wait()
        if isinstance(message, Get) and failures:
            failures -= 1
            raise Unavailable("away")

    caller.hook = fail
    asking = []
    for _ in range(4):
        asking.append(asyncio.create_task(users.unknown({"alice"})))
        await asyncio.sleep(0)
    gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in found[:2]] == [Unavailable, Unavailable]
    assert found[2:] == [set(), set()]
