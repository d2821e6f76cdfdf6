"""The client of a filesystem: which service, made when and on which loop, closed by whom."""

from __future__ import annotations

import asyncio
import os  # noqa: TID251  # a shell: the environment, forks
import weakref
from contextlib import suppress
from ipaddress import IPv6Network
from typing import Any

from ssastore.client import AsyncClient
from ssastore.env import spawn
from ssastore.errors import ConfigError
from ssastore.fsspec.paths import endpoint

_CLOSE_TIMEOUT_S = 1


class Session:
    """One client, made on the event loop that first asks for it; closed when nobody holds this any more."""

    def __init__(
        self, service: str | None, *, port: int | None, replicas: int | None, **settings: Any
    ) -> None:
        """Nothing connects yet. ``settings`` are those of ``AsyncClient``; None stands for its own default.

        Raises:
            ConfigError: no service is named, or it is neither a /64 nor a name in DNS.
        """
        service = service or os.environ.get("SSASTORE_URL")
        if not service:
            raise ConfigError("name the service: in the URL, as storage option 'service', or in SSASTORE_URL")
        self._named, its_port, its_replicas = endpoint(str(service))
        self.port = port or its_port
        settings["replicas"] = replicas or its_replicas
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._client: AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def service(self) -> IPv6Network | str:
        """The service's name, or its prefix; the client follows when the cluster is renumbered."""
        if isinstance(self._named, str) or self._client is None:
            return self._named
        return self._client.service

    def client(self) -> AsyncClient:
        """The client; called on the event loop.

        Raises:
            RuntimeError: the client is at work on another loop, or was made before a fork.
        """
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this filesystem belongs to another event loop or process: make one here")
            service = self.service
            host = service if isinstance(service, str) else f"[{service.network_address}]"
            url = f"ssa://{host}:{self.port}"
            self._client, self._loop = AsyncClient.from_url(url, **self._settings), loop
            weakref.finalize(self, close_client, loop, self._client, os.getpid())
        return self._client


def close_client(loop: asyncio.AbstractEventLoop, client: AsyncClient, pid: int) -> None:
    """Called when the session is collected, on whatever thread, and when Python ends."""
    if os.getpid() != pid or not loop.is_running():
        return  # a forked child leaves its parent's connections alone
    try:
        is_own_loop = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_own_loop = False
    if is_own_loop:
        spawn("fsspec close", client.close())
        return
    # The wait lets sockets close before Python ends; it is bounded because a collection may run anywhere.
    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(_CLOSE_TIMEOUT_S)
