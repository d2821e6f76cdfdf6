"""Group records of slices that are handed over from one node to another. Pure.

    begin     ACTIVE(X, e)           -> MOVING(X, Y, h), h = e+1     placement is checked for the whole group
    finish    MOVING(X, Y, h)        -> ACTIVE(Y, h+1)               Y has everything, durably
    cancel    MOVING(X, Y, h)        -> ACTIVE(X, h+1)               Y drops what it has

Each is one compare-and-set of the group's key, so of finish and cancel exactly one wins.
The configuration stays what it is: seen from the protocol the acceptor is the address,
not the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ssastore.core.groups import ACTIVE, MOVING, GroupRecord, PlaneOwner
from ssastore.errors import ConfigError


def begin_move(
    record: GroupRecord, plane: int, target: str, target_env: int, zones: Mapping[str, str]
) -> GroupRecord:
    """The record in which a plane is being handed over.

    Args:
        zones: zone by node name; empty where a node has none.

    Raises:
        ConfigError: a slice of the group is recovered or moved already, or the target may not own the plane.
    """
    where = f"group {record.group:03x}"
    record.check_idle(-1, f"{where} recovers or moves one slice at a time")
    require_target(record, record.owners, plane, target, zones)
    found = record.planes[plane]
    moving = PlaneOwner(
        found.owner, found.epoch + 1, MOVING, found.env, found.complete_epoch, target, target_env
    )
    return record.replaced(plane, moving, record.cfg)


def require_target(
    record: GroupRecord, owners: Sequence[str], plane: int, target: str, zones: Mapping[str, str]
) -> None:
    """ConfigError unless a node may own a plane of a group when these own its planes, whatever moves now."""
    where = f"group {record.group:03x}"
    others = [owner for p, owner in enumerate(owners) if p != plane]
    if target not in zones:
        raise ConfigError(f"{where} cannot go to {target}, an unknown node")
    if target in owners:
        raise ConfigError(f"{where} has a plane at {target} already")
    shared = [owner for owner in others if zones[target] and zones.get(owner) == zones[target]]
    if shared and are_zones_apart(zones, len(owners)):
        raise ConfigError(f"{where} has a plane in zone {zones[target]} already, at {shared[0]}")


def finish_move(record: GroupRecord, plane: int) -> GroupRecord:
    """The record in which the target votes. ConfigError: the plane is not being moved."""
    found = _moving(record, plane)
    if found.target_plane:
        raise ConfigError(f"plane {plane} of group {record.group:03x} is copied, not moved")
    active = PlaneOwner(found.target, found.epoch + 1, ACTIVE, found.target_env)
    return record.replaced(plane, active, record.cfg)


def cancel_move(record: GroupRecord, plane: int) -> GroupRecord:
    """The record in which the source votes as before. ConfigError: the plane is not being moved."""
    return record.replaced(plane, called_off(_moving(record, plane)), record.cfg)


def called_off(found: PlaneOwner) -> PlaneOwner:
    """A plane that is MOVING, as it is when it stays where it is."""
    return replace(found, epoch=found.epoch + 1, state=ACTIVE, target="", target_env=0, target_plane=0)


def _moving(record: GroupRecord, plane: int) -> PlaneOwner:
    found = record.planes[plane]
    if found.state != MOVING:
        raise ConfigError(f"plane {plane} of group {record.group:03x} is not being moved")
    return found


def are_zones_apart(zones: Mapping[str, str], replicas: int) -> bool:
    """Whether there are enough zones for every plane of a group to have its own, as for a first layout."""
    return len({zone for zone in zones.values() if zone}) >= replicas
