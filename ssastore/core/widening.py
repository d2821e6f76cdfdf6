"""Group records that get one more plane (ADR 0018). Pure.

    one plane        begin_fill     plane 0: ACTIVE(X, e) -> MOVING(X, Y, h), for plane 1      h = e+1
                     finish_fill    plane 0: ACTIVE(X, h+1), plane 1: ACTIVE(Y, h+1)           next cfg
    more planes      begin_plane    one more plane: RECOVERING(Y)                              next cfg

Each is one compare-and-set of the group's key.  A plane that is alone is a majority: who is to be the
second one needs all that it has, and must have it before anything is decided without the first.  So plane 1
is filled as in a handover, from a source that votes no more when the record gets its new form; both of them
are a majority of two from then on.  Any later plane is one of several, of which the others are a majority
without it: it begins as one that has lost everything, and is recovered.

The number of planes is bound to the configuration: no cfg ever had two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssastore.core.groups import ACTIVE, GROUP_NAMES, MOVING, RECOVERING, GroupRecord, PlaneOwner
from ssastore.core.moving import are_zones_apart
from ssastore.errors import ConfigError
from ssastore.keyspace import PLANES_MAX

FILLED_PLANE = 1
"The plane that is filled from another one."


def begin_fill(record: GroupRecord, target: str, target_env: int, zones: Mapping[str, str]) -> GroupRecord:
    """The record in which the only plane of a group is handed over for a second one.

    Args:
        zones: zone by node name; empty where a node has none.

    Raises:
        ConfigError: the group is split, recovered or moved, has more planes, or the target may have none.
    """
    require_place(record, target, zones)
    if len(record.planes) != FILLED_PLANE:
        raise ConfigError(f"group {GROUP_NAMES[record.group]} has more than one plane: none is filled")
    found = record.planes[0]
    filling = replace(
        found,
        epoch=found.epoch + 1,
        state=MOVING,
        since=found.complete_epoch,
        target=target,
        target_env=target_env,
        target_plane=FILLED_PLANE,
    )
    return record.replaced(0, filling, record.cfg)


def finish_fill(record: GroupRecord) -> GroupRecord:
    """The record in which source and target are two planes. ConfigError: it is not being filled."""
    found = record.planes[0]
    if found.state != MOVING or not found.target_plane:
        raise ConfigError(f"group {GROUP_NAMES[record.group]} is not being given a plane")
    epoch = found.epoch + 1
    source = replace(found, epoch=epoch, state=ACTIVE, target="", target_env=0, target_plane=0)
    filled = PlaneOwner(found.target, epoch, ACTIVE, found.target_env)
    return GroupRecord(record.group, (source, filled), record.next_cfg)


def begin_plane(record: GroupRecord, owner: str, env: int, zones: Mapping[str, str]) -> GroupRecord:
    """The record in which ``env`` rebuilds a plane that the group did not have.

    Disks may hold standings of such a plane nevertheless, if the control store was made anew from a record
    before it (``core.rebuilding``).  Its first epoch is the number of its configuration, which is new: what
    was begun under an earlier one, and became complete, is not taken for it.

    Raises:
        ConfigError: the group is split, recovered or moved, has one plane, or the owner may have none.
    """
    require_place(record, owner, zones)
    if len(record.planes) <= FILLED_PLANE:
        raise ConfigError(f"group {GROUP_NAMES[record.group]} has one plane: the second one is filled")
    begun = PlaneOwner(owner, record.next_cfg, RECOVERING, env)
    return GroupRecord(record.group, (*record.planes, begun), record.next_cfg)


def require_place(record: GroupRecord, owner: str, zones: Mapping[str, str]) -> None:
    """ConfigError unless a group may get one more plane now, at this node."""
    where = f"group {GROUP_NAMES[record.group]}"
    if record.split is not None:
        raise ConfigError(f"{where} is split: its parts are merged before it gets another plane")
    record.check_idle(-1, f"{where} recovers or moves one slice at a time")
    if len(record.planes) == PLANES_MAX:
        raise ConfigError(f"{where} has {PLANES_MAX} planes, and there are no more")
    if owner not in zones:
        raise ConfigError(f"{where} cannot have a plane at {owner}, an unknown node")
    if owner in record.owners:
        raise ConfigError(f"{where} has a plane at {owner} already")
    shared = [other for other in record.owners if zones[owner] and zones.get(other) == zones[owner]]
    if shared and are_zones_apart(zones, len(record.planes) + 1):
        raise ConfigError(f"{where} has a plane in zone {zones[owner]} already, at {shared[0]}")
