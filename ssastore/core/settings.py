"""What an operator sets for the whole cluster, by way of the control store.

setting/moves      MoveSettings       how fast slices move, and whether they do
setting/recovery   RecoverySettings   when what a lost node had is recovered at others

Absent: as the defaults say.  Workers look every few seconds, so nothing is restarted for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from ssastore.core.fields import decode_fields, encode_fields, require, require_int
from ssastore.env import Compare, ControlStore, Item, Write
from ssastore.limits import (
    MOVE_BYTES_PER_S,
    MOVE_BYTES_PER_S_MAX,
    MOVE_BYTES_PER_S_MIN,
    MOVE_REST_TO_WORK,
    MOVE_SLICE_S,
    RECOVER_AFTER_S,
    RECOVER_AFTER_S_MAX,
    RECOVER_AFTER_S_MIN,
)

SETTING_PREFIX = "setting/"
MOVE_SETTINGS_KEY = SETTING_PREFIX + "moves"
RECOVERY_SETTINGS_KEY = SETTING_PREFIX + "recovery"


@dataclass(frozen=True, slots=True)
class MoveSettings:
    """How fast slices move."""

    bytes_per_s: int = 0
    """What one worker takes from others, at most, all its moves together, as fast as that goes; 0: gently,
    with rests (``limits.MOVE_REST_TO_WORK``), so that clients hardly notice."""
    is_paused: bool = False
    "Nothing is begun, and what is not sealed yet is called off; its order stays."

    def __post_init__(self) -> None:
        if self.bytes_per_s != 0 or type(self.bytes_per_s) is not int:
            require_int("bytes_per_s", self.bytes_per_s, MOVE_BYTES_PER_S_MIN, MOVE_BYTES_PER_S_MAX)
        require(type(self.is_paused) is bool, "is_paused must be true or false", self.is_paused)

    @property
    def is_gentle(self) -> bool:
        """Whether clients come first."""
        return self.bytes_per_s == 0

    @property
    def bound(self) -> int:
        """Bytes a second that one worker cannot exceed."""
        return self.bytes_per_s or MOVE_BYTES_PER_S // (1 + MOVE_REST_TO_WORK)

    @property
    def slice_s(self) -> float:
        """Seconds that a slice costs a worker however small it is, about: for telling how long moves take."""
        return MOVE_SLICE_S * (1 + MOVE_REST_TO_WORK if self.is_gentle else 1)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> MoveSettings:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return MoveSettings(**decode_fields(value, "settings of moves", _MOVE_FIELDS))

    @staticmethod
    def of(item: Item | None) -> MoveSettings:
        """Of what is there, or the defaults. ConfigError: not such a record."""
        return MoveSettings() if item is None else MoveSettings.decode(item.value)


_MOVE_FIELDS = set(MoveSettings.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """What is done by itself about a node that is gone."""

    after_s: int = RECOVER_AFTER_S
    "How long it must be gone until its slices are recovered at others; 0: for ever."

    def __post_init__(self) -> None:
        if self.after_s != 0 or type(self.after_s) is not int:
            require_int("after_s", self.after_s, RECOVER_AFTER_S_MIN, RECOVER_AFTER_S_MAX)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> RecoverySettings:
        """Inverse of ``encode``. ConfigError: not such a record."""
        return RecoverySettings(**decode_fields(value, "settings of recoveries", _RECOVERY_FIELDS))

    @staticmethod
    def of(item: Item | None) -> RecoverySettings:
        """Of what is there, or the defaults. ConfigError: not such a record."""
        return RecoverySettings() if item is None else RecoverySettings.decode(item.value)


_RECOVERY_FIELDS = set(RecoverySettings.__dataclass_fields__)


async def read_move_settings(control: ControlStore) -> MoveSettings:
    """As they are now. Raises ConfigError, Unavailable."""
    return MoveSettings.of(await control.get(MOVE_SETTINGS_KEY))


async def change_move_settings(
    control: ControlStore, change: Callable[[MoveSettings], MoveSettings]
) -> MoveSettings:
    """Change them, whatever others change meanwhile; as they are then. Raises ConfigError, Unavailable."""
    while True:
        item = await control.get(MOVE_SETTINGS_KEY)
        wanted = change(MoveSettings.of(item))
        compare = Compare(MOVE_SETTINGS_KEY, item.revision if item is not None else 0)
        if await control.transact([compare], [Write(MOVE_SETTINGS_KEY, wanted.encode())]) is not None:
            return wanted
