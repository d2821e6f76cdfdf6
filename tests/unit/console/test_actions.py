"""What is done through the console is what the commands do: it is in the control store afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssastore.core.settings import read_move_settings
from ssastore.rebalance import ordered_moves, read_cluster
from tests.desks import Desk


@pytest.fixture
async def inside(desk: Desk) -> AsyncIterator[Desk]:
    """Somebody who has logged in."""
    await desk.post("/console/login", {"code": desk.code()})
    yield desk


async def act(desk: Desk, name: str, **more: Any) -> dict[str, Any]:
    status, said = await desk.post("/console/act", {"act": name, **more})
    assert status == 200, said
    return said


async def test_moves_are_paused_held_to_a_rate_and_resumed(inside: Desk) -> None:
    assert "paused; 0 slices" in (await act(inside, "pause"))["said"]
    assert (await read_move_settings(inside.control)).is_paused
    assert "32 MiB/s" in (await act(inside, "rate", rate=" 32M"))["said"]
    assert (await read_move_settings(inside.control)).bytes_per_s == 32 << 20
    assert "gentle" in (await act(inside, "rate", rate="gentle"))["said"]
    await act(inside, "resume")
    settings = await read_move_settings(inside.control)
    assert not settings.is_paused and settings.is_gentle


async def test_a_drain_is_shown_and_then_done_and_can_be_called_off(inside: Desk) -> None:
    shown = await act(inside, "drain", node="n2")
    assert "leave n2" in shown["said"] and not await ordered_moves(inside.control)
    said = (await act(inside, "apply", node="n2", made_for=shown["made_for"]))["said"]
    moves = await ordered_moves(inside.control)
    owned = sum("n2" in record.owners for record in (await read_cluster(inside.control)).groups)
    assert len([source for _, source, _ in moves if source == "n2"]) == owned > 0
    assert said.startswith(f"{len(moves)} slices are ordered")
    assert (await act(inside, "abort"))["said"] == f"{len(moves)} moves called off"
    assert not await ordered_moves(inside.control)


async def test_a_drain_of_another_ownership_than_was_shown_is_refused(inside: Desk) -> None:
    status, said = await inside.post("/console/act", {"act": "apply", "node": "n2", "made_for": "ab" * 16})
    assert status == 409 and "has changed" in said["error"]
    assert not await ordered_moves(inside.control)


async def test_a_scrub_is_begun_and_the_silent_are_named(inside: Desk) -> None:
    assert (await act(inside, "scrub"))["said"] == "begun by 1 workers; no answer from n2 worker 0"


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"act": "format"}, 404, "no act"),
        ({}, 404, "no act"),
        ({"act": ["pause"]}, 404, "no act"),
        ({"act": "rate", "rate": "fast"}, 409, "no number of bytes"),
        ({"act": "rate"}, 409, "no number of bytes"),
        ({"act": "rate", "rate": "1"}, 409, "not in the range"),
        ({"act": "drain", "node": "n9"}, 409, "no node n9"),
        ({"act": "drain"}, 409, "no node"),
    ],
)
async def test_what_cannot_be_done(inside: Desk, asked: dict[str, Any], status: int, why: str) -> None:
    found, said = await inside.post("/console/act", asked)
    assert found == status and why in said["error"]
