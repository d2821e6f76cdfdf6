"""What a daemon asks of the C library, and tells its service manager."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from ssastore import system
from ssastore.system import keep_watchdog

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


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the service manager heard."""
    heard: list[str] = []
    monkeypatch.setattr(system, "tell_service_manager", heard.append)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    return heard


@pytest.mark.parametrize("period", ["", "0", "000", "-5", "1", "x", "\u0663000000", "1e6", "9" * 5000])
async def test_a_period_that_is_none_is_no_watchdog(
    told: list[str], monkeypatch: pytest.MonkeyPatch, period: str
) -> None:
    """systemd says 0 for "off"; taken for a period it would fill a CPU."""
    monkeypatch.setenv("WATCHDOG_USEC", period)
    async with asyncio.timeout(1):
        await keep_watchdog()
    assert told == []


async def test_the_watchdog_hears_twice_a_period(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.55):
            await keep_watchdog()
    assert 2 <= len(told) <= 6 and set(told) == {"WATCHDOG=1"}
