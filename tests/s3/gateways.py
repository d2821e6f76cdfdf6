"""The S3 gateway in the test's own process: real HTTP on a loopback port, a small cluster behind it.

It runs on an event loop in a thread of its own, so that boto3 and plain sockets, which block, can be used.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

import boto3
from botocore.config import Config

from ssastore.client import AsyncClient
from ssastore.env import Store
from ssastore.s3.server import S3Server
from ssastore.system import SystemClock, SystemRandomness, loop_factory
from tests.cluster import SmallCluster, small_cluster

REGION = "eu-test-1"
ACCESS_KEY = "AKIDTEST"
SECRET_KEY = "wJalrXUtnFEMI+K7MDENG/bPxRfiCYTESTSECRET"
WRAPPING_KEY = bytes(range(100, 132))

T = TypeVar("T")


class SetClock:
    """The system's clock, moved by ``offset_ms``: for requests that are too late."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.offset_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.offset_ms


class Gateway:
    """A context manager; the attributes are valid inside. Calls into the loop go through ``run``."""

    cluster: SmallCluster
    client: AsyncClient
    server: S3Server
    port: int

    def __init__(
        self,
        *,
        nodes: int = 4,
        make_store: Callable[[int], Store] | None = None,
        deadline_ms: int = 5000,
        wrapping_keys: Sequence[tuple[str, bytes]] = (("first", WRAPPING_KEY),),
        domain: str = "",
        use_uvloop: bool = True,
    ) -> None:
        self._nodes = nodes
        self._make_store = make_store
        self._deadline_ms = deadline_ms
        self._wrapping_keys = wrapping_keys
        self._domain = domain
        self._loop_factory = loop_factory() if use_uvloop else None
        self.clock = SetClock()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="gateway")
        self._clients: list[Any] = []

    # -- the thread ---------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        async with small_cluster(self._nodes, self._make_store) as cluster:
            self.cluster = cluster
            self.client = cluster.client(deadline_ms=self._deadline_ms)
            self.server = self.make_server(self._wrapping_keys)
            self.http = http = self.server.http_server()
            listener = await self._loop.create_server(http, "127.0.0.1", 0)
            self.port = listener.sockets[0].getsockname()[1]
            self._started.set()
            await self._stopped.wait()
            listener.close()
            await http.shutdown(0.2)

    def make_server(self, wrapping_keys: Sequence[tuple[str, bytes]]) -> S3Server:
        return S3Server(
            self.client.objects,
            region=REGION,
            access_keys={ACCESS_KEY: SECRET_KEY.encode(), "AKIDOTHER": b"another secret"},
            clock=self.clock,
            randomness=SystemRandomness(),
            wrapping_keys=wrapping_keys,
            domain=self._domain,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the gateway does not stop"
        if self._failure is not None:
            raise self._failure

    # -- for tests ----------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def tasks(self) -> list[str]:
        """Names of the tasks that serve requests or move content right now."""

        async def names() -> list[str]:
            return [
                task.get_name()
                for task in asyncio.all_tasks()
                if "_handle_request" in repr(task.get_coro()) or task.get_name() in ("put blob", "get blob")
            ]

        return self.run(names())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def boto(
        self, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY, url: str = "", **options: Any
    ) -> Any:
        """A boto3 client; only ``retries`` differ from the defaults, so that a failure shows."""
        options.setdefault("region_name", REGION)
        config = Config(**{"retries": {"total_max_attempts": 1}, **options.pop("config", {})})
        client = boto3.client(
            "s3",
            endpoint_url=url or self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=config,
            **options,
        )
        self._clients.append(client)
        return client

    def answered(self) -> Counter[tuple[str, int]]:
        """Requests so far by operation and status."""
        return Counter(self.server.counts.answers)

    def crashes(self) -> int:
        """Requests so far that were answered 500."""
        return sum(count for (_, status), count in self.server.counts.answers.items() if status == 500)
