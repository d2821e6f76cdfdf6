"""bpf(2): maps read and written, programs run once and attached, by descriptors."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack

from ssastore.errors import EnvironmentProblem

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _OBJ_GET, _TEST_RUN, _LINK_CREATE = 1, 2, 3, 4, 7, 10, 28
"Commands of bpf(2)."
_XDP_ATTACH, _TC_INGRESS_ATTACH = 37, 46
XDP_GENERIC, XDP_NATIVE = 2, 4


class FilterRefused(EnvironmentProblem):
    """The kernel or a tool refused the filter, or a part of it."""


_libc = ctypes.CDLL(None, use_errno=True)


class _Failed(FilterRefused):
    """With the reason as a number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"bpf(2): {os.strerror(number)}")
        self.errno = number


def bpf(command: int, attributes: bytearray) -> int:
    """The system call; ``attributes`` are a ``union bpf_attr``, and written to."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise FilterRefused(f"the filter does not know bpf(2) of {platform.machine()}")
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = _libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        raise _Failed(ctypes.get_errno())
    return int(result)


def pinned(path: Path) -> int:
    """A descriptor of what is pinned there."""
    name = ctypes.create_string_buffer(str(path).encode())
    return bpf(_OBJ_GET, bytearray(pack("=QII", ctypes.addressof(name), 0, 0)))


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Write one entry of a map; FilterRefused also when it is full."""
    given_key, given = (ctypes.create_string_buffer(part, len(part)) for part in (key, value))
    places = ctypes.addressof(given_key), ctypes.addressof(given)
    bpf(_UPDATE, bytearray(pack("=IIQQQ", descriptor, 0, *places, 0)))


def lookup(descriptor: int, key: bytes, size: int) -> bytes | None:
    """One entry of a map, of ``size`` bytes (over all cores); None: there is none."""
    asked, found = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    places = ctypes.addressof(asked), ctypes.addressof(found)
    if not _is_there(_LOOKUP, bytearray(pack("=IIQQQ", descriptor, 0, *places, 0))):
        return None
    return found.raw


def delete(descriptor: int, key: bytes) -> bool:
    """Delete one entry of a map; False: there was none."""
    given = ctypes.create_string_buffer(key, len(key))
    return _is_there(_DELETE, bytearray(pack("=IIQQQ", descriptor, 0, ctypes.addressof(given), 0, 0)))


def keys_of(descriptor: int, size: int) -> Iterator[bytes]:
    """The keys of a map, ``size`` bytes each."""
    former, found = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    place = 0
    while True:
        wanted = bytearray(pack("=IIQQQ", descriptor, 0, place, ctypes.addressof(found), 0))
        if not _is_there(_NEXT_KEY, wanted):
            return
        yield found.raw
        former.raw, place = found.raw, ctypes.addressof(former)


def run_once(descriptor: int, frame: bytes, repeat: int = 1) -> tuple[int, int]:
    """Run a program for a frame: what it returned, and what one run took in ns, in the mean of ``repeat``."""
    data = ctypes.create_string_buffer(frame, len(frame))
    place = ctypes.addressof(data)
    attributes = bytearray(pack("=IIIIQQII", descriptor, 0, len(frame), 0, place, 0, repeat, 0))
    bpf(_TEST_RUN, attributes)
    return unpack("=I", attributes[4:8])[0], unpack("=I", attributes[36:40])[0]


def attach_xdp(descriptor: int, index: int, flag: int) -> int:
    """A link: the program stays at the interface for as long as it is open."""
    return bpf(_LINK_CREATE, bytearray(pack("=IIII48x", descriptor, index, _XDP_ATTACH, flag)))


def attach_tc(descriptor: int, index: int) -> int:
    """The same for packets that come in, after XDP and before the host's own business (Linux 6.6)."""
    return bpf(_LINK_CREATE, bytearray(pack("=IIII48x", descriptor, index, _TC_INGRESS_ATTACH, 0)))


def possible_cores() -> int:
    """How many values an entry of a map for each core has."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2].rpartition(",")[2]
    return int(last) + 1


def _is_there(command: int, attributes: bytearray) -> bool:
    try:
        bpf(command, attributes)
    except _Failed as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
