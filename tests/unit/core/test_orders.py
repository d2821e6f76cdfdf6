"""An operator's order survives its way through the control store, and nothing else passes for one."""

from __future__ import annotations

import pytest

from ssastore.core.orders import RecoverOrder, order_name
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
