"""What a daemon asks of the C library."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from ssastore.system import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def turn():
    [bytes([1]) * (1 << 20) for _ in range(8)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turn()
before = faults()
for _ in range(10):
    turn()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that the kernel had to give for 80 blocks of a megabyte, each freed before the next eight."""
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, timeout=60)
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    if faults("given back") < 1000:
        pytest.skip("this C library keeps it by itself")
    assert faults("kept") < 500
