"""S3 on this machine alone: unmodified programs reach each object's own node.

    ssastore gateway --listen localhost ssa://store.example

Where a program would ask a gateway somewhere in the network, which asks the node, this one stands beside the
program: it is a client like any other, with a client's access key, and from it to the owner is one hop.
The program signs with the same key, or with one that the store has for a user.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

from ssastore.client import AsyncClient
from ssastore.errors import ConfigError
from ssastore.observe import configure_logging
from ssastore.s3.server import S3Server
from ssastore.s3.serving import Serving
from ssastore.system import SystemClock, SystemRandomness, serve_for_long

log = logging.getLogger(__name__)


async def serve(client: AsyncClient, listener: socket.socket, region: str) -> int:
    """Run until SIGTERM or SIGINT; the exit code. The client is closed by who made it.

    Raises:
        ConfigError: the client has no access key of its own.
    """
    identity = client.pool.identity
    if identity.role != "client" or not identity.key_id:
        raise ConfigError(
            "S3 programs sign with the client's access key: set SSASTORE_ACCESS_KEY and its secret"
        )
    configure_logging("gateway")
    serve_for_long()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    serving = Serving(
        S3Server(
            client.objects,
            region=region,
            access_keys={identity.key_id: identity.secret},
            clock=SystemClock(),
            randomness=SystemRandomness(),
        )
    )
    await serving.begin(listener)
    log.info("gateway.ready", extra={"listens": listener.getsockname()[:2]})
    await stopped.wait()
    await serving.close()
    log.info("gateway.stopped")
    return 0
