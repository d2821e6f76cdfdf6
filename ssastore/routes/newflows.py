"""New connections to some addresses go to another host, while those that are open stay here.

A rule of nftables says it, in a table of its own: a packet for such an address that no connection of this
host has is sent to the other host as it is, whatever routes say.  Both are on one link.

    nft list table ip6 ssastore_front
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from ipaddress import IPv6Network
from pathlib import Path
from subprocess import PIPE
from sys import byteorder

from ssastore.core.networks import Networks

log = logging.getLogger(__name__)

TABLE = "ssastore_front"

_CONNECTIONS = Path("/proc/self/net/tcp6")
_AT_A_TIME = 500
"Lines, between two looks of the event loop."
_OPEN = {1, 3, 4, 8, 9, 11}
"""States (linux/tcp_states.h) in which something may be lost: established, about to be (SYN_RECV), FIN_WAIT1,
CLOSE_WAIT, LAST_ACK, CLOSING."""

_NOTHING = f"table ip6 {TABLE} {{}}\ndelete table ip6 {TABLE}\n"
"Of a table that need not be there."


def rules(port: int, sent_on: Mapping[IPv6Network, str]) -> str:
    """What nft is told, all at once: nothing of what was there before, and these.

    ``socket wildcard 1`` is true of the listener, which has all addresses: what finds nothing else is new.
    The kernel asks that of full sockets alone; half-open ones are found by ``socket transparent``.
    """
    if not sent_on:
        return _NOTHING
    addresses = ", ".join(map(str, sent_on))
    targets = ", ".join(f"{network} : {address}" for network, address in sent_on.items())
    return f"""{_NOTHING}table ip6 {TABLE} {{
    chain new {{
        dup to ip6 daddr map {{ {targets} }} drop
    }}
    chain given {{
        type filter hook prerouting priority mangle; policy accept;
        ip6 daddr != {{ {addresses} }} accept
        tcp dport != {port} accept
        socket wildcard 1 goto new
        socket transparent 0 accept
        socket transparent 1 accept
        goto new
    }}
}}
"""


async def open_at(port: int, networks: Collection[IPv6Network]) -> set[IPv6Network]:
    """Those prefixes to which this host has connections at a port, also those that only the kernel knows.

    A process has closed one when it has given all to the kernel, which sends for as long as that takes.
    """
    found: set[IPv6Network] = set()
    if not networks:
        return found
    known, mark = Networks(networks), f":{port:04X}"
    # At once: what is read piece by piece while connections come and go may lack some.
    lines = (await asyncio.to_thread(_CONNECTIONS.read_text)).splitlines()
    for at, line in enumerate(lines[1:]):
        if at % _AT_A_TIME == _AT_A_TIME - 1:
            await asyncio.sleep(0)
        _, own, _, state, _ = line.split(None, 4)
        if own.endswith(mark) and int(state, 16) in _OPEN:
            network = known.around(_address(own[:32]))
            found |= {network} if network is not None else set()
    return found


def _address(text: str) -> int:
    """Of four words in the machine's own order, as the kernel writes them."""
    words = (int(text[at : at + 8], 16) for at in range(0, 32, 8))
    return int.from_bytes(b"".join(word.to_bytes(4, byteorder) for word in words))


class NewFlows:
    """Keeps the rule for one TCP port of this host; needs CAP_NET_ADMIN, nft and a kernel that knows both."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._told = ""

    async def send_on(self, sent_on: Mapping[IPv6Network, str]) -> bool:
        """Let new connections to these prefixes go to these hosts, and no others; False: it was refused.

        Where there is no nft that is said once, and what is new comes here until routers know better.
        """
        is_absent = False
        try:
            process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=PIPE, stderr=PIPE)
            _, said = await process.communicate(rules(self._port, sent_on).encode())
            failure = said.decode(errors="replace").strip().partition("\n")[0] if process.returncode else ""
        except OSError as error:
            failure, is_absent = f"nft: {error.strerror}", True
        if failure != self._told and failure:
            log.warning("flows.not_sent_on", extra={"reason": failure})
        self._told = failure
        return not failure or is_absent
