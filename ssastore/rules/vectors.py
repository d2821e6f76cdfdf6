"""Examples of every rule, for whoever writes another implementation: the same numbers for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ssastore.keyspace import FRONT_PLANE, POSITION_BITS, is_reserved_position
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, token_of
from ssastore.rules.rule import Rule, rule_from_text
from ssastore.rules.verdict import check

RULES = (
    "random",
    "content",
    "source",
    "source+choices:4",
    "source+hop:30",
    "keyed",
    "keyed+choices:16+hop:30",
    "pow:8",
    "pow:8+hop:30",
    "source+choices:4+pow:8+hop:30",
    "keyed+pow:8",
    "content+source",
    "content+source+hop:5",
    "content+keyed",
    "content+source+pow:8",
    "content+keyed+pow:8+hop:30",
    "random+source",
    "random+keyed+hop:30",
    "source+keyed",
    "keyed+source+choices:2",
    "match",
    "low:12",
    "inverted:12",
    "inverted:59",
)


@dataclass(frozen=True, slots=True)
class Vector:
    """The inputs of one address; integers as in ``address_under``."""

    rule: Rule
    plane: int
    source: int
    free: int
    position: int
    epoch: int
    public: bytes
    secret: bytes

    @property
    def client_keys(self) -> ClientKeys:
        return ClientKeys(self.public, token_of(self.secret, self.source))

    @property
    def service_keys(self) -> ServiceKeys:
        return ServiceKeys((self.public,), (self.secret,))

    def iid(self) -> int:
        """The address that they give."""
        return address_under(
            self.rule,
            self.plane,
            self.source,
            free=self.free,
            position=self.position,
            epoch=self.epoch,
            keys=self.client_keys,
        )


def vectors(rule: Rule, count: int, seed: int) -> Iterator[Vector]:
    """Inputs drawn from SHA-256 of the rule, the seed and a number: planes 0, 2 and f in turn."""
    for number in range(count):
        # 64 bytes: words of 64 bits for the integers, then both keys.
        drawn = b"".join(sha256(f"{rule}/{seed}/{number}/{half}".encode()).digest() for half in "ab")
        source, free, place, time = (int.from_bytes(drawn[at : at + 8], "big") for at in (0, 8, 16, 24))
        position = place >> 64 - POSITION_BITS
        yield Vector(
            rule=rule,
            plane=(FRONT_PLANE, 0, 2)[number % 3],
            source=source,
            free=free,
            position=position ^ 1 << 40 if is_reserved_position(position) else position,
            epoch=time >> 32 if rule.hop_s else 0,
            public=drawn[32:48],
            secret=drawn[48:64],
        )


def changed(vector: Vector, iid: int) -> Iterator[tuple[str, int, int, int]]:
    """What a sender can get wrong, or an observer replay: (what, source, IID, epoch of the check)."""
    yield "as it is", vector.source, iid, vector.epoch
    yield "last bit of the tail", vector.source, iid ^ 1, vector.epoch
    yield "last bit of the locator", vector.source, iid ^ 1 << 32, vector.epoch
    yield "another source", vector.source ^ 1, iid, vector.epoch
    yield "the next epoch", vector.source, iid, vector.epoch + 1
    yield "two epochs later", vector.source, iid, vector.epoch + 2
    yield "another plane", vector.source, iid ^ 1 << 60, vector.epoch
    yield "a reserved identifier", vector.source, 0x02005EFFFE005212, vector.epoch


def as_json(count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` vectors of each rule, each with the verdicts on its address and on what is like it.

    Numbers are hexadecimal text as in an address.  "name" says whether the checker knew the position.
    """
    return [_entry(vector) for text in RULES for vector in vectors(rule_from_text(text), count, seed)]


def _entry(vector: Vector) -> dict[str, Any]:
    iid = vector.iid()
    verdicts = []
    for what, source, changed_iid, epoch in changed(vector, iid):
        for position in (None, vector.position) if vector.rule.needs_name else (None,):
            verdict = check(
                vector.rule, source, changed_iid, epoch=epoch, keys=vector.service_keys, position=position
            )
            verdicts.append(
                {
                    "what": what,
                    "source": f"{source:016x}",
                    "iid": f"{changed_iid:016x}",
                    "epoch": epoch,
                    "name": position is not None,
                    "verdict": str(verdict),
                }
            )
    return {
        "rule": str(vector.rule),
        "plane": f"{vector.plane:x}",
        "source": f"{vector.source:016x}",
        "free": f"{vector.free:016x}",
        "position": f"{vector.position:015x}",
        "epoch": vector.epoch,
        "public": vector.public.hex(),
        "secret": vector.secret.hex(),
        "token": vector.client_keys.token.hex(),
        "iid": f"{iid:016x}",
        "verdicts": verdicts,
    }
