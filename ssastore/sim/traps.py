"""What would make a run unrepeatable raises while one is under way.

Lint bans these names in the core; adapters and shells may use them, and some of
those run in the simulation.  A trap sees calls through the module (``time.time()``);
it does not see ``datetime.now``, which cannot be replaced, nor a function that was
imported by name before the run.  Lint sees both.

``logging`` stamps its records with the wall clock: that decides nothing.
"""

from __future__ import annotations

import os  # noqa: TID251  # to be replaced, not to be called; so are the others
import random  # noqa: TID251
import secrets  # noqa: TID251
import socket
import sys
import threading  # noqa: TID251
import time  # noqa: TID251
import uuid  # noqa: TID251
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ALLOWED_CALLERS = frozenset(("logging",))

_TIME = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
_RANDOM = tuple(name for name in random.__all__ if name[0].islower())
_SECRETS = ("randbelow", "randbits", "choice", "token_bytes", "token_hex", "token_urlsafe")

TRAPPED: tuple[tuple[Any, str], ...] = (
    *((time, name) for name in _TIME),
    *((random, name) for name in _RANDOM),
    *((secrets, name) for name in _SECRETS),
    (os, "urandom"),
    (socket, "socket"),
    (uuid, "uuid1"),
    (uuid, "uuid4"),
    (threading.Thread, "start"),
)


class Forbidden(AssertionError):
    """Simulated code reached for the real world. A bug in it: take clock and randomness from the Env."""


def _trap(name: str, original: Callable[..., Any], simulating: int) -> Callable[..., Any]:
    def trapped(*args: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "?")
        # Other threads of the process live in the real world, and take no part in the run.
        if caller in _ALLOWED_CALLERS or threading.get_ident() != simulating:
            return original(*args, **named)
        raise Forbidden(f"{caller} called {name} in a simulated run")

    return trapped


@contextmanager
def traps() -> Iterator[None]:
    """Set all traps for the duration of the block."""
    originals = [(owner, name, getattr(owner, name)) for owner, name in TRAPPED]
    for owner, name, original in originals:
        setattr(owner, name, _trap(f"{owner.__name__}.{name}", original, threading.get_ident()))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
