"""Three hosts in a row, as network namespaces: clients, the filter as a router, the service.  Needs root.

    outside (c0) ---- (o0) filter (i0) ---- (s0) inside

Answers to any address go back to the outside, so that sources can be forged there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network

SERVICE = IPv6Network("2001:db8:5a:1::/64")
CLIENT = "2001:db8:77:8::1"
CLIENT_PREFIX = 0x20010DB800770008
OUTSIDE, INSIDE = "o0", "i0"
"The interfaces of the filter."


@dataclass(frozen=True, slots=True)
class Row:
    """Names of the namespaces."""

    outside: str
    filter: str
    inside: str

    def make(self) -> None:
        """Make the hosts, their links and routes."""
        for name in (self.outside, self.filter, self.inside):
            _ip("netns", "add", name)
            # Else links answer nobody while they look for others with their address.
            _set(name, "default/accept_dad", 0)
            _ip("-n", name, "link", "set", "lo", "up")
        self.link_outside()
        _link(self.filter, INSIDE, self.inside, "s0")
        for name, link, address in (
            (self.filter, INSIDE, "2001:db8:78::1/64"),
            (self.inside, "s0", "2001:db8:78::2/64"),
        ):
            _address(name, link, address)
        _set(self.filter, "all/forwarding", 1)
        _ip("-n", self.filter, "route", "add", str(SERVICE), "via", "2001:db8:78::2")
        _ip("-n", self.inside, "route", "add", "default", "via", "2001:db8:78::1")
        _ip("-n", self.inside, "route", "add", "local", str(SERVICE), "dev", "lo")

    def link_outside(self) -> None:
        """Make the outer link, also anew."""
        _link(self.outside, "c0", self.filter, OUTSIDE)
        _address(self.outside, "c0", f"{CLIENT}/64")
        _address(self.filter, OUTSIDE, "2001:db8:77:8::2/64")
        _ip("-n", self.outside, "route", "add", str(SERVICE), "via", "2001:db8:77:8::2")
        _ip("-n", self.filter, "route", "add", "default", "via", CLIENT)

    def unlink_outside(self) -> None:
        """Delete the outer link."""
        _ip("-n", self.filter, "link", "delete", OUTSIDE)

    def delete(self) -> None:
        """Delete the hosts, if they are there."""
        for name in (self.outside, self.filter, self.inside):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextmanager
def row() -> Iterator[Row]:
    """Three hosts for as long as the block lasts."""
    made = Row(*(f"ssaf-{os.getpid()}-{part}" for part in ("out", "mid", "in")))
    try:
        made.make()
        yield made
    finally:
        made.delete()


def inside(namespace: str, *command: str) -> list[str]:
    """A command as it is run in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def _set(namespace: str, name: str, value: int) -> None:
    write = f"echo {value} > /proc/sys/net/ipv6/conf/{name}"
    subprocess.run(inside(namespace, "sh", "-c", write), check=True)


def _link(left: str, left_name: str, right: str, right_name: str) -> None:
    _ip("link", "add", left_name, "netns", left, "type", "veth", "peer", right_name, "netns", right)
    for name, link in ((left, left_name), (right, right_name)):
        _ip("-n", name, "link", "set", link, "up")


def _address(namespace: str, link: str, address: str) -> None:
    _ip("-n", namespace, "address", "add", address, "dev", link, "nodad")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")
