"""Where a running filter takes orders: a socket in the abstract namespace, of its own network namespace.

It has no file, so nothing is left of a filter that was killed, and who asks is told that none runs.
Requests and answers are one JSON object each.  Only root is answered.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable
from struct import unpack
from typing import Any

from ssastore.errors import ConfigError, SsaStoreError
from ssastore.filter.bpf import FilterRefused
from ssastore.filter.classes import Reason
from ssastore.filter.kernel import Filter
from ssastore.filter.orders import ORDER_S_MAX, REASONS, order_from

_REQUEST_BYTES_MAX = 1024
_ANSWER_BYTES_MAX = 1_000_000
_PATIENCE_S = 0.5
"For one request: the filter does nothing else meanwhile, though packets are judged."
_ASKER_PATIENCE_S = 5.0


def _address(interface: str) -> str:
    return f"\0ssastore-filter-{interface}"


class Desk:
    """Takes orders for one filter, one at a time."""

    def __init__(self, judging: Filter, interface: str) -> None:
        """Raises FilterRefused: a filter runs at this interface already."""
        self._judging = judging
        self._attack_ends_at = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(_address(interface))
        except OSError:
            self._socket.close()
            raise FilterRefused(f"a filter runs at {interface} already") from None
        self._socket.listen(4)

    def serve(self, for_s: float) -> None:
        """Take requests for that long, and end what is over."""
        until = time.monotonic() + for_s
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                asking, _ = self._socket.accept()
            except (TimeoutError, InterruptedError):
                break
            with asking:
                self._answer(asking)
        self._judging.orders()
        if self._attack_ends_at and time.monotonic() > self._attack_ends_at:
            self._set_attack(0.0)

    def close(self) -> None:
        """Take no more."""
        self._socket.close()

    def _answer(self, asking: socket.socket) -> None:
        if _user_of(asking) != 0:
            return  # Nobody else is waited for.
        try:
            asking.settimeout(_PATIENCE_S)
            answer = self._do(json.loads(asking.recv(_REQUEST_BYTES_MAX)))
        except (SsaStoreError, ValueError, KeyError, TypeError, AttributeError) as error:
            answer = {"error": str(error)}
        except OSError:
            return  # It said nothing.
        try:
            asking.sendall(json.dumps(answer).encode())
        except OSError:
            pass  # Who has gone does not want to know.

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "inject": self._inject,
            "withdraw": self._withdraw,
            "attack": self._attack,
            "show": self._show,
        }
        return actions[request["do"]](request)

    def _inject(self, request: dict[str, Any]) -> dict[str, Any]:
        order, for_s = order_from(request), _seconds(request)
        reason = Reason(request["reason"])
        if reason not in REASONS:
            raise ConfigError(f"no reason of an order: {reason}")
        self._judging.order(order, reason, for_s)
        return {"order": str(order), "reason": reason, "for_s": for_s}

    def _withdraw(self, request: dict[str, Any]) -> dict[str, Any]:
        order = order_from(request)
        if not self._judging.withdraw(order):
            raise ConfigError(f"there is no order {order}")
        return {"order": str(order)}

    def _attack(self, request: dict[str, Any]) -> dict[str, Any]:
        self._set_attack(_seconds(request) if request["on"] else 0.0)
        return {}

    def _set_attack(self, for_s: float) -> None:
        self._attack_ends_at = time.monotonic() + for_s if for_s else 0.0
        self._judging.set_attack(for_s > 0)

    def _show(self, request: dict[str, Any]) -> dict[str, Any]:
        standing = [
            {"order": str(order), "reason": reason, "for_s": round(left_s, 1)}
            for order, (reason, left_s) in self._judging.orders().items()
        ]
        left_s = max(0.0, self._attack_ends_at - time.monotonic()) if self._attack_ends_at else 0.0
        counts = self._judging.counts() | self._judging.queue_counts()
        return {"attack_for_s": round(left_s, 1), "orders": standing, "counts": counts}


def _seconds(request: dict[str, Any]) -> float:
    for_s = float(request["for_s"])
    if not (math.isfinite(for_s) and 0 < for_s <= ORDER_S_MAX):
        raise ConfigError(f"an order stands for at most {ORDER_S_MAX} s, got {for_s:g}")
    return for_s


def _user_of(connected: socket.socket) -> int:
    """Who is at the other end; in a user namespace that is none of ours, nobody."""
    user: int = unpack("=3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return user


def ask(interface: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the filter that runs at an interface; its answer.

    Raises:
        FilterRefused: none runs there, in this network namespace, it refused, or who asks is not root.
    """
    if os.geteuid() != 0:
        raise FilterRefused("only root gives orders to a filter")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ASKER_PATIENCE_S)
        try:
            asking.connect(_address(interface))
            # Anybody in the network namespace may have taken the name, where no filter runs.
            if _user_of(asking) != 0:
                raise FilterRefused(f"what answers for the filter at {interface} is no process of root's")
            asking.sendall(json.dumps(request).encode())
            text = b""
            while len(text) < _ANSWER_BYTES_MAX and (piece := asking.recv(65536)):
                text += piece
        except ConnectionRefusedError:
            raise FilterRefused(
                f"no filter runs at {interface} in this network namespace (ssastore filter run)"
            ) from None
        except OSError as error:
            raise FilterRefused(f"the filter at {interface} does not answer: {error}") from None
    answer: dict[str, Any] = json.loads(text or b'{"error": "it ended"}')
    if "error" in answer:
        raise FilterRefused(f"the filter at {interface}: {answer['error']}")
    return answer
