"""Ask a lab how it is: its gateway's admin interface, by plain HTTP from the standard library.

These commands run before anything is proved to work, and often: no client, no
aiohttp, one short request.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from typing import Any

from ssastore.errors import Unavailable

_POLL_S = 0.05
TIMEOUT_S = 5.0
"Of one request: workers are asked for less (``probing.ASK_MS``), so the gateway itself is late then."


class AdminLink:
    """HTTP to a gateway's admin interface on 127.0.0.1, one request after the other."""

    def __init__(self, port: int, sock: socket.socket | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """``sock`` is an unconnected socket of another network namespace, to connect from there."""
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self._sock = sock
        if sock is not None:
            sock.settimeout(timeout_s)

    def get(self, path: str, *, method: str = "GET", token: str = "") -> tuple[int, Any]:
        """(HTTP status, decoded JSON). Raises Unavailable when nobody answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            if self._sock is not None and self._connection.sock is None:
                self._sock.connect(("127.0.0.1", self._port))
                self._connection.sock = self._sock
            self._connection.request(method, path, headers=headers)
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise Unavailable(f"127.0.0.1:{self._port} does not answer: {error}") from None

    def close(self) -> None:
        """Close the connection. A ``get`` on another thread ends when its peer does, or when it times out."""
        self._connection.close()


def fetch(
    admin_port: int, path: str, *, method: str = "GET", timeout_s: float = TIMEOUT_S, token: str = ""
) -> tuple[int, Any]:
    """One request; ``token``: the admin token, for what changes something. Unavailable: nobody answers."""
    link = AdminLink(admin_port, timeout_s=timeout_s)
    try:
        return link.get(path, method=method, token=token)
    finally:
        link.close()


HEALTHY = "healthy"
NOT_GOOD = "copies not good"


def workers_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """All workers in a status report that own anything."""
    return [worker for node in report["nodes"] for worker in node["workers"] if not worker.get("idle")]


def health_of(report: dict[str, Any]) -> str:
    """The state of all copies: "healthy" only when every worker has said so; else the worst that one says."""
    workers = workers_of(report)
    scrubs = [worker["scrub"] for worker in workers if "scrub" in worker]
    # Each counts its own bad copies. What it sees of others is theirs to count, unless they do not answer.
    here = sum(scrub["left"]["here"] for scrub in scrubs)
    elsewhere = max((scrub["left"]["elsewhere"] for scrub in scrubs), default=0)
    if here or elsewhere:
        return f"{here or elsewhere} {NOT_GOOD}"
    if len(scrubs) < len(workers):
        return "not all workers answer"
    states = [scrub["health"] for scrub in scrubs if scrub["health"] != HEALTHY]
    return max(states, key=states.count) if states else HEALTHY


async def wait_until_ready(link: AdminLink, wait_s: float) -> Any:
    """Until every worker of every node answers; the last report.

    Raises:
        Unavailable: not within ``wait_s`` seconds; says who is missing.
    """
    deadline = time.monotonic() + wait_s
    reason = "nothing was asked yet"
    while True:
        try:
            status, report = await asyncio.to_thread(link.get, "/readyz")
            if status == 200:
                return report
            reason = report.get("reason", "not ready")
        except Unavailable as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise Unavailable(f"not ready after {wait_s:g} s: {reason}")
        await asyncio.sleep(_POLL_S)
