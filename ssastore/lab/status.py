"""Ask a lab how it is: its gateway's admin interface, by plain HTTP from the standard library.

These commands run before anything is proved to work, and often: no client, no
aiohttp, one short request.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from typing import Any

from ssastore.errors import Unavailable

_POLL_S = 0.05


def fetch(admin_port: int, path: str, timeout_s: float = 5.0) -> tuple[int, Any]:
    """(HTTP status, decoded JSON) of ``path``. Raises Unavailable when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"127.0.0.1:{admin_port} does not answer: {error}") from None
    finally:
        connection.close()


async def wait_until_ready(admin_port: int, wait_s: float) -> Any:
    """Until every worker of every node answers; the last report.

    Raises:
        Unavailable: not within ``wait_s`` seconds; says who is missing.
    """
    deadline = time.monotonic() + wait_s
    reason = "nothing was asked yet"
    while True:
        try:
            status, report = await asyncio.to_thread(fetch, admin_port, "/readyz")
            if status == 200:
                return report
            reason = report.get("reason", "not ready")
        except Unavailable as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise Unavailable(f"not ready after {wait_s:g} s: {reason}")
        await asyncio.sleep(_POLL_S)
