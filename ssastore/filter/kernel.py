"""The filter in the kernel: compiled by clang, loaded by bpftool, its maps by the system call.

Needs root: the kernel takes no XDP program from a user namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from ipaddress import IPv6Network
from pathlib import Path
from struct import pack, unpack
from types import TracebackType
from typing import Self

from ssastore.errors import ConfigError, EnvironmentProblem
from ssastore.filter.header import COUNTERS, header, keys_value
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord

_SOURCE = Path(__file__).with_name("filter.bpf.c")
_BPF_FS = Path("/sys/fs/bpf")
_TOOLS = {"clang": "clang", "bpftool": "bpftool"}
"Programs and their Debian packages; libbpf-dev has the headers."

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _UPDATE, _OBJ_GET, _TEST_RUN, _LINK_CREATE = 1, 2, 7, 10, 28
"Commands of bpf(2)."
_XDP_ATTACH = 37
_XDP_GENERIC, _XDP_DRIVER = 2, 4
_XDP_PASS = 2
_SIOCGIFHWADDR = 0x8927
_ETHERNET_LIKE = (1, 772)
"Ethernet, and the loopback interface."
_PINNED = ("keys", "active", "counters", "ssastore_filter", "ssastore_verdict")


class FilterRefused(EnvironmentProblem):
    """The kernel or a tool refused the filter."""


class Filter:
    """A loaded filter. Use it as a context manager: at the end it is detached.

    What the kernel has of it hangs on this process's descriptors: whatever ends the process ends the filter.
    """

    def __init__(self, record: ServiceRecord) -> None:
        """Compile for a record and load.

        Raises:
            ConfigError: clang or bpftool is not installed.
            FilterRefused: they failed, or this process may not load programs.
        """
        self.record = record
        self._links: list[int] = []
        self._active = 0
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise ConfigError(f"the filter needs {tool} (Debian's package {package}) and libbpf-dev")
        self._known = self._load()

    def _load(self) -> dict[str, int]:
        """Programs and maps, as descriptors."""
        pins = _BPF_FS / f"ssastore-{os.getpid()}-{os.urandom(4).hex()}"
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / "filter.o"
            (Path(folder) / "rule.h").write_text(header(self.record))
            include = [f"-I{folder}", f"-I/usr/include/{platform.machine()}-linux-gnu"]
            to_bpf = ["-O2", "-g", "-Wall", "-target", "bpf", *include]
            _run("clang", *to_bpf, "-c", str(_SOURCE), "-o", str(compiled))
            if not os.path.ismount(_BPF_FS):
                _run("mount", "-t", "bpf", "bpf", str(_BPF_FS))
            known: dict[str, int] = {}
            try:
                _run("bpftool", "prog", "loadall", str(compiled), str(pins), "pinmaps", str(pins))
                for name in _PINNED:
                    known[name] = _pinned(pins / name)
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
        self, service: IPv6Network, unix_s: float, keys: ServiceKeys, *, is_monitor: bool = False
    ) -> None:
        """Judge by these from the next packet on; ``unix_s`` sets its clock, which then runs by itself."""
        offset_us = int(unix_s * 1e6) - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        value = keys_value(service, offset_us, keys, is_monitor=is_monitor)
        other = 1 - self._active
        _update(self._known["keys"], other, value)
        # A packet sees the former entry or this one, never a part of each.
        _update(self._known["active"], 0, pack("=I", other))
        self._active = other

    def counts(self) -> dict[str, int]:
        """Packets so far by what became of them (``header.COUNTERS``), over all cores."""
        cores = _possible_cores()
        found = {}
        for index, name in enumerate(COUNTERS):
            value = _lookup(self._known["counters"], index, 8 * cores)
            found[name] = sum(unpack(f"={cores}Q", value))
        return found

    def attach(self, interface: str) -> str:
        """Judge what arrives at an interface; the mode: ``native`` in the driver, else ``generic``.

        Raises:
            FilterRefused: there is no such interface, it has no Ethernet frames, or it has a program already.
        """
        try:
            index = socket.if_nametoindex(interface)
        except OSError:
            raise FilterRefused(f"there is no interface {interface}") from None
        if (kind := _hardware_of(interface)) not in _ETHERNET_LIKE:
            raise FilterRefused(f"{interface} has no Ethernet frames (type {kind}): nothing could be judged")
        refused = []
        for mode, flag in (("native", _XDP_DRIVER), ("generic", _XDP_GENERIC)):
            wanted = bytearray(pack("=IIII48x", self._known["ssastore_filter"], index, _XDP_ATTACH, flag))
            try:
                self._links.append(_bpf(_LINK_CREATE, wanted))
                return mode
            except FilterRefused as error:
                refused.append(f"{mode}: {error}")
        raise FilterRefused(f"{interface}: {'; '.join(refused)}")

    def verdict(self, frame: bytes) -> str:
        """What the filter says of an Ethernet frame, as in ``header.COUNTERS``; nothing is counted."""
        return COUNTERS[self._test_run("ssastore_verdict", frame, 1)[0]]

    def passes(self, frame: bytes) -> bool:
        """What the filter does with a frame, which is counted."""
        return self._test_run("ssastore_filter", frame, 1)[0] == _XDP_PASS

    def nanoseconds(self, frame: bytes, repeat: int) -> int:
        """What the filter takes for a frame, in the mean of ``repeat`` runs on this core."""
        return self._test_run("ssastore_filter", frame, repeat)[1]

    def _test_run(self, program: str, frame: bytes, repeat: int) -> tuple[int, int]:
        data = ctypes.create_string_buffer(frame, len(frame))
        place = ctypes.addressof(data)
        attributes = bytearray(pack("=IIIIQQII", self._known[program], 0, len(frame), 0, place, 0, repeat, 0))
        _bpf(_TEST_RUN, attributes)
        return unpack("=I", attributes[4:8])[0], unpack("=I", attributes[36:40])[0]

    def close(self) -> None:
        """Detach and unload."""
        for descriptor in (*self._links, *self._known.values()):
            os.close(descriptor)
        self._links.clear()
        self._known.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _hardware_of(interface: str) -> int:
    """What kind of frames an interface has (ARPHRD of if_arp.h)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        found = fcntl.ioctl(asking, _SIOCGIFHWADDR, pack("=16s24x", interface.encode()))
    return int(unpack("=H", found[16:18])[0])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        told = [line for line in said if "error" in line.lower()] or said or [f"exit code {done.returncode}"]
        raise FilterRefused(f"{command[0]}: {told[0]}")


def _possible_cores() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1


_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytearray) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise FilterRefused(f"the filter does not know bpf(2) of {platform.machine()}")
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = _libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        raise FilterRefused(f"bpf(2): {os.strerror(ctypes.get_errno())}")
    return int(result)


def _pinned(path: Path) -> int:
    name = ctypes.create_string_buffer(str(path).encode())
    return _bpf(_OBJ_GET, bytearray(pack("=QII", ctypes.addressof(name), 0, 0)))


def _update(descriptor: int, index: int, value: bytes) -> None:
    key, given = ctypes.c_uint32(index), ctypes.create_string_buffer(value, len(value))
    places = ctypes.addressof(key), ctypes.addressof(given)
    _bpf(_UPDATE, bytearray(pack("=IIQQQ", descriptor, 0, *places, 0)))


def _lookup(descriptor: int, index: int, size: int) -> bytes:
    key, found = ctypes.c_uint32(index), ctypes.create_string_buffer(size)
    places = ctypes.addressof(key), ctypes.addressof(found)
    _bpf(_LOOKUP, bytearray(pack("=IIQQQ", descriptor, 0, *places, 0)))
    return found.raw
