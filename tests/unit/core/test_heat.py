"""Which slices are hot, and where: by samples of calls, and by bytes."""

from __future__ import annotations

import json
import random

from ssastore.core.heat import SAMPLE_EVERY, SAMPLES, SLICES_TOLD, Heat, Weights, hottest, pieces_of
from ssastore.core.verified import Verified
from ssastore.keyspace import SLICE_DEPTH_MAX, slice16_of, slice_of

ROUND = SAMPLES * SAMPLE_EVERY


def iid_in(slice16: int, draw: random.Random) -> int:
    return slice16 << 48 | draw.getrandbits(48)


def test_shares_of_calls_are_those_of_their_samples() -> None:
    """Of a round and a half, with a half of the calls for one slice and a third for another one."""
    heat, draw = Heat(), random.Random(3)
    for at in range(ROUND * 3 // 2):
        heat.note(iid_in((0x0A3F, 0x0A3F, 0x0A3F, 0x1B00, 0x1B00, 0x2000 + at % 97)[draw.randrange(6)], draw))
    told = heat.describe(slice16_of)
    assert (told["calls"], told["samples"]) == (ROUND * 3 // 2, SAMPLES)
    numbers = [number for number, *_ in told["slices"]]
    assert numbers[:2] == [0x0A3F, 0x1B00] and len(numbers) == SLICES_TOLD
    shares = [weight / SAMPLES for _, weight, _ in told["slices"]]
    assert 0.46 < shares[0] < 0.54 and 0.29 < shares[1] < 0.38 and shares[2] < 0.03


def test_what_was_hot_is_forgotten_with_the_next_calls() -> None:
    heat = Heat()
    for slice16 in (0x0111, 0x0222):
        for _ in range(ROUND):
            heat.note(slice16 << 48)
    assert heat.describe(slice16_of)["slices"] == [
        [0x0222, SAMPLES, [[0x02220000, SLICE_DEPTH_MAX, SAMPLES]]]
    ]


def test_nothing_is_told_before_anything_was_called() -> None:
    heat = Heat()
    assert heat.describe(slice16_of) == {"calls": 0, "samples": 0, "slices": [], "cells": ""}
    for _ in range(SAMPLE_EVERY):
        heat.note(7 << 48)
    assert heat.describe(slice16_of)["slices"] == [[7, 1, [[7 << 16, SLICE_DEPTH_MAX, 1]]]]


def test_what_is_told_of_cells_goes_through_json() -> None:
    """A gateway of the version before answers /status and /readyz with all that a worker says."""
    heat, verified = Heat(), Verified()
    heat.note(7 << 48)
    verified.add(7, 60_000)
    for told in (heat.describe(slice16_of), verified.describe({7})):
        assert json.loads(json.dumps(told)) == told


def test_pieces_are_as_fine_as_the_load_asks_for() -> None:
    """One locator has half of it, the rest is spread: none of it is told finer than a twentieth."""
    draw = random.Random(5)
    weights = {0x0A3F1234: 1000} | {0x0A3F0000 | draw.getrandbits(16): 1 for _ in range(1000)}
    pieces = pieces_of(0x0A3F, weights)
    assert sum(weight for *_, weight in pieces) == sum(weights.values())
    firsts = [first for first, *_ in pieces]
    assert firsts == sorted(firsts) and len(pieces) < 60
    assert [0x0A3F1234, SLICE_DEPTH_MAX] in [[first, depth] for first, depth, _ in pieces]
    rest = [depth for first, depth, _ in pieces if first >> 12 != 0x0A3F1]
    assert max(rest) <= 22


def test_slices_that_are_split_are_told_apart() -> None:
    low, high = (piece.first for piece in slice_of(0, 0xA3F).split())
    parts = {low >> 32: 5, high >> 32: 9}
    told = hottest(parts, lambda iid: 2 << 16 | iid >> 47)
    assert [weight for _, weight, _ in told] == [9, 5] and len({number for number, *_ in told}) == 2


def test_the_largest_slices_are_kept() -> None:
    weights = Weights()
    for number in range(1, 40):
        weights.add(number, {number << 16: number * number % 41, number << 16 | 0x8000: 1})
    sizes = sorted((number * number % 41 + 1 for number in range(1, 40)), reverse=True)
    assert [size for _, size, _ in weights.describe()] == sizes[:SLICES_TOLD]
