"""What an operator, or a plan, tells a worker, by way of the control store.

recover/NODE/WORKER           recover what is lost; removed when nothing is left to recover
move/TARGET/WORKER            take these slices over from other nodes; removed when all of them
                              are here, or none of them can come any more
replace/TARGET/WORKER         the same of slices whose owners are lost: they are recovered here
widen/TARGET/WORKER           make these slices, which groups with fewer planes do not have yet; removed
                              when all of them vote
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ssastore.core.fields import decode_fields, encode_fields, require
from ssastore.core.numbers import in_order, number_of_slice, slice_from_text, slice_name

RECOVER_PREFIX = "recover/"
MOVE_PREFIX = "move/"
REPLACE_PREFIX = "replace/"
WIDEN_PREFIX = "widen/"


@dataclass(frozen=True, slots=True)
class RecoverOrder:
    """Recover what can be recovered, now."""

    accept_data_loss: bool = False
    "Be content with the mates that answer, and with what is on this disk."
    rebuild: bool = False
    "Do not trust the state of this environment, although nothing is known against it."

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @staticmethod
    def decode(value: bytes) -> RecoverOrder:
        """Inverse of ``encode``. ConfigError: not such a record."""
        found = decode_fields(value, "order to recover", _RECOVER_FIELDS)
        require(all(type(flag) is bool for flag in found.values()), "an order to recover has booleans", found)
        return RecoverOrder(**found)


_RECOVER_FIELDS = set(RecoverOrder.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """Take slices over from other nodes. What is moving and not ordered any more is called off.

    Under a key of the second kind: recover them, as their owners are lost.  What was begun is finished.
    Under one of the third: make them, where there are none.
    """

    slices: Mapping[int, str]
    "By slice, the node that it is taken from."

    def encode(self) -> bytes:
        names = {slice_name(number): self.slices[number] for number in in_order(self.slices)}
        return encode_fields({"slices": names})

    @staticmethod
    def decode(value: bytes) -> MoveOrder:
        """Inverse of ``encode``. ConfigError: not such a record."""
        found = decode_fields(value, "order to move", {"slices"})["slices"]
        is_named = type(found) is dict and all(type(source) is str for source in found.values())
        require(is_named, "an order to move names a node for each slice", found)
        return MoveOrder({number_of_slice(slice_from_text(name)): source for name, source in found.items()})


def move_name(target: str, worker: int) -> str:
    """Key of the order to one worker to take slices over."""
    return f"{MOVE_PREFIX}{target}/{worker}"


def replace_name(target: str, worker: int) -> str:
    """Key of the order to one worker to recover slices of nodes that are lost."""
    return f"{REPLACE_PREFIX}{target}/{worker}"


def replace_name_beside(recover_key: str) -> str:
    """Key of the order to replace owners to the worker that ``recover_key`` is of."""
    return REPLACE_PREFIX + recover_key.removeprefix(RECOVER_PREFIX)


def widen_name(target: str, worker: int) -> str:
    """Key of the order to one worker to make slices of planes that groups do not have yet."""
    return f"{WIDEN_PREFIX}{target}/{worker}"


def order_name(node: str, worker: int) -> str:
    """Key of a worker's order in the control store."""
    return f"{RECOVER_PREFIX}{node}/{worker}"
