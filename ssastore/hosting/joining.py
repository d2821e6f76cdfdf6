"""A further host gets to know its site, by a token of the first one."""

from __future__ import annotations

import asyncio
import hmac
import json
import ssl
from typing import Any

import aiohttp

from ssastore.authority import key_text, new_key, public_text, read_certificates
from ssastore.config import load_secrets, write_private
from ssastore.core.cluster import NodeRecord
from ssastore.errors import AccessDenied, ConfigError, Unavailable
from ssastore.hosting.files import make_directories, refuse_second, write_settings
from ssastore.hosting.plan import Places, decode_site
from ssastore.hosting.tokens import Token

_TIMEOUT_S = 10.0
_AGAIN_S = 0.2
_ANSWER_BYTES_MAX = 256 * 1024


async def join(token: Token, places: Places, *, wait_s: float = 0.0) -> NodeRecord:
    """Fetch what this host has to know, and write its files; which node it is.

    ``wait_s``: how long nobody need answer. Once somebody did, nothing is asked twice.

    Raises:
        ConfigError: this host is one of a site already, others can write its settings, or the answer is none.
        AccessDenied: who answers is not the one that the token is of, or the token is used or over.
        Unavailable: nobody answers.
    """
    refuse_second(places)
    make_directories(places)  # Before the token is used up.
    key = new_key()
    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)  # Of one question.
        async with aiohttp.ClientSession(timeout=timeout) as session:
            ca = await _authority_within(session, token, wait_s)
            answer = await _ask(session, token, ca, {"secret": token.secret, "public_key": public_text(key)})
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if isinstance(error, AccessDenied):
            raise
        # aiohttp's own text has our TLS settings in it, as an object's address.
        why = error.strerror if isinstance(error, aiohttp.ClientConnectorError) and error.strerror else error
        raise Unavailable(f"[{token.address}]:{token.port} does not answer: {why}") from None
    try:
        site = decode_site(answer["site"])
        node = NodeRecord.decode(answer["node"].encode())
        secrets, certificate = str(answer["secrets"]), str(answer["certificate"])
    except (KeyError, AttributeError, TypeError):
        raise ConfigError(f"[{token.address}]:{token.port} admits, and does not say what to") from None
    write_private(places.secrets, secrets)
    load_secrets(str(places.secrets))
    write_private(places.tls / "ca.pem", ca)
    write_private(places.tls / "host.key", key_text(key))
    write_private(places.tls / "host.pem", certificate)
    write_settings(site, node, places)
    return node


async def _authority_within(session: aiohttp.ClientSession, token: Token, wait_s: float) -> str:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            return await _authority(session, token)
        except aiohttp.ClientConnectorError:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(_AGAIN_S)


async def _authority(session: aiohttp.ClientSession, token: Token) -> str:
    """The authority's certificate, from whoever answers: it is the one that the token is of, or nobody's."""
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    async with session.get(f"{_url(token)}/ca", ssl=blind, allow_redirects=False) as response:
        text = await _read(response)
    found = read_certificates(text, "its answer")
    if len(found) != 1 or not hmac.compare_digest(found[0].fingerprint, token.fingerprint):
        raise AccessDenied(f"[{token.address}]:{token.port} is not the host that the token is of")
    return text.decode()


async def _ask(
    session: aiohttp.ClientSession, token: Token, ca: str, asked: dict[str, str]
) -> dict[str, Any]:
    context = ssl.create_default_context(cadata=ca)
    request = session.post(
        f"{_url(token)}/join", json=asked, ssl=context, server_hostname=token.name, allow_redirects=False
    )
    async with request as response:
        text = await _read(response)
    try:
        answer = json.loads(text)
        reason = answer.get("error", "")
    except (ValueError, AttributeError, RecursionError):
        raise ConfigError(
            f"[{token.address}]:{token.port} does not answer as a host of a site does"
        ) from None
    if response.status == 403:
        raise AccessDenied(str(reason))
    if response.status == 503:
        raise Unavailable(str(reason))
    if response.status != 200:
        raise ConfigError(str(reason))
    found: dict[str, Any] = answer
    return found


async def _read(response: aiohttp.ClientResponse) -> bytes:
    kept = bytearray()
    async for chunk in response.content.iter_any():
        kept += chunk
        if len(kept) > _ANSWER_BYTES_MAX:
            raise ConfigError("an answer that does not end")
    return bytes(kept)


def _url(token: Token) -> str:
    return f"https://[{token.address}]:{token.port}"
