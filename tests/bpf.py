"""Whether the kernel lets these tests load programs. ``python -m tests.bpf`` says why not, if so."""

from __future__ import annotations

import ctypes
import os
import shutil
from functools import cache
from pathlib import Path
from struct import pack

import pytest

from ssastore.filter.bpf import FilterRefused, bpf

REFUSED = "no BPF here: "
"Before the reason of each test that skips for it; .ci/run asks as well, and expects them only then."
_PROG_LOAD, _XDP = 5, 6
_PASS = bytes.fromhex("b700000002000000 9500000000000000".replace(" ", ""))
"r0 = 2; exit. Not our own program: one that is broken must fail the tests, not excuse them."


@cache
def refusal() -> str:
    """Why not; empty: it does."""
    if os.geteuid() != 0:
        return "needs root"
    code, license_name = ctypes.create_string_buffer(_PASS, len(_PASS)), ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(license_name)
    try:
        os.close(bpf(_PROG_LOAD, bytearray(pack("=IIQQ48x", _XDP, len(_PASS) // 8, *places))))
    except FilterRefused as error:
        return str(error)
    return ""


def need_bpf() -> None:
    """Skip where the kernel takes no programs, and where what makes ours is not installed."""
    if reason := refusal():
        pytest.skip(REFUSED + reason)
    if not (shutil.which("clang") and shutil.which("bpftool") and Path("/usr/include/bpf").exists()):
        pytest.skip("clang, bpftool or libbpf-dev is not installed")


if __name__ == "__main__":
    print(refusal())
