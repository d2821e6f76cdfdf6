"""How many packets one core rejects in XDP at a veth: ``flood INTERFACE FRAME COUNT``.

BPF_PROG_TEST_RUN with live frames: the kernel makes packets of the frame and gives them to a program of three
instructions, which sends them out of the interface; the other end's XDP has them from there.  All that runs
on the core that asks, so what is printed is generator and filter together; ``drop INTERFACE`` puts a program
of two instructions in the filter's place, for the generator's own limit.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
from struct import pack

from ssastore.filter.bpf import XDP_NATIVE, attach_xdp, bpf

_PROG_LOAD, _TEST_RUN = 5, 10
_XDP = 6
_LIVE_FRAMES = 2
_REDIRECT_CALL = 23
_BATCH = 64


def _load(*instructions: bytes) -> int:
    code = b"".join(instructions)
    given, license_name = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(given), ctypes.addressof(license_name)
    return bpf(_PROG_LOAD, bytearray(pack("=IIQQ48x", _XDP, len(code) // 8, *places)))


def _set(register: int, value: int) -> bytes:
    return pack("=BBhi", 0xB7, register, 0, value)


_CALL = pack("=BBhi", 0x85, 0, 0, _REDIRECT_CALL)
_EXIT = pack("=BBhi", 0x95, 0, 0, 0)


def flood(interface: str, frame: bytes, count: int) -> float:
    """Send a frame ``count`` times; how many seconds that took, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    program = _load(_set(1, socket.if_nametoindex(interface)), _set(2, 0), _CALL, _EXIT)
    data = ctypes.create_string_buffer(frame, len(frame))
    head = pack("=IIIIQQII", program, 0, len(frame), 0, ctypes.addressof(data), 0, count, 0)
    begun = time.perf_counter()
    bpf(_TEST_RUN, bytearray(head + pack("=IIQQIIII", 0, 0, 0, 0, _LIVE_FRAMES, 0, _BATCH, 0)))
    return time.perf_counter() - begun


def drop(interface: str) -> None:
    """Drop all that arrives at an interface until a line is read."""
    attach_xdp(_load(_set(0, 1), _EXIT), socket.if_nametoindex(interface), XDP_NATIVE)
    print("dropping", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flood", name, text, number]:
            print(json.dumps({"seconds": flood(name, bytes.fromhex(text), int(number))}))
        case ["drop", name]:
            drop(name)
