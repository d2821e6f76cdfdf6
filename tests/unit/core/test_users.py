"""What a client knows of access keys and users, and what it reads to know it."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.core import users as module
from ssastore.core.objects import Objects
from ssastore.core.users import Users
from ssastore.errors import Unavailable
from ssastore.limits import CONFIG_AGE_MS
from ssastore.messages import Put
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


@pytest.mark.parametrize("keys", [1, 40])
async def test_who_is_named_is_asked_for_and_nobody_else(keys: int) -> None:
    caller = DirectCaller()
    other = client(caller, seed=2)
    for number in range(keys):
        await other.create(f"user-{number}")
    users = client(caller)
    caller.calls.clear()
    assert await users.unknown({"user-0", "nobody"}) == {"nobody"}
    assert caller.calls == ["Get", "Get"]


async def test_what_cannot_be_a_user_is_not_asked_for() -> None:
    caller = DirectCaller()
    names = {"", "a" * 65, "no/name", "x" * 5000}
    assert await client(caller).unknown(names) == names
    assert not caller.calls


@pytest.mark.usefixtures("few")
async def test_so_many_users_are_remembered() -> None:
    caller = DirectCaller()
    users = client(caller)
    names = [f"user-{number}" for number in range(3 * KNOWN_MAX)]
    for name in names:
        await client(caller, seed=2).create(name, key_id=f"key-of-{name}")
    assert await users.unknown(set(names)) == set()
    assert len(users._names) == KNOWN_MAX
    assert await users.unknown(set(names)) == set()


async def test_who_has_a_key_can_be_named_wherever_its_making_breaks_off() -> None:
    caller = DirectCaller()
    users, writes = client(caller), 0

    async def fail(message: Any) -> None:
        nonlocal writes
        writes += isinstance(message, Put)
        if writes == 2:
            raise Unavailable("away")

    caller.hook = fail
    with pytest.raises(Unavailable):
        await users.create("alice", key_id="broken-off")
    caller.hook = None
    assert await users.unknown({"alice"}) == set() and await users.find("broken-off") is None
    await users.create("alice", key_id="broken-off")


async def test_a_look_that_fails_tells_nobody_that_there_is_no_such_user() -> None:
    """The next one looks again."""
    caller = DirectCaller()
    await client(caller, seed=2).create("alice")
    users = client(caller)

    async def fail(message: Any) -> None:
        raise Unavailable("away")

    caller.hook = fail
    with pytest.raises(Unavailable):
        await users.unknown({"alice", "bob"})
    caller.hook = None
    assert await users.unknown({"alice", "bob"}) == {"bob"}
