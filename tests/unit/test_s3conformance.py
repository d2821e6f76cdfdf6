"""What a run of the conformance suite is compared with, and how the lists are written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.s3conformance.lists import HERE, NOT_YET, PASSES, WILL_NOT, compare, outcomes, read_list, update

REPORT = """<testsuites><testsuite>
<testcase classname="s3tests.functional.test_s3" name="test_good"/>
<testcase classname="s3tests.functional.test_s3" name="test_bad"><failure message="x"/></testcase>
<testcase classname="s3tests.functional.test_s3" name="test_left"><skipped/></testcase>
<testcase classname="s3tests.functional.test_s3" name="test_messy"/>
<testcase classname="s3tests.functional.test_s3" name="test_messy"><error message="teardown"/></testcase>
</testsuite></testsuites>"""

FOUND = {
    "test_s3.test_good": "passed",
    "test_s3.test_bad": "failed",
    "test_s3.test_left": "skipped",
    "test_s3.test_messy": "failed",
}


def test_outcomes_of_a_report() -> None:
    """A teardown that fails makes a failure of a test that passed."""
    assert outcomes(REPORT) == FOUND


def test_a_run_is_compared() -> None:
    names = list(FOUND)
    good = compare(FOUND, {names[0]: ""}, {names[1]: "", names[2]: ""}, {names[3]: "why"})
    assert good.is_good and (good.passed, good.failed, good.skipped) == (1, 2, 1)
    worse = compare(FOUND, {names[1]: ""}, {names[0]: ""}, {})
    assert (worse.broken, worse.better) == ([names[1]], [names[0]])
    assert worse.unlisted == sorted(names[2:]) and not worse.is_good


def test_lists_are_written_anew(tmp_path: Path) -> None:
    (tmp_path / WILL_NOT).write_text("# a chapter\ntest_s3.test_messy  # for a reason\n")
    (tmp_path / NOT_YET).write_text("test_s3.test_good\ntest_s3.test_old  # known\n")
    (tmp_path / PASSES).write_text("test_s3.test_bad\n")
    update(FOUND, tmp_path)
    assert list(read_list(tmp_path / PASSES)) == ["test_s3.test_good"]
    assert read_list(tmp_path / NOT_YET) == {
        "test_s3.test_bad": "",
        "test_s3.test_left": "",
        "test_s3.test_old": "known",
    }


def test_our_lists_have_every_test_once_and_reasons() -> None:
    lists = [read_list(HERE / name) for name in (PASSES, NOT_YET, WILL_NOT)]
    for number, names in enumerate(lists):
        for other in lists[number + 1 :]:
            assert not set(names) & set(other)
    assert all(lists[2].values()), "a test that we will not pass has a reason"


@pytest.mark.parametrize("name", [PASSES, NOT_YET, WILL_NOT])
def test_a_list_names_no_test_twice(name: str) -> None:
    lines = (HERE / name).read_text().splitlines()
    names = [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]
    assert len(names) == len(set(names))
