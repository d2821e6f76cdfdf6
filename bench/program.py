"""A measurement in a lab as a program of its own: options, a folder for the lab's data, a table or JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.errors import BenchError, LeftOut


class Result(Protocol):
    """A dataclass with what was measured."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def is_right(self) -> bool:
        """Whether nothing was wrong besides being slow."""
        ...

    def table(self) -> str:
        """For people."""
        ...


def parser_of(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser with the options of all of them. ``text`` is the module's docstring."""
    about = (text or name).splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def run(parser: argparse.ArgumentParser, measure: Callable[[Path, Any], Result]) -> int:
    """Measure with the options that were given; 0, or 1 when it could not be measured or was wrong."""
    options = parser.parse_args()
    options.data.mkdir(exist_ok=True)
    name = parser.prog.rpartition(".")[2]
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=options.data) as folder:
        try:
            result = measure(Path(folder), options)
        except (BenchError, LeftOut) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(json.dumps(asdict(result)) if options.json else result.table())
    return 0 if result.is_right else 1
