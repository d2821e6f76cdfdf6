"""S3 libraries and programs as they come, with no setting but endpoint, region and path style.

The programs are in ``tests/clients``; what they need is in an environment of its own: ``make setup-clients``.
"""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.shared import files_of, module_lab, run_tool, s3_client, tool_environment, write_tree
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"
CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "clients", "--nodes", "4", "--workers", "1") as found:
        yield found


@pytest.mark.parametrize("program", sorted(path.stem for path in CLIENTS.glob("[!_]*.py")))
def test_library_works_as_it_says(lab: RunningLab, tmp_path: Path, program: str) -> None:
    if not CLIENTS_PYTHON.exists():
        pytest.skip("S3 libraries are absent: make setup-clients")
    environment = tool_environment(lab, tmp_path) | {"BUCKET": program.replace("_", "-")}
    s3_client(lab).create_bucket(Bucket=environment["BUCKET"])
    run_tool([str(CLIENTS_PYTHON), str(CLIENTS / f"{program}.py")], environment)


def test_restic_backs_up_checks_restores_and_forgets(lab: RunningLab, tmp_path: Path) -> None:
    if shutil.which("restic") is None:
        pytest.skip("restic is absent")
    environment = tool_environment(lab, tmp_path)
    environment["RESTIC_REPOSITORY"] = f"s3:{environment['AWS_ENDPOINT_URL']}/restic"
    environment["RESTIC_PASSWORD"] = "for this test"
    tree, back = write_tree(tmp_path / "tree"), tmp_path / "back"

    def restic(*arguments: str) -> str:
        return run_tool(["restic", "--no-cache", *arguments], environment)

    restic("init")
    restic("backup", str(tree))
    (tree / "more").write_bytes(b"more")
    restic("backup", str(tree))
    restic("forget", "--keep-last", "1", "--prune")
    assert "no errors were found" in restic("check", "--read-data")
    restic("restore", "latest", "--target", str(back))
    assert files_of(back / tree.relative_to("/")) == files_of(tree)


def test_aws_moves_syncs_and_presigns(lab: RunningLab, tmp_path: Path) -> None:
    environment = tool_environment(lab, tmp_path)
    tree, back = write_tree(tmp_path / "tree"), tmp_path / "back"

    def aws(*arguments: str) -> str:
        return run_tool([PYTHON, "-m", "awscli", "s3", *arguments], environment)

    aws("mb", "s3://aws-more")
    aws("sync", "--quiet", str(tree), "s3://aws-more/t")
    assert aws("sync", "--dryrun", str(tree), "s3://aws-more/t") == ""
    (tree / "a.txt").unlink()
    aws("sync", "--quiet", "--delete", str(tree), "s3://aws-more/t")
    aws("mv", "--quiet", "--recursive", "s3://aws-more/t", "s3://aws-more/u")
    aws("sync", "--quiet", "s3://aws-more/u", str(back))
    assert files_of(back) == files_of(tree)
    url = aws("presign", "s3://aws-more/u/deep/b.bin").strip()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == (tree / "deep/b.bin").read_bytes()
    aws("rb", "--force", "s3://aws-more")
