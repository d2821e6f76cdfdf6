"""Whether the kernel lets these tests load programs. ``python -m tests.bpf`` says why not, if so."""

from __future__ import annotations

import os
from functools import cache

import pytest

from ssastore.errors import ConfigError
from ssastore.filter.kernel import Filter, FilterRefused
from ssastore.rules.record import ServiceRecord

REFUSED = "no BPF here: "
"Before the reason of each test that skips for it; .ci/run asks as well, and expects them only then."


@cache
def refusal() -> str:
    """Why not; empty: it does."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        Filter(ServiceRecord()).close()
    except (ConfigError, FilterRefused) as error:
        return str(error)
    return ""


def need_bpf() -> None:
    """Skip where the kernel or the machine has no place for the filter."""
    if reason := refusal():
        pytest.skip(REFUSED + reason)


if __name__ == "__main__":
    print(refusal())
