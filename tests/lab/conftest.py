"""Tests on a real kernel: each in a forked child that is root of a network of its own.

pytest itself stays where it is. Where the machine forbids namespaces the tests are skipped with the
reason, and their number is shown at the end, so that a tier that has vanished is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from ssastore.errors import NamespaceRefused
from ssastore.lab.namespaces import in_new_namespaces

skipped_count = pytest.StashKey[int]()


@cache
def refusal() -> str:
    """Why this machine gives us no namespaces; empty when it does."""
    try:
        in_new_namespaces(bool)
    except NamespaceRefused as error:
        return str(error)
    return ""


@pytest.fixture
def inside(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a function in new namespaces; its result and its failures come back."""
    if refusal():
        stash = request.config.stash
        stash[skipped_count] = stash.get(skipped_count, 0) + 1
        pytest.skip(refusal())
    return in_new_namespaces


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if count := config.stash.get(skipped_count, 0):
        terminalreporter.write_line(f"{count} lab tests skipped: {refusal()}", yellow=True)
