"""The scenarios: one module each, with a ``SCENARIO`` in it.

A new one needs nothing but its module here: ``ssastore sim --scenario NAME`` finds it.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ssastore.sim.stage import Scenario


def scenarios() -> dict[str, Scenario]:
    """All of them, by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return {module.SCENARIO.name: module.SCENARIO for module in modules}
