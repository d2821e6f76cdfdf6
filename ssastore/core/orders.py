"""What an operator tells a worker about its lost slices, by way of the control store.

recover/NODE/WORKER   an order; the worker removes it when nothing is left to recover
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ssastore.errors import ConfigError

_PREFIX = "recover/"
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


def order_name(node: str, worker: int) -> str:
    """Key of a worker's order in the control store."""
    return f"{_PREFIX}{node}/{worker}"
