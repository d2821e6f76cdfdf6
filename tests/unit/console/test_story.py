from __future__ import annotations

from collections import Counter

from ssastore.console.ownership import Mark
from ssastore.console.story import DAY_MS, MARKS_MAX, Story

MOVED = Mark("moved", "n1", "n2")
MINUTE_MS = 60_000


def test_marks_are_told_once_and_by_the_minute_for_a_day() -> None:
    story = Story()
    story.add(MINUTE_MS + 5, Counter({MOVED: 3}))
    story.add(MINUTE_MS + 9, Counter({MOVED: 4, Mark("lost", "n1", "n1"): 1}))
    assert story.since(0) == [
        [MINUTE_MS + 5, *MOVED, 3],
        [MINUTE_MS + 9, *MOVED, 4],
        [MINUTE_MS + 9, "lost", "n1", "n1", 1],
    ]
    assert [mark[-1] for mark in story.since(1)] == [4, 1] and story.since(story.number) == []
    assert story.by_minute(0) == [[MINUTE_MS, "lost", "", "", 1], [MINUTE_MS, "moved", "", "", 7]]
    story.add(MINUTE_MS + DAY_MS + MINUTE_MS, Counter({MOVED: 1}))
    assert [mark[-1] for mark in story.by_minute(0)] == [1]


def test_only_so_many_are_kept_one_by_one() -> None:
    story = Story()
    for at_ms in range(2 * MARKS_MAX):
        story.add(at_ms, Counter({MOVED: 1}))
    assert len(story.since(0)) == MARKS_MAX and story.number == 2 * MARKS_MAX
    assert story.by_minute(-1) == [[0, "moved", "", "", 2 * MARKS_MAX]]
