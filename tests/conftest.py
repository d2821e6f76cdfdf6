"""Settings that all tests share."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from ssastore.form import form, stale

# A deadline per example fails on a busy machine and says nothing about the code; the timeout of
# pytest bounds a test that hangs. CI draws the same examples each time, people draw new ones.
settings.register_profile("people", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "people")


def pytest_report_header() -> str:
    """Which form is tested."""
    return f"ssastore: {form()}"


def pytest_sessionstart() -> None:
    """Never a form of another time than the sources."""
    if old := stale():
        raise pytest.UsageError(
            f"compiled before its source changed: {', '.join(old)}; make compiled, or make pure"
        )
    # Under nohup children would ignore a hangup, also one that a test sends. A handler is not inherited.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork into namespaces come first: a fork is safe only while there is one thread, and
    clients of later tests leave threads behind."""
    items.sort(key=lambda item: "inside" not in getattr(item, "fixturenames", ()))
