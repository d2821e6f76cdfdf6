"""``env.ControlStore`` in etcd 3.4 or later, through its JSON gateway: for clusters on several machines.

Our keys lie below a prefix of their own, in UTF-8, so several clusters can share one etcd; all
of them share its revisions.  Revisions and leases are etcd's own.  Leases have whole seconds, and etcd
ends them up to a second late; it may lengthen very short ones.

What is not repeatable is sent once: a ``transact`` that raises Unavailable may or may not have been
applied.  A watch whose connection is lost raises Unavailable after all events of the
last whole revision; watch again from there, any endpoint will do.  etcd keeps history until
somebody compacts it, which its operator must arrange; a watch from before raises WatchCompacted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from ssastore.control import etcdjson
from ssastore.control.address import EtcdAddress
from ssastore.control.etcdjson import TokenRefused
from ssastore.control.etcdlink import AnswerTooLong, EtcdLink
from ssastore.control.state import check_key, check_prefix, check_transaction
from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import ConfigError, Conflict, RequestError, Unavailable
from ssastore.limits import (
    CONTROL_LISTS_MAX,
    CONTROL_PAGE_ITEMS,
    CONTROL_QUIET_MS,
    CONTROL_TIMEOUT_MS,
)


class EtcdControlStore:
    """A client. Used from one event loop."""

    def __init__(
        self,
        address: EtcdAddress,
        *,
        user: str = "",
        password: str = "",
        timeout_ms: int = CONTROL_TIMEOUT_MS,
        quiet_ms: int = CONTROL_QUIET_MS,
    ) -> None:
        """Raises ConfigError: a file for TLS cannot be used. Nothing is connected before the first call."""
        self._prefix = address.prefix.encode()
        self._link = EtcdLink(address, user, password, timeout_ms=timeout_ms, quiet_ms=quiet_ms)

    async def get(self, key: str) -> Item | None:
        check_key(key)
        answer = await self._link.ask(etcdjson.RANGE, etcdjson.range_request(self._prefix + key.encode()))
        items = etcdjson.items_of(answer, self._prefix)
        return items[0] if items else None

    async def list(self, prefix: str) -> tuple[Sequence[Item], int]:
        check_prefix(prefix)
        for _ in range(CONTROL_LISTS_MAX):
            try:
                return await self._list(self._prefix + prefix.encode())
            except WatchCompacted as error:
                compacted = error
        raise Unavailable("etcd is compacted faster than it can be listed") from compacted

    async def transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> int | None:
        compares, writes = tuple(compares), tuple(writes)
        check_transaction(compares, writes)
        request = etcdjson.txn_request(self._prefix, compares, writes)
        answer = await self._link.ask(etcdjson.TXN, request, is_repeatable=False)
        return etcdjson.header_of(answer)[1] if answer.get("succeeded") is True else None

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Event, None]:
        check_prefix(prefix)
        wanted = self._prefix + prefix.encode()
        request = etcdjson.watch_request(wanted, after_revision + 1)
        async with self._link.stream(etcdjson.WATCH, request) as (endpoint, results):
            held: list[Event] = []
            while True:
                try:
                    result = await anext(results)
                    held.extend(etcdjson.events_of(result, self._prefix))
                except TokenRefused as error:
                    await self._link.renew_token(endpoint, error)
                    raise Unavailable(f"{error}; watch again") from None
                if result.get("created"):
                    await self._check_reached(result, after_revision)
                # Of a result that was cut the last revision may lack events.
                last = held[-1].revision if held and result.get("fragment") else None
                whole = [event for event in held if event.revision != last]
                held = [event for event in held if event.revision == last]
                for event in whole:
                    yield event

    async def grant(self, ttl_ms: int) -> int:
        if ttl_ms <= 0:
            raise RequestError(f"a lease's period must be positive, got {ttl_ms}")
        answer = await self._link.ask(etcdjson.GRANT, {"TTL": str(-(-ttl_ms // 1000))})
        return etcdjson.integer(answer, "ID")

    async def keep_alive(self, lease: int) -> bool:
        answer = await self._link.ask(etcdjson.KEEP_ALIVE, {"ID": str(lease)})
        return etcdjson.integer(answer, "TTL") > 0

    async def revoke(self, lease: int) -> None:
        try:
            await self._link.ask(etcdjson.REVOKE, {"ID": str(lease)})
        except Conflict:
            pass  # It has ended already.

    async def close(self) -> None:
        await self._link.close()

    async def _list(self, prefix: bytes) -> tuple[Sequence[Item], int]:
        """All pages at the revision of the first one. Raises WatchCompacted: that revision is gone."""
        items: list[Item] = []
        first, end, revision, limit = prefix, etcdjson.end_of(prefix), 0, CONTROL_PAGE_ITEMS
        while True:
            request = etcdjson.range_request(first, end, revision=revision, limit=limit)
            try:
                answer = await self._link.ask(etcdjson.RANGE, request)
            except AnswerTooLong as error:
                if limit == 1:
                    raise ConfigError(f"etcd holds what no cluster writes: {error}") from None
                limit = max(1, limit // 4)
                continue
            page = etcdjson.items_of(answer, self._prefix)
            items.extend(page)
            # A later page's header tells of a later moment than the one it was read at.
            revision = revision or etcdjson.header_of(answer)[1]
            if not page or answer.get("more") is not True:
                return items, revision
            first = self._prefix + page[-1].key.encode() + b"\x00"

    async def _check_reached(self, created: dict[str, Any], after_revision: int) -> None:
        """WatchCompacted when the store never got as far as that: it is another history.

        The member that we watch may be behind the others, so its own revision is not enough.
        """
        if etcdjson.header_of(created)[1] < after_revision:
            answer = await self._link.ask(etcdjson.RANGE, etcdjson.count_request(self._prefix))
            reached = etcdjson.header_of(answer)[1]
            if reached < after_revision:
                raise WatchCompacted(f"etcd is at revision {reached}, before {after_revision}")
