"""Kernel, Python, limits, clock and name spaces of this host."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys

from ssastore.doctor.findings import Finding, State, good

_KERNEL_WANTED = (4, 6)
"SO_ATTACH_REUSEPORT_CBPF for TCP."
_PYTHON_WANTED = (3, 11)
_FILES_WANTED = 4096
_STA_UNSYNC = 0x40
"linux/timex.h: the clock is not synchronised."
_TIME_ERROR = 5
_TIMEX_BYTES = 208
_STATUS_AT = 40
"In struct timex on 64-bit machines."


def look_at_kernel() -> Finding:
    """The release of the kernel."""
    return judge_kernel(os.uname().sysname, os.uname().release)


def judge_kernel(system: str, release: str) -> Finding:
    """Linux, and new enough."""
    wanted = f"Linux {'.'.join(map(str, _KERNEL_WANTED))} or later"
    found = re.match(r"(\d+)\.(\d+)", release)
    if system != "Linux":
        return Finding(
            "kernel", State.BAD, f"{system} {release}", wanted, "run nodes on Linux; clients work here"
        )
    if found is None:
        return Finding("kernel", State.UNKNOWN, release, wanted)
    if tuple(map(int, found.groups())) < _KERNEL_WANTED:
        return Finding("kernel", State.BAD, release, wanted, "install a newer kernel")
    return good("kernel", f"{system} {release}")


def look_at_python() -> Finding:
    """The version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON_WANTED:
        return Finding("python", State.BAD, found, "3.11 or later", "apt install python3.11")
    return good("python", found)


def look_at_files() -> Finding:
    """How many files and connections a process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_files(soft, hard)


def judge_files(soft: int, hard: int) -> Finding:
    """Enough for a connection of each client and peer; a limit of -1 is none."""
    if soft != resource.RLIM_INFINITY and soft < _FILES_WANTED:
        mend = f"ulimit -n {_FILES_WANTED}"
        if hard != resource.RLIM_INFINITY and hard < _FILES_WANTED:
            mend = f"systemd: LimitNOFILE={_FILES_WANTED}; or /etc/security/limits.conf"
        return Finding("open files", State.WARN, f"{soft} a process", f"{_FILES_WANTED} or more", mend)
    return good("open files", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} a process")


def look_at_clock() -> Finding:
    """Whether the kernel thinks that somebody keeps its clock right: adjtimex(2), which only reads here."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return judge_clock(state, int.from_bytes(buffer.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder))


def judge_clock(state: int, status: int) -> Finding:
    """Of adjtimex: times of objects, lifecycle rules and signatures are by the clock. Agreement is not."""
    if state == _TIME_ERROR or status & _STA_UNSYNC:
        return Finding(
            "clock",
            State.WARN,
            "nobody keeps it right",
            "within seconds of the other hosts: S3 signatures and hop rules are by the clock",
            "apt install chrony; or systemctl enable --now systemd-timesyncd",
        )
    return good("clock", "kept by NTP")
