"""What an operator, or a plan, tells a worker, by way of the control store.

recover/NODE/WORKER           recover what is lost; removed when nothing is left to recover
move/TARGET/WORKER            take these slices over from other nodes; removed when all of them
                              are here, or none of them can come any more
replace/TARGET/WORKER         the same of slices whose owners are lost: they are recovered here
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ssastore.core.numbers import in_order, number_of_slice, slice_from_text, slice_name
from ssastore.errors import ConfigError

_PREFIX = "recover/"
MOVE_PREFIX = "move/"
REPLACE_PREFIX = "replace/"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RecoverOrder:
    """Recover what can be recovered, now."""

    accept_data_loss: bool = False
    "Be content with the mates that answer, and with what is on this disk."
    rebuild: bool = False
    "Do not trust the state of this environment, although nothing is known against it."

    def encode(self) -> bytes:
        return json.dumps({"format": _FORMAT, **asdict(self)}).encode()

    @staticmethod
    def decode(value: bytes) -> RecoverOrder:
        """Inverse of ``encode``. ConfigError: not such a record."""
        try:
            found = json.loads(value)
            is_known = found.pop("format") == _FORMAT
            order = RecoverOrder(**found)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"an order to recover: not such a record: {error}") from error
        if not is_known or type(order.accept_data_loss) is not bool or type(order.rebuild) is not bool:
            raise ConfigError("an order to recover: another format, or no booleans")
        return order


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """Take slices over from other nodes. What is moving and not ordered any more is called off.

    Under a key of the other kind: recover them, as their owners are lost.  What was begun is finished.
    """

    slices: Mapping[int, str]
    "By slice, the node that it is taken from."

    def encode(self) -> bytes:
        names = {slice_name(number): self.slices[number] for number in in_order(self.slices)}
        return json.dumps({"format": _FORMAT, "slices": names}).encode()

    @staticmethod
    def decode(value: bytes) -> MoveOrder:
        """Inverse of ``encode``. ConfigError: not such a record."""
        try:
            found = json.loads(value)
            is_known = found.pop("format") == _FORMAT and found.keys() == {"slices"}
            slices = {
                number_of_slice(slice_from_text(name)): source for name, source in found["slices"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"an order to move: not such a record: {error}") from error
        if not is_known or not all(type(source) is str for source in slices.values()):
            raise ConfigError("an order to move: another format, or no slices")
        return MoveOrder(slices)


def move_name(target: str, worker: int) -> str:
    """Key of the order to one worker to take slices over."""
    return f"{MOVE_PREFIX}{target}/{worker}"


def replace_name(target: str, worker: int) -> str:
    """Key of the order to one worker to recover slices of nodes that are lost."""
    return f"{REPLACE_PREFIX}{target}/{worker}"


def order_name(node: str, worker: int) -> str:
    """Key of a worker's order in the control store."""
    return f"{_PREFIX}{node}/{worker}"
