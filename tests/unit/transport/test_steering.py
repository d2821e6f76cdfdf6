"""The program that picks a listener, run on paper; the kernel runs it in tests/lab."""

from __future__ import annotations

import socket
import struct

import pytest

from ssastore.errors import EnvironmentProblem
from ssastore.keyspace import LANES, address_of, lane_of, service_network, slice_of
from ssastore.transport.steering import attach_lane_steering, steering_program

NETWORK_HEADER = 0xFFF00000


def run(program: bytes, packet: bytes) -> int:
    """What a machine of classic BPF returns for an IPv6 packet."""
    accumulator = 0
    for code, _, _, value in struct.iter_unpack("HBBI", program):
        match code:
            case 0x30:
                accumulator = packet[value - NETWORK_HEADER]
            case 0x54:
                accumulator &= value
            case 0x94:
                accumulator %= value
            case 0x16:
                return accumulator
    raise AssertionError("the program has no end")


@pytest.mark.parametrize("workers", range(1, LANES + 1))
def test_program_returns_the_lane_modulo_workers(workers: int) -> None:
    service = service_network("fd5a:ffff:ffff:ffff::/64")
    for group in (0, 1, 0x5A7, 0xFFF, 0x12A):
        iid = slice_of(2, group).first + 0xFFFF_FFFF_FFFF
        packet = bytes(8) + b"\xff" * 16 + address_of(service, iid).packed
        assert run(steering_program(workers), packet) == lane_of(iid) % workers


@pytest.mark.parametrize("workers", [-1, 0, LANES + 1])
def test_workers_without_a_lane_are_refused(workers: int) -> None:
    with socket.socket(socket.AF_INET6) as listener, pytest.raises(ValueError, match="16 lanes"):
        attach_lane_steering(listener, workers)


def test_socket_that_does_not_share_its_port_is_refused() -> None:
    with socket.socket(socket.AF_INET6) as listener, pytest.raises(EnvironmentProblem, match="steering"):
        attach_lane_steering(listener, 2)
