"""Whether an identifier keeps the rule: by source and destination of one packet, with no state of clients."""

from __future__ import annotations

from enum import StrEnum

from ssastore.keyspace import POSITION_BITS, TAIL_BITS, is_reserved_iid, locator_of, plane_of
from ssastore.rules.address import (
    bound_locator,
    has_worked,
    hashed_iid,
    hashed_locator,
    is_unbound,
    matching_iid,
    unreserved,
    wanted_bits,
)
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.rule import HASHED, Binding, Rule

_TAIL_MASK = (1 << TAIL_BITS) - 1


class Verdict(StrEnum):
    """What a check says of a destination; all but the first two mean that the packet breaks the rule."""

    KEPT = "kept"
    "The address shows that its sender kept the rule."
    OPEN = "open"
    "Nothing in the address can break the rule: it is random, or follows a name that nobody shows."
    RESERVED = "reserved"
    "No interface may use this identifier (RFC 5453)."
    PLANE = "plane"
    "No such plane in this service."
    LOCATOR = "locator"
    "The locator is not one of this client's, or not the name's."
    TAIL = "tail"
    "The locator is right, and the tail is not."

    @property
    def is_break(self) -> bool:
        """Whether the rule is broken."""
        return self not in (Verdict.KEPT, Verdict.OPEN)


def check(
    rule: Rule, source: int, iid: int, *, epoch: int = 0, keys: ServiceKeys, position: int | None = None
) -> Verdict:
    """The verdict on a packet from ``source`` (the 64 bits of its prefix) to ``iid``.

    ``epoch`` is the checker's own, from ``rule.epoch_at``.  With ``position`` (60 bits; who has read the
    request knows it) what follows the name is judged too.
    """
    if is_reserved_iid(iid):
        return Verdict.RESERVED
    plane, locator = plane_of(iid), locator_of(iid)
    if rule.locator is Binding.MATCH:
        return Verdict.KEPT if iid == matching_iid(plane, source) else Verdict.LOCATOR
    if rule.low_bits:
        if position is None:
            return Verdict.OPEN
        wanted = wanted_bits(rule, position)
        return Verdict.KEPT if iid & ((1 << rule.low_bits) - 1) == wanted else Verdict.TAIL
    if rule.locator is Binding.CONTENT and position is not None:
        if locator != bound_locator(plane, position >> TAIL_BITS):
            return Verdict.LOCATOR
        if rule.tail is Binding.CONTENT:
            named = unreserved(locator << TAIL_BITS | position & _TAIL_MASK)
            return Verdict.KEPT if iid == named else Verdict.TAIL
    if not rule.is_hashed:
        return Verdict.OPEN
    return Verdict.LOCATOR if is_unbound(iid) else _hashed(rule, source, iid, epoch, keys)


def _hashed(rule: Rule, source: int, iid: int, epoch: int, keys: ServiceKeys) -> Verdict:
    tokens = keys.tokens(source) if Binding.KEYED in (rule.locator, rule.tail) else ()
    verdict = Verdict.LOCATOR
    # Locator and tail must be of the same epoch; each may be of any key in use.
    for allowed in rule.epochs_allowed(epoch):
        if rule.locator in HASHED and not any(
            locator_of(iid) == hashed_locator(key, plane_of(iid), source, allowed, choice)
            for key in (keys.public if rule.locator is Binding.SOURCE else tokens)
            for choice in range(rule.choices)
        ):
            continue
        for key in keys.public if rule.tail is Binding.SOURCE else tokens:
            if rule.work_bits:
                kept = has_worked(key, source, allowed, iid, rule.work_bits)
            else:
                kept = iid == hashed_iid(key, source, allowed, locator_of(iid))
            if kept:
                return Verdict.KEPT
        verdict = Verdict.TAIL
    return verdict


def blind_rate(rule: Rule, keys: ServiceKeys) -> float:
    """The part of all IIDs of a plane that pass for one source: how often a guess gets through."""
    if rule.locator is Binding.MATCH:
        return 2.0**-POSITION_BITS
    if not rule.is_hashed:
        return 1.0
    in_use = {Binding.SOURCE: len(keys.public), Binding.KEYED: len(keys.secrets)}
    rate = float(len(rule.epochs_allowed(1)))
    if rule.locator in HASHED:
        rate *= in_use[rule.locator] * rule.choices / 2**28
    return rate * in_use[rule.tail] * 2.0 ** -(rule.work_bits or TAIL_BITS)


def stranger_rate(rule: Rule, keys: ServiceKeys) -> float:
    """The same for somebody who computes what everybody can, of any source: all but tokens."""
    rate = float(len(rule.epochs_allowed(1))) if rule.is_hashed else 1.0
    if rule.locator is Binding.KEYED:
        rate *= len(keys.secrets) * rule.choices / 2**28
    if rule.tail is Binding.KEYED:
        rate *= len(keys.secrets) * 2.0 ** -(rule.work_bits or TAIL_BITS)
    return min(1.0, rate)
