"""Memory, written bytes and open files of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.resources import memory_mib, open_files, parse_pss_kib, parse_written, written_bytes

ROLLUP = """55d0-7ffd ---p 00000000 00:00 0    [rollup]
Rss:               10240 kB
Pss:                4096 kB
Pss_Anon:           1024 kB
"""
IO = "rchar: 1\nwchar: 999999\nread_bytes: 5\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n"


def test_shared_memory_counts_by_its_part() -> None:
    assert parse_pss_kib(ROLLUP) == 4096


def test_written_is_what_goes_to_a_disk_and_no_pipe() -> None:
    assert parse_written(IO) == 8192


def test_figures_are_those_of_a_process_and_its_children(tmp_path: Path) -> None:
    """Method: a child holds memory, writes and opens more than we do."""
    text = (
        "import os, sys; held = b'x' * (64 << 20); files = [open('/dev/null') for _ in range(20)]\n"
        f"file = open({str(tmp_path / 'x')!r}, 'wb'); file.write(bytes(1 << 20)); os.fsync(file.fileno())\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-S", "-c", text]
    middle = subprocess.Popen(
        ["sh", "-c", '"$@"; exit 0', "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with middle:
        assert middle.stdin is not None
        assert middle.stdout is not None
        assert middle.stdout.readline() == b"up\n"
        assert memory_mib([middle.pid]) > 64
        assert open_files([middle.pid]) > 20
        written = written_bytes([middle.pid])
        assert written == 0 or 1 << 20 <= written < 2 << 20, "nothing where the folder is in memory"
        middle.stdin.close()
    assert memory_mib([middle.pid]) == 0
    assert open_files([os.getpid()]) > 2
