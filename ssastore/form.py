"""Which form of the hot modules runs: sources, or what ``make compiled`` has made of them (docs/adr/0011).

Whoever reports a figure says the form, and what depends on one form looks here.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

MODULES = (
    "keyspace",
    "wire",
    "core.acceptor",
    "core.birth",
    "core.ceiling",
    "core.doubts",
    "core.floors",
    "core.metadata",
    "core.operations",
    "core.place",
    "core.records",
    "core.register",
    "core.replies",
    "core.shuts",
    "core.votes",
    "store.changes",
    "store.lmdbtxn",
    "store.log",
    "store.logformat",
    "store.seal",
    "store.table",
    "store.views",
    "store.writer",
    "transport.channel",
    "transport.connection",
    "transport.session",
)
"What every small request passes. Messages stay as they are: their classes are filled in after they are made."

_PACKAGE = Path(__file__).parent


def paths() -> list[str]:
    """The sources, relative to the directory that holds the package."""
    return [f"{_PACKAGE.name}/{module.replace('.', '/')}.py" for module in MODULES]


def is_compiled() -> bool:
    """Whether this interpreter loads the compiled form."""
    return all(_extension(path) is not None for path in paths())


def form() -> str:
    """In a word or two, for people."""
    return "compiled" if is_compiled() else "pure Python"


def stale() -> list[str]:
    """Sources that are newer than what was compiled of them, which is what would run."""
    found = []
    for path in paths():
        extension = _extension(path)
        source = _PACKAGE.parent / path
        if extension is not None and extension.stat().st_mtime < source.stat().st_mtime:
            found.append(path)
    return found


def _extension(path: str) -> Path | None:
    """The extension module that this interpreter prefers to a source."""
    source = _PACKAGE.parent / path
    for suffix in EXTENSION_SUFFIXES:
        extension = source.with_name(source.stem + suffix)
        if extension.exists():
            return extension
    return None
