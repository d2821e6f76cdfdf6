"""What is published: the files in it, and that it works where nothing else is.

Without a network: the environment gets the wheel and exactly what it says that it needs, copied from here.
"""

from __future__ import annotations

import importlib.metadata as metadata
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ssastore.errors import NamespaceRefused
from ssastore.lab.namespaces import in_new_namespaces
from tests.lab.shared import processes_with
from tests.labs import PYTHON, free_port

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]


def build(source: Path, target: Path) -> tuple[Path, Path]:
    """sdist and wheel of a checkout, as ``python -m build`` makes them."""
    command = [PYTHON, "-m", "hatchling", "build", "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)
    (sdist,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(REPOSITORY, tmp_path_factory.mktemp("dist"))


def needed(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """A distribution and all that it needs without extras, by name."""
    if name not in found:
        found[name] = metadata.distribution(name)
        for requirement in map(Requirement, found[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def command(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``ssastore`` of an environment that has the wheel and what it needs."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    for distribution in needed("ssastore", {}).values():
        if distribution.metadata["Name"] == "ssastore":
            continue
        for file in distribution.files or ():
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                # With its time, or bytecode that comes along would be made anew, by each process.
                shutil.copy2(str(distribution.locate_file(file)), site / file)
    offline = ["--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile", str(built[1])]
    pip = [PYTHON, "-m", "pip", "--quiet", "--python", str(place / "bin" / "python"), "install", *offline]
    subprocess.run(pip, check=True, timeout=60)
    yield place / "bin" / "ssastore"


def test_the_wheel_has_licence_types_console_and_filter_and_no_tests(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        head = HeaderParser().parsestr(wheel.read(f"{info}/METADATA").decode())
        licence = wheel.read(f"{info}/licenses/LICENSE").decode()
    assert {
        "ssastore/py.typed",
        "ssastore/console/static/index.html",
        "ssastore/filter/filter.bpf.c",
    } <= names
    data = info.replace(".dist-info", ".data")
    assert {name.partition("/")[0] for name in names} == {"ssastore", info, data}
    assert f"{data}/data/share/ssastore/init.d/ssastore" in names, (
        "docs/how-to/deploy.md installs it from there"
    )
    assert head["Version"] == metadata.version("ssastore") and head["License-Expression"] == "Apache-2.0"
    assert "Apache License" in licence and head["Requires-Python"] == ">=3.11"
    tracked = subprocess.run(
        ["git", "ls-files", "ssastore"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert {name for name in names if name.startswith("ssastore/")} == set(tracked.stdout.split())


def test_the_sdist_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", built[0], "-C", tmp_path], check=True)
    (source,) = tmp_path.iterdir()
    assert {"LICENSE", "CHANGELOG.md", "SECURITY.md", "tests", "docs", "Makefile"} <= set(os.listdir(source))
    _, wheel = build(source, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as second, zipfile.ZipFile(built[1]) as first:
        assert {(i.filename, i.CRC) for i in second.infolist()} == {
            (i.filename, i.CRC) for i in first.infolist()
        }


def test_the_demo_runs_from_the_wheel_alone(command: Path, tmp_path: Path) -> None:
    """The whole tour: it ends with 0 only when no call failed and every object is as it was stored."""
    try:
        in_new_namespaces(bool)
    except NamespaceRefused as error:
        pytest.skip(str(error))
    (tmp_path / "tmp").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    ports = ["--s3-port", str(free_port()), "--admin-port", str(free_port()), "--short"]
    done = subprocess.run(
        [command, "demo", "--unattended", *ports],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("ready in", "plane 2", "via ", "n4", "slices have their new owner", "healthy"):
        assert shown in done.stdout, shown
    assert "failed calls 0" in done.stdout and "acknowledged writes lost 0" in done.stdout
    assert str(command.parents[1]) != sys.prefix and not list((tmp_path / "tmp").iterdir())
    assert not processes_with(str(tmp_path))
