"""The lane digit of the dialled address picks the worker: a classic BPF program on the listeners.

Worker w of W serves the lanes with ``lane mod W == w``.  All W listening
sockets share one port (SO_REUSEPORT), and the program returns which of them
gets a new connection, so the address leads to the process that holds the
object and no connection is handed from one process to another.  It needs no privilege.

The kernel numbers the sockets in the order in which they began to listen.
Closing one moves the last into its place: after a restart of worker 1 of 4
under its own steam, lanes 0 to 3 reach workers 0, 3, 2, 1.  So one process
opens all of them, keeps them, and hands them down.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from ssastore.errors import EnvironmentProblem
from ssastore.keyspace import LANES

SO_ATTACH_REUSEPORT_CBPF = 51
"include/uapi/asm-generic/socket.h; Python has no name for it."

SKF_NET_OFF = -0x100000
"Loads from here on count from the network header; the packet starts at the TCP header."

LANE_OFFSET = 24 + 9
"The destination address starts at byte 24 of an IPv6 header; the fifth hextet ends with its byte 9."

_LOAD_BYTE = 0x30
_AND = 0x54
_MODULO = 0x94
_RETURN_A = 0x16

_INSTRUCTION = struct.Struct("HBBI")
_PROGRAM = struct.Struct("HL")
"struct sock_fprog: count and address of the instructions."


def attach_lane_steering(listener: socket.socket, workers: int) -> None:
    """Steer the connections of all listeners that share this one's port, by lane.

    To be called once, when all ``workers`` sockets listen; any of them will do.

    Raises:
        ValueError: ``workers`` is not 1 to 16.
        EnvironmentProblem: the kernel did not take the program.
    """
    if not 1 <= workers <= LANES:
        raise ValueError(f"there are {LANES} lanes, so 1 to {LANES} workers, not {workers}")
    program = steering_program(workers)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = _PROGRAM.pack(len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, described)
    except OSError as error:
        raise EnvironmentProblem(f"steering connections by lane: {error.strerror}") from error


def steering_program(workers: int) -> bytes:
    """Byte code that returns ``lane mod workers`` for a packet."""
    instructions = (
        (_LOAD_BYTE, SKF_NET_OFF + LANE_OFFSET),
        (_AND, LANES - 1),
        (_MODULO, workers),
        (_RETURN_A, 0),
    )
    return b"".join(_INSTRUCTION.pack(code, 0, 0, value & 0xFFFFFFFF) for code, value in instructions)
