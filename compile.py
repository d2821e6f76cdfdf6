"""Compiles the hot modules into extension modules beside their sources: ``make compiled`` (docs/adr/0011).

Python prefers an extension module to the source of the same name, so nothing else has to know.  The sources
stay what is tested and what simulations run; ``make pure`` takes the extension modules away.

    python compile.py OPT      how much the C compiler is to optimise: 2 to run it, 0 to test it soon
"""

from __future__ import annotations

import sys

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

from ssastore.form import MODULES, paths


def main() -> None:
    """See the module's docstring."""
    # One group: they call one another as C functions do, and share the types of one another's attributes.
    modules = mypycify(
        ["--config-file=pyproject.toml", *paths()],
        opt_level=sys.argv[1],
        debug_level="0",
        group_name="ssastore",
    )
    # Not setup(): that would read the project file, which is for another build tool.
    build = build_ext(Distribution({"name": "ssastore", "ext_modules": modules, "packages": []}))
    build.inplace = True
    build.ensure_finalized()
    build.run()
    print(f"compiled {len(MODULES)} modules for Python {sys.version_info.major}.{sys.version_info.minor}")


if __name__ == "__main__":
    main()
