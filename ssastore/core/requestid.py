"""One id for all that a request of a client brings about, on every host that it touches. Pure.

It travels in the request id of the native protocol, which is any integer of the caller's and comes back as it
was: nothing is added to a message, and who knows nothing of it passes it on.

    bit 63     62      61 ... 16     15 ... 0
    traced     told    random        number on its connection

A request without an id of this kind has a number alone.  *Told*: nodes write a line about each part
of such a request, and keep it for Report (``transport.told``).  The 12 digits of the upper 48 bits are what
people see: ``x-amz-request-id``, and ``id`` in logs of gateways and nodes.
"""

from __future__ import annotations

from contextvars import ContextVar

from ssastore.env import Randomness

NUMBER_BITS = 16
"More than a connection has requests under way (``limits.INFLIGHT_REQUESTS_MAX``)."
TRACED = 1 << 63
TOLD = 3 << 62

_ID_BITS = 64 - NUMBER_BITS
_RANDOM_BITS = _ID_BITS - 2

REQUEST: ContextVar[int] = ContextVar("ssastore_request", default=0)
"Upper 48 bits of the id on whose behalf this task works; 0: of none."


def new_id(randomness: Randomness, *, is_told: bool = False) -> int:
    """The upper 48 bits of a new id."""
    random = int.from_bytes(randomness.bytes(8), "big") >> (64 - _RANDOM_BITS)
    return (TOLD if is_told else TRACED) >> NUMBER_BITS | random


def told(upper: int) -> int:
    """The same id, of a request that is told. Its name begins with another digit."""
    return upper | TOLD >> NUMBER_BITS


def upper_of(request_id: int) -> int:
    """What a request of the native protocol is a part of; 0: of nothing that is known."""
    return request_id >> NUMBER_BITS if request_id >= TRACED else 0


def name_of(upper: int) -> str:
    """As people see it: 12 hexadecimal digits, the first of them 8 or more; empty for none."""
    return f"{upper:012X}" if upper else ""
