"""Control store against kernel against BGP: what differs, for how long, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from ssastore.console.truth import (
    NO_SESSION,
    NOT_ACCEPTED,
    NOT_ANNOUNCED,
    NOT_OWNED,
    NOT_READ,
    NOT_TO_ANNOUNCE,
    Difference,
    Truth,
    Wanted,
    differences,
)
from ssastore.core.cluster import NodeRecord
from ssastore.core.planner import initial_layout, owned_slices
from ssastore.keyspace import minimal_cover, service_network
from tests.cluster import SERVICE

A, B, C = "fd00:0:0:1:1000::/68", "fd00:0:0:1:2000::/68", "fd00:0:0:1:3000::/68"
LISTED: dict[str, Any] = {"accepted": [A, B], "sent_on": [], "announced": None, "neighbours": {}, "why": ""}
ROUTER = "fd00::1"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, []),
        ({"accepted": [A]}, [(NOT_ACCEPTED, B)]),
        ({"accepted": [A, B, C]}, [(NOT_OWNED, C)]),
        ({"accepted": [A], "sent_on": [B]}, [(NOT_ACCEPTED, B)]),
        ({"announced": [A, B]}, []),
        ({"announced": [A]}, [(NOT_ANNOUNCED, B)]),
        ({"announced": [A, B, C]}, [(NOT_TO_ANNOUNCE, C)]),
        ({"accepted": [A], "announced": [A]}, [(NOT_ACCEPTED, B)]),
        ({"announced": [A, B], "neighbours": {ROUTER: "Established"}}, []),
        ({"announced": [A, B], "neighbours": {ROUTER: "Idle"}}, [(NO_SESSION, ROUTER)]),
        ({"accepted": [], "why": "permission denied"}, [(NOT_READ, "permission denied")]),
    ],
)
def test_each_kind_of_difference(said: dict[str, Any], found: list[tuple[str, str]]) -> None:
    got = list(differences("n1", {A, B}, LISTED | said))
    assert [(difference.kind, difference.what) for difference in got] == found
    assert all("n1" in difference.words and difference.what in difference.words for difference in got)


def test_who_keeps_no_routes_differs_in_nothing() -> None:
    assert list(differences("n1", {A}, None)) == []


def look(truth: Truth, now_ms: int, said: Any, *, is_heard: bool = True) -> dict[str, Any]:
    return truth.look({"n1": {A, B}}, lambda _: (is_heard, said), now_ms)


def test_a_difference_is_red_when_it_is_still_there_and_remembered_when_it_ends() -> None:
    truth = Truth()
    first = look(truth, 1000, LISTED | {"accepted": [A]})["differences"]
    assert [(one["what"], one["is_red"]) for one in first] == [(B, False)]
    (second,) = look(truth, 7000, LISTED | {"accepted": [A]})["differences"]
    assert second["is_red"] and second["since_ms"] == 1000 and "ssastore doctor" in second["words"]
    told = look(truth, 9000, LISTED)
    assert told["differences"] == [] and told["count"] == 0
    assert told["ended"] == [
        {**Difference("n1", NOT_ACCEPTED, B)._asdict(), "since_ms": 1000, "ended_ms": 9000}
    ]


def test_what_is_seen_once_was_a_move_on_its_way() -> None:
    truth = Truth()
    look(truth, 1000, LISTED | {"accepted": [A, B, C]})
    assert look(truth, 3000, LISTED)["ended"] == []


def test_rows_tell_counts_and_what_nobody_can_say() -> None:
    (row,) = look(Truth(), 1, LISTED | {"sent_on": [C]})["nodes"]
    assert (row["wanted"], row["accepted"], row["sent_on"], row["announced"]) == (2, 2, 1, None)
    (row,) = look(Truth(), 1, None, is_heard=False)["nodes"]
    assert not row["is_heard"] and row["accepted"] is None


def test_what_is_wanted_are_the_fewest_prefixes_in_every_service() -> None:
    nodes = [NodeRecord(f"n{at}", f"fd00::{at}") for at in (1, 2, 3, 4)]
    groups = {record.group: record for record in initial_layout(nodes, 3)}
    services = [service_network(SERVICE), service_network("fd00:9:9:9::/64")]
    wanted = Wanted().of(["n1", "n9"], groups, services)
    pieces = minimal_cover(owned_slices(groups.values(), "n1"))
    assert wanted == {"n1": {str(p.network(s)) for p in pieces for s in services}, "n9": set()}
