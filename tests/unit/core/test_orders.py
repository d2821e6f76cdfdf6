"""An operator's order survives its way through the control store, and nothing else passes for one."""

from __future__ import annotations

import pytest

from ssastore.core.orders import MoveOrder, RecoverOrder, move_name, order_name, replace_name
from ssastore.errors import ConfigError


def test_round_trip() -> None:
    for order in (RecoverOrder(), RecoverOrder(accept_data_loss=True, rebuild=True)):
        assert RecoverOrder.decode(order.encode()) == order
    assert order_name("n2", 1) == "recover/n2/1"


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2, "accept_data_loss": false, "rebuild": false}',
        b'{"format": 1, "accept_data_loss": 1, "rebuild": false}',
        b'{"format": 1, "accept_data_loss": false, "rebuild": false, "more": 1}',
    ],
)
def test_what_is_no_order_is_refused(wrong: bytes) -> None:
    with pytest.raises(ConfigError):
        RecoverOrder.decode(wrong)


def test_orders_to_move_round_trip() -> None:
    for order in (MoveOrder({}), MoveOrder({0x1A3F: "n1", 0x2A3F: "n2"})):
        assert MoveOrder.decode(order.encode()) == order
    assert move_name("n2", 1) == "move/n2/1" and replace_name("n2", 1) == "replace/n2/1"


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{}",
        b'{"format": 2, "slices": {}}',
        b'{"format": 1, "slices": []}',
        b'{"format": 1, "slices": {"x": "n1"}}',
        b'{"format": 1, "slices": {"10000": "n1"}}',
        b'{"format": 1, "slices": {"1a3f": 1}}',
        b'{"format": 1, "slices": {}, "more": 1}',
    ],
)
def test_what_is_no_order_to_move_is_refused(wrong: bytes) -> None:
    with pytest.raises(ConfigError):
        MoveOrder.decode(wrong)
