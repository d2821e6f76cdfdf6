"""The first host admits others: HTTPS, with the certificate of the service.

    GET  /ca     the authority's certificate, for whom its fingerprint is in the token; nothing else is public
    POST /join   {"secret", "public_key"}  ->  {"site", "node", "secrets", "certificate"}

A token is used up when the node is one of the cluster, before its answer is sent: an answer that is lost
takes another token.  The keys of hosts never travel; what is signed is the public key that the other host
sends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ssastore.authority import Authority, now_utc, public_key
from ssastore.config import NodeConfig, load, open_control
from ssastore.core.cluster import NodeRecord
from ssastore.errors import AccessDenied, ConfigError, SsaStoreError, TryLater
from ssastore.hosting.files import read_site, token_book
from ssastore.hosting.plan import Places, Site, names_of
from ssastore.hosting.tokens import TokenBook
from ssastore.rebalance import add_node

log = logging.getLogger(__name__)

_REQUEST_BYTES_MAX = 16 * 1024
_LOOK_EVERY_S = 1.0

Join = Callable[[NodeRecord], Awaitable[None]]


class Admission:
    """Answers what a further host asks."""

    def __init__(self, places: Places, join: Join) -> None:
        """``join`` lets a node into a cluster that exists, which it is not one of yet.

        Raises:
            ConfigError: this is no first host of a site.
        """
        self.site: Site = read_site(places)
        self._secrets_file = places.secrets
        self._authority = Authority.load(places.tls)
        self._book = TokenBook(token_book(places))
        self._join = join

    def application(self) -> web.Application:
        application = web.Application(client_max_size=_REQUEST_BYTES_MAX)
        application.router.add_get("/ca", self._ca)
        application.router.add_post("/join", self._admit)
        return application

    async def _ca(self, _: web.Request) -> web.Response:
        return web.Response(text=self._authority.text, content_type="application/x-pem-file")

    async def _admit(self, request: web.Request) -> web.Response:
        try:
            answer = await self._answer(json.loads(await request.text()))
        except AccessDenied as error:
            log.warning("host.refused", extra={"peer": request.remote, "reason": str(error)})
            return web.json_response({"error": str(error)}, status=403)
        except TryLater as error:
            return web.json_response({"error": str(error)}, status=503)
        except (SsaStoreError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error) if isinstance(error, SsaStoreError) else "not such a request"
            return web.json_response({"error": reason}, status=400)
        return web.json_response(answer)

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = public_key(str(asked["public_key"]))  # A mistake there does not use the token up.
        secret = str(asked["secret"])
        node = self._book.find(secret)
        if node not in self.site.nodes:
            await self._join(node)  # Before the token is used up: the control store may be away.
        self._book.use(secret)
        log.info("host.admitted", extra={"node": node.name, "address": node.address})
        return {
            "site": self.site.encode(),
            "node": node.encode().decode(),
            "secrets": self._secrets_file.read_text(),
            "certificate": self._authority.sign(key, names_of(self.site, node), now_utc()),
        }


def join_by(places: Places) -> Join:
    """Lets a node into the cluster whose control store this host's settings name."""

    async def join(node: NodeRecord) -> None:
        settings = load(str(places.node), NodeConfig)
        control = open_control(settings.control, settings.secrets_file)
        try:
            await add_node(control, node)
        finally:
            await control.close()

    return join


async def serve(places: Places, port: int) -> int:
    """Admit hosts until no token is left that could be used, or SIGTERM or SIGINT; the exit code.

    Raises:
        ConfigError: this is no first host, or the port is taken.
    """
    admission = Admission(places, join_by(places))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(places.tls / "host.pem", places.tls / "host.key")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(admission.application(), access_log=None)
    await runner.setup()
    try:
        address = admission.site.nodes[0].address
        try:
            await web.TCPSite(runner, address, port, ssl_context=context).start()
        except OSError as error:
            raise ConfigError(f"[{address}]:{port}: {error.strerror}") from None
        log.info("admission.ready", extra={"listens": f"[{address}]:{port}"})
        book = TokenBook(token_book(places))
        while not stopped.is_set() and book.open_until() > time.time():
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await stopped.wait()
            except TimeoutError:
                continue
    finally:
        await runner.cleanup()
    log.info("admission.ended")
    return 0
