"""Access keys that are made while the cluster runs: records of the system bucket. Coroutines on Registers.

    key/ID       user, secret and age of a key, as JSON
    user/NAME    nothing: that a key was made for the user, so that a grant to a stranger is found out

A key belongs to a user, which is a name and no more: a bucket has one as its owner, policies and ACLs name
it.  Keys of the secrets file are those of ROOT, who may do everything.

The secret is stored as it is, for every signature is checked with it: who reads the disk of a node that holds
the record reads the key.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b32encode, b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress

from blake3 import blake3

from ssastore.core.buckets import SYSTEM
from ssastore.core.listing import Page, Row, merge_shards
from ssastore.core.metadata import Metadata
from ssastore.core.readahead import read_rows
from ssastore.core.registers import IF_ABSENT, Registers, When
from ssastore.env import Clock, Randomness
from ssastore.errors import (
    Conflict,
    CorruptObject,
    ObjectNotFound,
    PreconditionFailed,
    RequestError,
    SsaStoreError,
)
from ssastore.limits import ACCESS_KEYS_KNOWN_MAX, CONFIG_AGE_MS, LIST_KEYS_MAX
from ssastore.messages import Condition, Kind

ROOT = "root"
ANYBODY = ""
"The user of a request without credentials."

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,127}")
_SECRET_CHARACTERS = range(8, 129)
_CHANGE_TRIES = 10
_READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key of a user. ``secret`` never leaves the cluster but to who makes it."""

    key_id: str
    user: str
    secret: str
    created_ms: int
    is_revoked: bool = False

    def __repr__(self) -> str:
        return f"AccessKey({self.key_id!r} of {self.user!r})"


_Known = tuple[AccessKey | None, int]
"What was read of a key, None if it opens nothing, and when."


def check_user(name: str) -> None:
    """Raise RequestError unless ``name`` can be a user's."""
    if name == ROOT:
        raise RequestError("root's keys are those of the secrets file")
    if not _USER.fullmatch(name):
        raise RequestError(f"{name[:80]!r} is no user name: 1 to 64 letters, digits and ._@+-")


def _record_name(key_id: str) -> bytes:
    return b"key/" + key_id.encode()


def _user_record_name(user: str) -> bytes:
    return b"user/" + user.encode()


def _encode(key: AccessKey) -> bytes:
    fields = {"user": key.user, "secret": key.secret, "created_ms": key.created_ms, "revoked": key.is_revoked}
    return json.dumps(fields).encode()


def _decode(key_id: str, data: bytes) -> AccessKey:
    try:
        fields = json.loads(data)
        created_ms, is_revoked = int(fields["created_ms"]), bool(fields["revoked"])
        return AccessKey(key_id, str(fields["user"]), str(fields["secret"]), created_ms, is_revoked)
    except (ValueError, KeyError, TypeError):
        # Not "from": the cause would quote the secret.
        raise CorruptObject(f"the record of access key {key_id!r} is not one") from None


class Users:
    """The keys of one cluster, as one client knows them: at most CONFIG_AGE_MS late."""

    def __init__(self, registers: Registers, clock: Clock, randomness: Randomness) -> None:
        self._registers = registers
        self._clock = clock
        self._randomness = randomness
        self._good: OrderedDict[str, _Known] = OrderedDict()
        self._bad: OrderedDict[str, _Known] = OrderedDict()
        "Apart: made-up keys must not have good ones forgotten, whose requests would then cost a read each."
        self._names: OrderedDict[str, None] = OrderedDict()
        "Users that were seen, the latest last; none is ever gone."

    async def create(self, user: str, *, key_id: str = "", secret: str = "") -> AccessKey:
        """A new key of a user; identifier and secret are drawn unless they are given.

        Raises:
            RequestError: a name, identifier or secret that cannot be one.
            Conflict: there is such a key.
        """
        check_user(user)
        key_id = key_id or "SSA" + b32encode(self._randomness.bytes(10)).decode()
        secret = secret or b64encode(self._randomness.bytes(30), altchars=b"-_").decode()
        if not _KEY_ID.fullmatch(key_id):
            raise RequestError("an access key id has 3 to 128 letters, digits and ._-")
        if len(secret) not in _SECRET_CHARACTERS or not secret.isascii() or not secret.isprintable():
            raise RequestError("a secret has 8 to 128 printable characters of ASCII")
        key = AccessKey(key_id, user, secret, self._clock.now_ms())
        # First: whoever has a key can be named.
        with suppress(PreconditionFailed):
            await self._put(_user_record_name(user), b"", IF_ABSENT)
        try:
            await self._write(key, IF_ABSENT)
        except PreconditionFailed:
            raise Conflict(f"there is an access key {key_id!r}") from None
        return key

    async def revoke(self, key_id: str) -> AccessKey:
        """Let a key open nothing any more; every gateway knows within CONFIG_AGE_MS.

        It stays listed, so that its identifier is not given to somebody else. Raises ObjectNotFound.
        """
        for _ in range(_CHANGE_TRIES):
            key, etag = await self._read(key_id)
            revoked = replace(key, secret="", is_revoked=True)
            try:
                await self._write(revoked, When(Condition.IF_ETAG, etag))
            except PreconditionFailed:
                continue
            return revoked
        raise Conflict(f"access key {key_id!r} is being changed by others")

    async def all(self) -> AsyncIterator[AccessKey]:
        """All keys in order of their identifiers, revoked ones as well."""
        prefix = _record_name("")

        async def fetch(shard: int, after: bytes, limit: int) -> Page:
            return await self._registers.shards.page(
                SYSTEM, Kind.OBJECT, shard, prefix=prefix, after=after, limit=limit
            )

        rows = merge_shards(fetch, SYSTEM.shards, b"", limit=LIST_KEYS_MAX, gather=asyncio.gather)
        async for key in read_rows(rows, self._of_row):
            yield key

    async def _of_row(self, row: Row) -> AccessKey:
        return (await self._read(row[0][len(_record_name("")) :].decode()))[0]

    async def unknown(self, names: set[str]) -> set[str]:
        """Those of ``names`` that no key was ever made for: a read each, however many keys there are."""
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def is_unknown(name: str) -> bool:
            async with gate:
                return not await self._is_known(name)

        asked = sorted(names)
        found = await asyncio.gather(*[is_unknown(name) for name in asked])
        return set(compress(asked, found))

    async def _is_known(self, name: str) -> bool:
        if name in self._names:
            self._names.move_to_end(name)
            return True
        if not _USER.fullmatch(name):
            return False
        try:
            await self._registers.get(SYSTEM, Kind.OBJECT, _user_record_name(name), head_only=True)
        except ObjectNotFound:
            return False
        self._names[name] = None
        if len(self._names) > ACCESS_KEYS_KNOWN_MAX:
            self._names.popitem(last=False)
        return True

    async def find(self, key_id: str) -> AccessKey | None:
        """A key that is good, as it was at most CONFIG_AGE_MS ago.

        While its record cannot be read, what was read last holds. Raises SsaStoreError: nothing was read.
        """
        if not _KEY_ID.fullmatch(key_id):
            return None
        known = self._good.get(key_id) or self._bad.get(key_id)
        now_ms = self._clock.now_ms()
        if known is not None and 0 <= now_ms - known[1] < CONFIG_AGE_MS:
            return known[0]
        try:
            key: AccessKey | None = (await self._read(key_id))[0]
        except ObjectNotFound:
            key = None
        except SsaStoreError:
            if known is None:
                raise
            return known[0]
        found = None if key is None or key.is_revoked else key
        self._forget(key_id)
        kept = self._bad if found is None else self._good
        kept[key_id] = found, now_ms
        if len(kept) > ACCESS_KEYS_KNOWN_MAX:
            kept.popitem(last=False)
        return found

    def _forget(self, key_id: str) -> None:
        self._good.pop(key_id, None)
        self._bad.pop(key_id, None)

    async def _read(self, key_id: str) -> tuple[AccessKey, str]:
        try:
            found = await self._registers.get(SYSTEM, Kind.OBJECT, _record_name(key_id))
        except ObjectNotFound:
            raise ObjectNotFound(f"no access key {key_id!r}") from None
        return _decode(key_id, bytes(found.data)), found.metadata.etag

    async def _write(self, key: AccessKey, condition: When) -> None:
        self._forget(key.key_id)
        await self._put(_record_name(key.key_id), _encode(key), condition)

    async def _put(self, name: bytes, data: bytes, condition: When) -> None:
        metadata = Metadata(blake3(data).hexdigest(length=16), len(data))
        await self._registers.put(SYSTEM, Kind.OBJECT, name, metadata, data, condition=condition)
