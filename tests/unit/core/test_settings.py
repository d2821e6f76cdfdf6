"""Settings of the cluster: what is no such record is refused, and two who change them lose nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ssastore.control.memory import MemoryControlStore
from ssastore.core.settings import MoveSettings, change_move_settings, read_move_settings
from ssastore.errors import ConfigError
from ssastore.limits import MOVE_BYTES_PER_S


def test_round_trip_and_defaults() -> None:
    for settings in (MoveSettings(), MoveSettings(5 << 20, is_paused=True)):
        assert MoveSettings.decode(settings.encode()) == settings
    assert MoveSettings.of(None) == MoveSettings()
    assert MoveSettings().is_gentle and not MoveSettings(5 << 20).is_gentle
    assert MoveSettings().bound < MOVE_BYTES_PER_S and MoveSettings(5 << 20).bound == 5 << 20


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b'{"format": 2, "bytes_per_s": 1048576, "is_paused": false}',
        b'{"format": 1, "bytes_per_s": 1, "is_paused": false}',
        b'{"format": 1, "bytes_per_s": -1, "is_paused": false}',
        b'{"format": 1, "bytes_per_s": false, "is_paused": false}',
        b'{"format": 1, "bytes_per_s": 1048576, "is_paused": 0}',
        b'{"format": 1, "bytes_per_s": 1048576}',
    ],
)
def test_what_are_no_settings_of_moves_is_refused(wrong: bytes) -> None:
    with pytest.raises(ConfigError):
        MoveSettings.decode(wrong)


async def test_two_who_change_different_things_at_once_both_get_them() -> None:
    control = MemoryControlStore()
    await asyncio.gather(
        change_move_settings(control, lambda known: replace(known, is_paused=True)),
        change_move_settings(control, lambda known: replace(known, bytes_per_s=7 << 20)),
    )
    assert await read_move_settings(control) == MoveSettings(7 << 20, is_paused=True)
