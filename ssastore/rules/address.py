"""The identifier that a client uses under a rule: the same inputs give the same bits everywhere."""

from __future__ import annotations

from ssastore.errors import ConfigError
from ssastore.keyspace import (
    FRONT_PLANE,
    IID_BITS,
    LOCATOR_BITS,
    PLANE_BITS,
    POSITION_BITS,
    TAIL_BITS,
    is_reserved_iid,
    locator_of,
)
from ssastore.rules.hashes import ClientKeys, hash_of
from ssastore.rules.rule import Binding, Rule

_POSITION_MASK = (1 << POSITION_BITS) - 1
_TAIL_MASK = (1 << TAIL_BITS) - 1
_LOCATOR_SHIFT = IID_BITS - (LOCATOR_BITS - PLANE_BITS)
UNBOUND_END = 1 << 24
"Front plane: locators (28 bits) below this are for clients that know no rule, addresses ``f0xx:``."
_RESERVED_FLIP = 0x01000080
_FREE_BIT = 1 << POSITION_BITS - 1


def bound_locator(plane: int, bits: int) -> int:
    """The top 32 bits of an IID for 28 bits below the plane digit.

    In the front plane the first sixteenth is left to clients that know no rule.
    """
    if plane == FRONT_PLANE:
        bits = UNBOUND_END + (bits * 15 >> 4)
    return plane << LOCATOR_BITS - PLANE_BITS | bits


def unreserved(iid: int) -> int:
    """``iid``, or its neighbour with two bits of the tail flipped if no interface may use it (RFC 5453)."""
    return iid ^ _RESERVED_FLIP if is_reserved_iid(iid) else iid


def hashed_locator(key: bytes, plane: int, source: int, epoch: int, choice: int) -> int:
    """The top 32 bits of the IID of a client's ``choice``."""
    return bound_locator(plane, hash_of(key, source, "L", epoch, choice) >> _LOCATOR_SHIFT)


def hashed_iid(key: bytes, source: int, epoch: int, locator: int) -> int:
    """The IID under a locator (top 32 bits) whose tail is hashed."""
    tail = hash_of(key, source, "T", epoch, locator << TAIL_BITS) & _TAIL_MASK
    return unreserved(locator << TAIL_BITS | tail)


def matching_iid(plane: int, source: int) -> int:
    """The IID of rule ``match``: locator and tail are the low 60 bits of the client's prefix."""
    locator = bound_locator(plane, (source & _POSITION_MASK) >> TAIL_BITS)
    return unreserved(locator << TAIL_BITS | source & _TAIL_MASK)


def has_worked(key: bytes, source: int, epoch: int, iid: int, work_bits: int) -> bool:
    """Whether the tail of ``iid`` is a nonce with this many zero bits in front of its hash."""
    return hash_of(key, source, "P", epoch, iid) >> (IID_BITS - work_bits) == 0


def wanted_bits(rule: Rule, position: int) -> int:
    """The low bits that LOW and INVERTED want for an object at ``position``."""
    mask = (1 << rule.low_bits) - 1
    return (position ^ mask if rule.locator is Binding.INVERTED else position) & mask


def address_under(
    rule: Rule,
    plane: int,
    source: int,
    *,
    free: int = 0,
    position: int | None = None,
    epoch: int = 0,
    keys: ClientKeys,
) -> int:
    """The IID (64 bits) that a client in ``source`` (the 64 bits of its prefix) uses.

    ``free`` is 64 uniform bits: what is random, which of the choices, where the search for a nonce begins.
    ``position`` (60 bits) is the object's.  ``epoch`` is from ``rule.epoch_at``; a rule that does not hop
    ignores it.

    Raises:
        ConfigError: the rule needs a position or a token that is not given.
    """
    if rule.needs_name and position is None:
        raise ConfigError(f"rule {rule} needs the name of an object")
    place = position or 0
    epoch = epoch if rule.hop_s else 0
    if rule.locator is Binding.MATCH:
        return matching_iid(plane, source)
    if rule.low_bits:
        return _low_bits(rule, plane, free, place)
    locator = _locator(rule, plane, source, free, place, epoch, keys)
    if rule.work_bits:
        return _with_nonce(rule, source, epoch, locator, free & _TAIL_MASK, keys)
    if rule.tail is Binding.RANDOM:
        return unreserved(locator << TAIL_BITS | free & _TAIL_MASK)
    if rule.tail is Binding.CONTENT:
        return unreserved(locator << TAIL_BITS | place & _TAIL_MASK)
    return hashed_iid(_key(rule.tail, keys), source, epoch, locator)


def _locator(rule: Rule, plane: int, source: int, free: int, place: int, epoch: int, keys: ClientKeys) -> int:
    if rule.locator is Binding.RANDOM:
        return bound_locator(plane, free >> _LOCATOR_SHIFT)
    if rule.locator is Binding.CONTENT:
        return bound_locator(plane, place >> TAIL_BITS)
    choice = (free >> TAIL_BITS) % rule.choices
    return hashed_locator(_key(rule.locator, keys), plane, source, epoch, choice)


def _with_nonce(rule: Rule, source: int, epoch: int, locator: int, nonce: int, keys: ClientKeys) -> int:
    key = _key(rule.tail, keys)
    while True:
        iid = locator << TAIL_BITS | nonce
        if has_worked(key, source, epoch, iid, rule.work_bits) and not is_reserved_iid(iid):
            return iid
        nonce = (nonce + 1) & _TAIL_MASK


def _low_bits(rule: Rule, plane: int, free: int, place: int) -> int:
    random_bits = free & _POSITION_MASK & ~((1 << rule.low_bits) - 1)
    iid = plane << POSITION_BITS | random_bits | wanted_bits(rule, place)
    return iid ^ _FREE_BIT if is_reserved_iid(iid) else iid


def _key(binding: Binding, keys: ClientKeys) -> bytes:
    if binding is Binding.SOURCE:
        return keys.public
    if not keys.token:
        raise ConfigError("the rule is keyed: a token is needed (ssastore rule token)")
    return keys.token


def is_unbound(iid: int) -> bool:
    """Whether this is an address for clients that know no rule: the first sixteenth of the front plane."""
    return locator_of(iid) >> 24 == FRONT_PLANE << 4
