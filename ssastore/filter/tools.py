"""Programs that the filter is made with: clang, bpftool, tc."""

from __future__ import annotations

import shutil
import subprocess

from ssastore.errors import ConfigError
from ssastore.filter.bpf import FilterRefused

_PACKAGES = {"clang": "clang", "bpftool": "bpftool", "tc": "iproute2"}
"Of Debian."


def run(*command: str) -> str:
    """Run one of them; what it printed.

    Raises:
        ConfigError: it is not installed.
        FilterRefused: it failed; with the first line that says so.
    """
    name = command[0]
    if shutil.which(name) is None and name in _PACKAGES:
        raise ConfigError(f"the filter needs {name} (Debian's package {_PACKAGES[name]}) and libbpf-dev")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        told = [line for line in said if "error" in line.lower()] or said or [f"exit code {done.returncode}"]
        raise FilterRefused(f"{name}: {told[0]}")
    return done.stdout
