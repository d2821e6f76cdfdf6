"""Run the suite: ``python -m tests.s3conformance DIR [--update] [--only EXPRESSION]``."""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.labs import RunningLab, running_lab
from tests.s3conformance.lists import HERE, NOT_YET, PASSES, WILL_NOT, compare, outcomes, read_list, update

FILES = ("test_s3.py", "test_headers.py")
USERS = ("main", "alt", "tenant", "iam", "iam root", "iam alt root")
DAY_S = 5
"What a day is for lifecycle rules: the suite waits for some."
SECTIONS = {"main": "s3 main", "alt": "s3 alt", "tenant": "s3 tenant"}


def settings(lab: RunningLab) -> str:
    """The suite's configuration; makes a key for each of its users."""
    lines = [
        "[DEFAULT]",
        "host = 127.0.0.1",
        f"port = {lab.s3_port}",
        "is_secure = False",
        "ssl_verify = False",
    ]
    lines += ["[fixtures]", "bucket prefix = conformance-{random}-"]
    for user in USERS:
        name = user.replace(" ", "-")
        secret = secrets.token_hex(20)
        lab.cli("key", "create", "--user", name, "--id", f"KEY-{name}", "--from-stdin", input=secret + "\n")
        lines += [f"[{SECTIONS.get(user, user)}]", f"display_name = {name}", f"user_id = {name}"]
        lines += [f"email = {name}@example.invalid", f"access_key = KEY-{name}", f"secret_key = {secret}"]
        lines += ["tenant = tenant"] if user == "tenant" else []
        lines += ["api_name =", f"lc_debug_interval = {DAY_S}"] if user == "main" else []
    return "\n".join(lines) + "\n"


def run_suite(suite: Path, lab: RunningLab, only: str, names: list[str], directory: Path) -> str:
    """The JUnit report of a run, of all files unless ``names`` are pytest's of tests."""
    found = suite / "venv" / "bin" / "python"
    python = os.environ.get("S3TESTS_PYTHON") or (str(found) if found.exists() else sys.executable)
    configuration, report = directory / "s3tests.conf", directory / "report.xml"
    configuration.write_text(settings(lab))
    command = [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-k", only] if only else []
    command += [f"s3tests/functional/{name}" for name in names or FILES]
    environment = os.environ | {"S3TEST_CONF": str(configuration), "AWS_EC2_METADATA_DISABLED": "true"}
    subprocess.run(command, cwd=suite, env=environment, check=False)
    return report.read_text()


def main() -> int:
    """0 when everything is as the lists say, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.s3conformance", description=__doc__)
    parser.add_argument("suite", type=Path, help="a checkout of ceph/s3-tests")
    parser.add_argument("--update", action="store_true", help="write the lists anew")
    parser.add_argument("--only", default="", help="pytest's -k")
    parser.add_argument("--again", action="store_true", help="those of not_yet.txt alone")
    arguments = parser.parse_args()
    if not (arguments.suite / "s3tests" / "functional").is_dir():
        parser.error(f"{arguments.suite} is no checkout of ceph/s3-tests (https://github.com/ceph/s3-tests)")
    names = [name.replace(".", ".py::", 1) for name in read_list(HERE / NOT_YET)] if arguments.again else []
    if arguments.again and not names:
        parser.error(f"{NOT_YET} names no test")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        options = ["--nodes", "4", "--replicas", "3", "--node-setting", f"lifecycle_day_s={DAY_S}"]
        with running_lab(directory, "s3tests", *options) as lab:
            found = outcomes(run_suite(arguments.suite, lab, arguments.only, names, directory))
    if arguments.update:
        update(found)
    lists = [read_list(HERE / path) for path in (PASSES, NOT_YET, WILL_NOT)]
    result = compare(found, *lists)
    print(*result.lines(), sep="\n")
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
