"""S3 tools as they come: aws, rclone and s3cmd copy a small tree there and back, list it and delete it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.shared import files_of, module_lab, run_tool, tool_environment, write_tree
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "tools", "--nodes", "2", "--workers", "1") as found:
        yield found


@dataclass
class Tool:
    """One S3 tool, told where the lab is."""

    run: Callable[..., str]
    make: tuple[str, ...]
    send: tuple[str, ...]
    "TREE stands for the directory that is sent, BACK for the one that is fetched to."
    fetch: tuple[str, ...]
    listing: tuple[str, ...]
    names_of: Callable[[str], set[str]]
    "Keys below ``t/`` in the output of ``listing``."
    delete: tuple[str, ...]
    remove: tuple[str, ...]


def find(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is absent")
    return path


def last_words(text: str, mark: str) -> set[str]:
    return {line.partition(mark)[2] for line in text.splitlines()}


def aws(lab: RunningLab, home: Path) -> Tool:
    environment = tool_environment(lab, home)
    command = [PYTHON, "-m", "awscli", "s3"]
    return Tool(
        run=lambda *arguments: run_tool([*command, *arguments], environment),
        make=("mb", "s3://aws"),
        send=("cp", "--quiet", "--recursive", "TREE", "s3://aws/t/"),
        fetch=("cp", "--quiet", "--recursive", "s3://aws/t/", "BACK"),
        listing=("ls", "--recursive", "s3://aws/"),
        names_of=lambda text: last_words(text, " t/"),
        delete=("rm", "--quiet", "--recursive", "s3://aws/t/"),
        remove=("rb", "s3://aws"),
    )


def rclone(lab: RunningLab, home: Path) -> Tool:
    """Settings by environment: a remote named ``lab``."""
    environment = tool_environment(lab, home)
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENV_AUTH": "true",
        "ENDPOINT": environment["AWS_ENDPOINT_URL"],
        "REGION": environment["AWS_DEFAULT_REGION"],
    }
    environment |= {f"RCLONE_CONFIG_LAB_{name}": value for name, value in settings.items()}
    environment["RCLONE_CONFIG"] = str(home / "rclone.conf")
    command = [find("rclone"), "--retries", "1"]
    return Tool(
        run=lambda *arguments: run_tool([*command, *arguments], environment),
        make=("mkdir", "lab:rclone"),
        send=("copy", "TREE", "lab:rclone/t"),
        fetch=("copy", "lab:rclone/t", "BACK"),
        listing=("lsf", "-R", "--files-only", "lab:rclone"),
        names_of=lambda text: last_words(text, "t/"),
        delete=("delete", "lab:rclone/t"),
        remove=("rmdir", "lab:rclone"),
    )


def s3cmd(lab: RunningLab, home: Path) -> Tool:
    environment = tool_environment(lab, home)
    host = environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    settings = {
        "access_key": environment["AWS_ACCESS_KEY_ID"],
        "secret_key": environment["AWS_SECRET_ACCESS_KEY"],
        "host_base": host,
        "host_bucket": host,
        "bucket_location": environment["AWS_DEFAULT_REGION"],
        "use_https": "False",
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (home / "s3cfg").write_text("\n".join(["[default]", *lines, ""]))
    command = [find("s3cmd"), "--config", str(home / "s3cfg"), "--no-progress"]
    return Tool(
        run=lambda *arguments: run_tool([*command, *arguments], environment),
        make=("mb", "s3://s3cmd"),
        send=("sync", "TREE/", "s3://s3cmd/t/"),
        fetch=("sync", "s3://s3cmd/t/", "BACK/"),
        listing=("ls", "--recursive", "s3://s3cmd"),
        names_of=lambda text: last_words(text, "s3://s3cmd/t/"),
        delete=("del", "--recursive", "--force", "s3://s3cmd/t/"),
        remove=("rb", "s3://s3cmd"),
    )


@pytest.mark.parametrize("make_tool", [aws, rclone, s3cmd])
def test_tree_goes_there_and_back(
    lab: RunningLab, tmp_path: Path, make_tool: Callable[[RunningLab, Path], Tool]
) -> None:
    """The files hold spaces, signs, non-ASCII letters, nothing, and more than one part."""
    tool = make_tool(lab, tmp_path)
    tree, back = write_tree(tmp_path / "tree"), tmp_path / "back"
    back.mkdir()
    places = {"TREE": str(tree), "TREE/": f"{tree}/", "BACK": str(back), "BACK/": f"{back}/"}

    def run(arguments: tuple[str, ...]) -> str:
        return tool.run(*[places.get(argument, argument) for argument in arguments])

    run(tool.make)
    run(tool.send)
    assert tool.names_of(run(tool.listing)) == set(files_of(tree))
    run(tool.fetch)
    assert files_of(back) == files_of(tree)
    run(tool.delete)
    assert run(tool.listing) == ""
    run(tool.remove)
    assert make_tool.__name__ not in lab.cli("ls").stdout.split()


def test_rclone_finds_no_difference(lab: RunningLab, tmp_path: Path) -> None:
    """``check`` compares the MD5 of every file with the ETag, ``--download`` the bytes."""
    tool = rclone(lab, tmp_path)
    tree = write_tree(tmp_path / "tree")
    tool.run("mkdir", "lab:checked")
    tool.run("sync", str(tree), "lab:checked/t")
    tool.run("check", str(tree), "lab:checked/t")
    tool.run("check", "--download", str(tree), "lab:checked/t")
    tool.run("purge", "lab:checked")
