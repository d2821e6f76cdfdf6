"""The filter in the kernel: compiled by clang, loaded by bpftool, its maps by the system call.

Needs root: the kernel takes no XDP program from a user namespace.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from ipaddress import IPv6Network
from pathlib import Path
from struct import pack, unpack
from types import TracebackType
from typing import Self

from ssastore.errors import ConfigError, EnvironmentProblem
from ssastore.filter.header import COUNTERS, epoch_of, header, keys_value
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import ServiceRecord

_SOURCE = Path(__file__).with_name("filter.bpf.c")
_BPF_FS = Path("/sys/fs/bpf")
_TOOLS = {"clang": "clang", "bpftool": "bpftool"}
"Programs and their Debian packages; libbpf-dev has the headers."

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _UPDATE, _OBJ_GET, _TEST_RUN = 1, 2, 7, 10
"Commands of bpf(2)."


class FilterRefused(EnvironmentProblem):
    """The kernel or a tool refused the filter."""


class Filter:
    """A loaded filter. Use it as a context manager: at the end it is detached, and nothing stays."""

    def __init__(self, record: ServiceRecord) -> None:
        """Compile for a record and load.

        Raises:
            ConfigError: clang or bpftool is not installed.
            FilterRefused: they failed, or this process may not load programs.
        """
        self.record = record
        self._interfaces: list[tuple[str, str]] = []
        self._active = 0
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise ConfigError(f"the filter needs {tool} (Debian's package {package}) and libbpf-dev")
        self._pins = _BPF_FS / f"ssastore-{os.getpid()}-{id(self):x}"
        self._load()
        self._maps = {name: _pinned(self._pins / name) for name in ("keys", "active", "counters")}

    def _load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / "filter.o"
            (Path(folder) / "rule.h").write_text(header(self.record))
            machine = platform.machine()
            include = [f"-I{folder}", f"-I/usr/include/{machine}-linux-gnu"]
            _run(
                "clang",
                "-O2",
                "-g",
                "-Wall",
                "-target",
                "bpf",
                *include,
                "-c",
                str(_SOURCE),
                "-o",
                str(compiled),
            )
            if not os.path.ismount(_BPF_FS):
                _run("mount", "-t", "bpf", "bpf", str(_BPF_FS))
            _run("bpftool", "prog", "loadall", str(compiled), str(self._pins), "pinmaps", str(self._pins))

    def set_keys(
        self, service: IPv6Network, unix_s: float, keys: ServiceKeys, *, is_monitor: bool = False
    ) -> None:
        """Judge by these from the next packet on; ``unix_s`` says the epoch, so call it in each one."""
        value = keys_value(service, epoch_of(self.record, unix_s), keys, is_monitor=is_monitor)
        other = 1 - self._active
        _update(self._maps["keys"], other, value)
        # A packet sees the former entry or this one, never a part of each.
        _update(self._maps["active"], 0, pack("=I", other))
        self._active = other

    def counts(self) -> dict[str, int]:
        """Packets so far by what became of them (``header.COUNTERS``), over all cores."""
        cores = _possible_cores()
        found = {}
        for index, name in enumerate(COUNTERS):
            value = _lookup(self._maps["counters"], index, 8 * cores)
            found[name] = sum(unpack(f"={cores}Q", value))
        return found

    def attach(self, interface: str) -> str:
        """Judge what arrives at an interface; the mode: ``native`` in the driver, else ``generic``."""
        program = str(self._pins / "ssastore_filter")
        for mode, word in (("native", "xdpdrv"), ("generic", "xdpgeneric")):
            done = subprocess.run(
                ["ip", "link", "set", "dev", interface, word, "pinned", program],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                self._interfaces.append((interface, word))
                return mode
        raise FilterRefused(f"{interface}: {done.stderr.strip() or 'ip link refused'}")

    def verdict(self, frame: bytes) -> str:
        """What the filter says of an Ethernet frame, as in ``header.COUNTERS``; nothing is counted."""
        return COUNTERS[self._test_run("ssastore_verdict", frame, 1)[0]]

    def nanoseconds(self, frame: bytes, repeat: int) -> int:
        """What the filter takes for a frame, in the mean of ``repeat`` runs on this core."""
        return self._test_run("ssastore_filter", frame, repeat)[1]

    def _test_run(self, program: str, frame: bytes, repeat: int) -> tuple[int, int]:
        descriptor = _pinned(self._pins / program)
        try:
            data = ctypes.create_string_buffer(frame, len(frame))
            attributes = bytearray(
                pack("=IIIIQQII", descriptor, 0, len(frame), 0, ctypes.addressof(data), 0, repeat, 0)
            )
            _bpf(_TEST_RUN, attributes)
            return unpack("=I", attributes[4:8])[0], unpack("=I", attributes[36:40])[0]
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Detach and unload."""
        for interface, word in self._interfaces:
            # The interface may be gone, and the program with it.
            subprocess.run(
                ["ip", "link", "set", "dev", interface, word, "off"], capture_output=True, check=False
            )
        self._interfaces.clear()
        for descriptor in self._maps.values():
            os.close(descriptor)
        self._maps = {}
        for pin in self._pins.iterdir():
            pin.unlink()
        self._pins.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
