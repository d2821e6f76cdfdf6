"""Which form of the hot modules runs, and whether it belongs to its sources."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from ssastore import form


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with all sources, each with an extension module that is a little newer."""
    found = tmp_path / "ssastore"
    monkeypatch.setattr(form, "_PACKAGE", found)
    for name in form.paths():
        source = tmp_path / name
        source.parent.mkdir(parents=True, exist_ok=True)
        for path, at in ((source, 1000), (extension_of(source), 1001)):
            path.touch()
            os.utime(path, (at, at))
    return found


def extension_of(source: Path) -> Path:
    return source.with_name(source.stem + EXTENSION_SUFFIXES[0])


def test_every_hot_module_has_a_source() -> None:
    root = Path(form.__file__).parents[1]
    assert [path for path in form.paths() if not (root / path).is_file()] == []


def test_compiled_means_all_of_them(package: Path) -> None:
    assert form.is_compiled() and form.form() == "compiled"
    extension_of(package / "wire.py").unlink()
    assert not form.is_compiled() and form.form() == "pure Python"


def test_source_that_changed_after_it_was_compiled_is_named(package: Path) -> None:
    assert form.stale() == []
    os.utime(package / "core" / "votes.py", (1002, 1002))
    assert form.stale() == ["ssastore/core/votes.py"]


def test_sources_alone_are_never_stale(package: Path) -> None:
    for name in form.paths():
        extension_of(package.parent / name).unlink()
    assert form.stale() == []
