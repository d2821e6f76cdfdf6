"""Faults planted into the code under test, each breaking one rule: the simulator must see all of them.

A judge that was never seen red proves nothing.  Every module here has a list ``MUTANTS``;
``HARMLESS`` are changes that break no rule: they must stay green, or the judges see ghosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

Put = Callable[[Any, str, Any], None]
"(owner, name of an attribute that exists, what to put there)."


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted fault.

    ``plant`` exchanges attributes of the code under test; ``scenario`` is where it shows.
    ``is_rare``: it may take a long run.
    """

    name: str
    about: str
    plant: Callable[[Put], None]
    scenario: str = "fight"
    is_rare: bool = False


def mutants() -> dict[str, Mutant]:
    """All of them, by name."""
    return {mutant.name: mutant for module in _modules() for mutant in module.MUTANTS}


def harmless() -> dict[str, Mutant]:
    """Changes that break nothing, by name."""
    return {mutant.name: mutant for module in _modules() for mutant in getattr(module, "HARMLESS", ())}


def _modules() -> list[Any]:
    return [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The code under test with the fault, for the duration of the block."""
    originals: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, changed: Any) -> None:
        # What was renamed must not turn a mutant into nothing.
        assert name in vars(owner), f"{mutant.name}: {owner.__name__} has no {name} of its own any more"
        originals.append((owner, name, vars(owner)[name]))
        setattr(owner, name, changed)

    try:
        mutant.plant(put)
        assert originals, f"{mutant.name} plants nothing"
        yield
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)
