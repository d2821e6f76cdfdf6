"""The filter in the kernel: compiled by clang, loaded by bpftool, attached, told and read.

Needs root: the kernel takes no XDP program from a user namespace.
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from struct import pack, unpack
from types import TracebackType
from typing import Any, Self

from ssastore.filter import bpf, queues
from ssastore.filter.bpf import FilterRefused
from ssastore.filter.classes import Reason
from ssastore.filter.header import COUNTERS, REASONS, Told, header
from ssastore.filter.orders import (
    KEY_BYTES,
    ORDERS_MAX,
    VALUE_BYTES,
    Order,
    order_of_key,
    read_value,
    value_of,
)
from ssastore.filter.queues import Paces
from ssastore.filter.tools import run
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord

_SOURCE = Path(__file__).with_name("filter.bpf.c")
_BPF_FS = Path("/sys/fs/bpf")
_XDP_PASS = 2
_SIOCGIFHWADDR = 0x8927
_ETHERNET_LIKE = (1, 772)
"Ethernet, and the loopback interface."
_MAPS = ("told", "active", "counters", "orders", "flows")
_PROGRAMS = ("ssastore_filter", "ssastore_reason", "ssastore_mark", "ssastore_answers")


class Filter:
    """A loaded filter. Use it as a context manager: at the end it is detached.

    What the kernel has of it hangs on this process's descriptors: whatever ends the process ends the filter.
    """

    def __init__(self, record: ServiceRecord) -> None:
        """Compile for a record and load.

        Raises:
            ConfigError: clang or bpftool is not installed.
            FilterRefused: one of them failed, or this process may not load programs.
        """
        self.record = record
        self._links: list[int] = []
        self._active = 0
        self._told = Told()
        self._inside = ""
        self._known = self._load()

    def _load(self) -> dict[str, int]:
        """Programs and maps, as descriptors."""
        pins = _BPF_FS / f"ssastore-{os.getpid()}-{os.urandom(4).hex()}"
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / "filter.o"
            (Path(folder) / "rule.h").write_text(header(self.record))
            include = [f"-I{folder}", f"-I/usr/include/{platform.machine()}-linux-gnu"]
            to_bpf = ["-O2", "-g", "-Wall", "-target", "bpf", *include]
            run("clang", *to_bpf, "-c", str(_SOURCE), "-o", str(compiled))
            if not os.path.ismount(_BPF_FS):
                run("mount", "-t", "bpf", "bpf", str(_BPF_FS))
            known: dict[str, int] = {}
            try:
                run("bpftool", "prog", "loadall", str(compiled), str(pins), "pinmaps", str(pins))
                for name in _MAPS + _PROGRAMS:
                    known[name] = bpf.pinned(pins / name)
            except BaseException:
                for descriptor in known.values():
                    os.close(descriptor)
                raise
            finally:
                # A pin would outlive the process.
                for pin in pins.glob("*"):
                    pin.unlink()
                if pins.exists():
                    pins.rmdir()
        return known

    def set_keys(
        self,
        services: Sequence[IPv6Network],
        unix_s: float,
        keys: ServiceKeys,
        *,
        is_monitor: bool = False,
    ) -> None:
        """Judge by these from the next packet on; ``unix_s`` sets its clock, which then runs by itself."""
        offset_us = int(unix_s * 1e6) - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        self._tell(services=tuple(services), keys=keys, offset_us=offset_us, is_monitor=is_monitor)

    def set_attack(self, is_attacked: bool) -> None:
        """Whether there is an attack: then clients that know no rule are possibly bad."""
        self._tell(is_attacked=is_attacked)

    def _tell(self, **changes: Any) -> None:
        self._told = replace(self._told, **changes)
        other = 1 - self._active
        bpf.update(self._known["told"], pack("=I", other), self._told.packed())
        # A packet sees the former entry or this one, never a part of each.
        bpf.update(self._known["active"], bytes(4), pack("=I", other))
        self._active = other

    def order(self, order: Order, reason: Reason, for_s: float) -> None:
        """Take packets for that, so long; an order that is there is replaced.

        Raises:
            FilterRefused: there are ``ORDERS_MAX`` already.
        """
        until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(for_s * 1e9)
        standing = self.orders()
        if order not in standing and len(standing) >= ORDERS_MAX:
            raise FilterRefused(f"there are {ORDERS_MAX} orders, which is all that the filter looks through")
        bpf.update(self._known["orders"], order.key, value_of(reason, until_ns, REASONS))
        self._tell(order_count=len(standing.keys() | {order}))

    def withdraw(self, order: Order) -> bool:
        """End an order; False: there is none such."""
        was_there = bpf.delete(self._known["orders"], order.key)
        self._tell(order_count=len(self.orders()))
        return was_there

    def orders(self) -> dict[Order, tuple[Reason, float]]:
        """Orders that stand: the reason, and how many seconds are left. Others are deleted on the way."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        found, ended = {}, []
        for key in list(bpf.keys_of(self._known["orders"], KEY_BYTES)):
            if (value := bpf.lookup(self._known["orders"], key, VALUE_BYTES)) is None:
                continue
            reason, until_ns = read_value(value, REASONS)
            if until_ns > now_ns:
                found[order_of_key(key)] = reason, (until_ns - now_ns) / 1e9
            else:
                ended.append(key)
        for key in ended:
            bpf.delete(self._known["orders"], key)
        if len(found) != self._told.order_count:
            self._tell(order_count=len(found))
        return found

    def counts(self) -> dict[str, int]:
        """Packets so far by what became of them (``header.COUNTERS``), over all cores."""
        cores = bpf.possible_cores()
        found = {}
        for index, name in enumerate(COUNTERS):
            value = bpf.lookup(self._known["counters"], pack("=I", index), 8 * cores)
            found[name] = sum(unpack(f"={cores}Q", value)) if value else 0
        return found

    def queue_counts(self) -> dict[str, int]:
        """What the queues sent and dropped, by class; nothing without queues."""
        return queues.counts(self._inside) if self._inside else {}

    def attach(self, interface: str) -> str:
        """Judge what arrives at an interface; the mode: ``native`` in the driver, else ``generic``.

        Raises:
            FilterRefused: there is no such interface, it has no Ethernet frames, or it has a program already.
        """
        index = _index_of(interface)
        if (kind := _hardware_of(interface)) not in _ETHERNET_LIKE:
            raise FilterRefused(f"{interface} has no Ethernet frames (type {kind}): nothing could be judged")
        refused = []
        for mode, flag in (("native", bpf.XDP_NATIVE), ("generic", bpf.XDP_GENERIC)):
            try:
                self._links.append(bpf.attach_xdp(self._known["ssastore_filter"], index, flag))
                return mode
            except FilterRefused as error:
                refused.append(f"{mode}: {error}")
        raise FilterRefused(f"{interface}: {'; '.join(refused)}")

    def attach_queues(self, outside: str, inside: str, paces: Paces) -> None:
        """Queue what ``outside`` let pass where it leaves by ``inside``, towards the service.

        Raises:
            FilterRefused: there is no such interface, it has queues already, or the kernel is older than 6.6.
        """
        programs = {"ssastore_mark": _index_of(outside), "ssastore_answers": _index_of(inside)}
        try:
            for name, index in programs.items():
                self._links.append(bpf.attach_tc(self._known[name], index))
        except FilterRefused as error:
            raise FilterRefused(f"queues need Linux 6.6 or later (links of tc programs): {error}") from None
        queues.set_queues(inside, paces)
        self._inside = inside
        self.sort_for_queues()

    def sort_for_queues(self) -> None:
        """Look flows up, and write classes beside packets; without queues nobody has a use for that."""
        self._tell(has_queues=True)

    def detach(self) -> None:
        """Let everything pass, unqueued; ``attach`` again when there is an interface."""
        self._tell(has_queues=False)
        for descriptor in self._links:
            os.close(descriptor)
        self._links.clear()
        if self._inside and _is_there(self._inside):
            queues.remove_queues(self._inside)
        self._inside = ""

    def reason(self, frame: bytes) -> Reason:
        """Why an Ethernet frame would be in its class; nothing is counted."""
        return Reason(REASONS[bpf.run_once(self._known["ssastore_reason"], frame)[0]])

    def passes(self, frame: bytes) -> bool:
        """What the filter does with a frame, which is counted."""
        return bpf.run_once(self._known["ssastore_filter"], frame)[0] == _XDP_PASS

    def answer(self, frame: bytes) -> None:
        """Take a frame as one that the service sends."""
        bpf.run_once(self._known["ssastore_answers"], frame)

    def nanoseconds(self, frame: bytes, repeat: int) -> int:
        """What the filter takes for a frame, in the mean of ``repeat`` runs on this core."""
        return bpf.run_once(self._known["ssastore_filter"], frame, repeat)[1]

    def close(self) -> None:
        """Detach and unload."""
        if self._known:
            self.detach()
        for descriptor in self._known.values():
            os.close(descriptor)
        self._known.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _index_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise FilterRefused(f"there is no interface {interface}") from None


def _is_there(interface: str) -> bool:
    return interface in (name for _, name in socket.if_nameindex())


def _hardware_of(interface: str) -> int:
    """What kind of frames an interface has (ARPHRD of if_arp.h)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        found = fcntl.ioctl(asking, _SIOCGIFHWADDR, pack("=16s24x", interface.encode()))
    return int(unpack("=H", found[16:18])[0])
