from __future__ import annotations

from ssastore.core.suspects import FAILURES_MIN, PROBE_EVERY_S, Suspects

HERE, BESIDE, ELSEWHERE = 0x1234 << 48, 0x1235 << 48, 0x2234 << 48


def test_failures_in_a_row_make_an_arc_suspect_until_somebody_answers() -> None:
    suspects = Suspects(lambda: 0.0)
    for _ in range(FAILURES_MIN):
        assert not suspects.is_suspect(HERE)
        suspects.failed(HERE)
    assert suspects.is_suspect(HERE) and suspects.is_suspect(BESIDE) and not suspects.is_suspect(ELSEWHERE)
    suspects.answered(BESIDE)
    assert not suspects.is_suspect(HERE)


def test_answer_between_failures_starts_the_count_again() -> None:
    suspects = Suspects(lambda: 0.0)
    for _ in range(3 * FAILURES_MIN):
        suspects.failed(HERE)
        suspects.failed(HERE)
        suspects.answered(HERE)
    assert not suspects.is_suspect(HERE)


def test_suspect_arc_is_tried_once_in_a_while() -> None:
    now = 0.0
    suspects = Suspects(lambda: now)
    for _ in range(FAILURES_MIN):
        suspects.failed(HERE)
    tried = 0
    for step in range(100):
        now = step * PROBE_EVERY_S / 10
        if not suspects.is_suspect(HERE):
            tried += 1
            suspects.failed(HERE)
    assert tried == 9
