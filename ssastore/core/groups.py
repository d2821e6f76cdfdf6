"""Who owns a group, as one record under one key: so every change of it is one compare-and-set. Pure.

    group/a3f      GroupRecord    who owns the slices of group a3f, or those of its parts

Who votes for a plane is an *environment* of its owner: the one that the record names,
or, where it names none, the first one that the owner's worker ever had.  A recovery
changes it:

    ACTIVE(old) --begin_recovery--> RECOVERING(new) --finish_recovery--> ACTIVE(new)
       epoch e, cfg c                 e+1, c+1                              e+2, c+1

``begin_recovery`` of a slice that is RECOVERING already starts over, for an environment
that was lost as well.  It may name another node: that is the owner from then on, and the former one is
nobody, whether it comes back or not.  A slice that is handed over goes another way (``core.moving``):

    ACTIVE(X) ---- begin_move ----> MOVING(X, Y) ---- finish_move ----> ACTIVE(Y)
     epoch e                            e+1           cancel_move: ACTIVE(X)   e+2

The epoch of MOVING is the number h of the handover: no other has it.  One slice of a
group at a time is recovered or moved.

A group that is split (``core.recut``) has a second format, with all its parts under the one key.
They share the numbers of configurations: none is used twice in a group, whatever the part, so that
no fence of one part is mistaken for that of another one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from ssastore.core.fields import decode_fields, encode_fields, exact_fields, is_match, require, require_int
from ssastore.core.numbers import (
    group_of_part,
    is_part_number,
    number_of_part,
    part_piece,
    slice_from_text,
    slice_number,
)
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, PLANES_MAX, SLICE_DEPTH_MIN
from ssastore.limits import GROUP_PARTS_MAX

GROUP_PREFIX = "group/"

ACTIVE = "ACTIVE"
RECOVERING = "RECOVERING"
MOVING = "MOVING"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"Of a node."
NAME_RULE = "1 to 63 of A-Z a-z 0-9 . _ -, letter or digit first"
GROUP_NAMES = tuple(f"{group:03x}" for group in range(GROUPS))

_ENV_ID = re.compile(r"[0-9a-f]{8}")
_GROUP_OF_KEY = {GROUP_PREFIX + name: group for group, name in enumerate(GROUP_NAMES)}
_GROUP_OF_NAME = {name: group for group, name in enumerate(GROUP_NAMES)}


def group_key(group: int) -> str:
    """Key of a group's record."""
    return GROUP_PREFIX + GROUP_NAMES[group]


def group_of_key(key: str) -> int | None:
    """Inverse of ``group_key``; None when it is no such key."""
    return _GROUP_OF_KEY.get(key)


@dataclass(frozen=True, slots=True)
class PlaneOwner:
    """Who answers for one plane of a group."""

    owner: str
    "Name of a node."
    epoch: int = 1
    "Raised by every change of owner or state."
    state: str = ACTIVE
    env: int = 0
    "Id of the environment that votes, or is being recovered; 0: the owner's first one."
    since: int = 0
    "The epoch that the data of ``env`` must be complete for; 0: this one. Moves that are begun leave it."
    target: str = ""
    "Of a slice that is MOVING: the node that it is handed over to."
    target_env: int = 0
    "And the environment there."
    target_plane: int = 0
    "Where the plane itself stays, and its target makes another one of it: which (``core.widening``)."

    @property
    def complete_epoch(self) -> int:
        """What the standing of the environment that votes must say."""
        return self.since or self.epoch

    @property
    def is_first(self) -> bool:
        """As it was when the cluster was formed: nothing but the owner's name is told."""
        is_plain = self.state == ACTIVE and not (self.since or self.target or self.target_plane)
        return is_plain and self.epoch == 1 and not (self.env or self.target_env)

    def __post_init__(self) -> None:
        if not (type(self.owner) is str and self.owner and type(self.epoch) is int and self.epoch >= 1):
            raise ConfigError(
                f"an owner needs a name and an epoch from 1, got {self.owner!r}, {self.epoch!r}"
            )
        if self.state not in (ACTIVE, RECOVERING, MOVING):
            raise ConfigError(f"this version knows no slice state {self.state!r}")
        require_int("env", self.env, 0, (1 << 32) - 1)
        if self.state == ACTIVE and not (self.since or self.target or self.target_env or self.target_plane):
            return  # As nearly all are.
        is_named = self.state != RECOVERING or self.env > 0
        require(is_named, "what is recovered names its environment", self.env)
        require_int("since", self.since, 0, self.epoch)
        require_int("target_env", self.target_env, 0, (1 << 32) - 1)
        is_name = self.target == "" or is_match(NAME, self.target)
        require(is_name, f"target must be {NAME_RULE}", self.target)
        has_target = bool(self.target) and self.target_env > 0 and self.since > 0
        is_plain = not (self.target or self.target_env or self.target_plane)
        require_int("target_plane", self.target_plane, 0, PLANES_MAX - 1)
        require(
            has_target if self.state == MOVING else is_plain,
            "what is moved, and nothing else, names its target",
            self.target,
        )


_is_first = attrgetter("is_first")


class PartRecord(NamedTuple):
    """Who owns one part of a group that is split, plane 0 first."""

    part: int
    "Its number (``core.numbers``)."
    planes: tuple[PlaneOwner, ...]
    cfg: int


class Merging(NamedTuple):
    """A merge that was begun (``core.recut``)."""

    part: int
    "What there will be in the place of the parts inside."
    ready: tuple[int, ...]
    "By plane, the environment that is ready for it; 0: not yet."


@dataclass(frozen=True, slots=True)
class Split:
    """What the record of a split group has besides: all its parts, and which of them it is looked at from."""

    parts: tuple[PartRecord, ...]
    "In address order; together they are the group."
    part: int
    next_cfg: int
    "The next number, for whatever part: none is used twice in a group."
    merging: Merging | None = None


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """Who owns a group, plane 0 first.

    Of a group that is split ``planes`` and ``cfg`` are those of one part, and what is changed is that
    part; it is the record of all of them nevertheless.  ``views`` has one for each, ``at`` that of a part.
    """

    group: int
    planes: tuple[PlaneOwner, ...]
    cfg: int = 1
    "Number of the configuration; every recovery takes the next one."
    split: Split | None = None
    is_untouched: bool = field(init=False, compare=False, repr=False)
    "Nothing was ever recovered or split. Found once: a start judges some thousand slices."

    def __post_init__(self) -> None:
        require_int("group", self.group, 0, GROUPS - 1)
        require_int("cfg", self.cfg, 1, 1 << 63)
        # 2 and 4 while it is given more (``core.widening``).
        require_int("planes of a group", len(self.planes), 1, PLANES_MAX)
        untouched = self.cfg == 1 and all(map(_is_first, self.planes))
        object.__setattr__(self, "is_untouched", untouched and self.split is None)

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of the owners, plane 0 first."""
        return tuple([plane.owner for plane in self.planes])

    @property
    def part(self) -> int:
        """The number of the part that it is looked at from; of a group that is not split, its own."""
        return self.group if self.split is None else self.split.part

    @property
    def parts(self) -> tuple[PartRecord, ...]:
        """All of them, in address order."""
        if self.split is None:
            return (PartRecord(self.group, self.planes, self.cfg),)
        return self.split.parts

    @property
    def next_cfg(self) -> int:
        """The next number of a configuration: none is used twice in a group, whatever the part."""
        return self.cfg + 1 if self.split is None else self.split.next_cfg

    @property
    def merging(self) -> Merging | None:
        """The merge that was begun and is not finished."""
        return None if self.split is None else self.split.merging

    def views(self) -> tuple[GroupRecord, ...]:
        """The record as it is seen from each part, in address order."""
        return (self,) if self.split is None else _views(self)

    def at(self, part: int) -> GroupRecord | None:
        """The record as it is seen from a part; None: there is no such part now."""
        if self.part == part:
            return self
        return next((view for view in self.views() if view.part == part), None)

    def slices(self) -> list[int]:
        """The numbers of all slices of the group."""
        return [slice_number(plane, found.part) for found in self.parts for plane in range(len(found.planes))]

    def encode(self) -> bytes:
        name = GROUP_NAMES[self.group]
        if self.split is None:
            planes = [_encode_plane(plane) for plane in self.planes]
            return encode_fields({"group": name, "cfg": self.cfg, "planes": planes})
        return encode_fields({"group": name, **_encode_split(self.split)}, 2)

    def begin_recovery(self, plane: int, env: int, owner: str = "") -> GroupRecord:
        """The record in which ``env`` is rebuilding a plane whose state was lost.

        A move of the plane ends with it.

        Args:
            owner: the node of ``env``, if it is another one than the plane's owner: the plane is its own now.

        Raises:
            ConfigError: another plane of the group is recovered or moved, or the new owner has one.
        """
        where = f"group {GROUP_NAMES[self.group]}"
        self.check_idle(plane, f"{where} recovers one slice at a time")
        found = self.planes[plane]
        owner = owner or found.owner
        others = [other for at, other in enumerate(self.owners) if at != plane]
        require(owner not in others, f"two planes of {where} cannot be at one node", owner)
        return self.replaced(plane, PlaneOwner(owner, found.epoch + 1, RECOVERING, env), self.next_cfg)

    def finish_recovery(self, plane: int) -> GroupRecord:
        """The record in which the environment that was rebuilt votes. ConfigError: it was not begun."""
        found = self.planes[plane]
        require(found.state == RECOVERING, "only what is being recovered can be finished", found.state)
        return self.replaced(plane, replace(found, state=ACTIVE, epoch=found.epoch + 1), self.cfg)

    def check_idle(self, plane: int, rule: str) -> None:
        """ConfigError when another slice of the group is recovered or moved, or parts are merged."""
        busy = [
            p
            for found in self.parts
            for p, owner in enumerate(found.planes)
            if owner.state != ACTIVE and (found.part, p) != (self.part, plane)
        ]
        require(not busy and self.merging is None, rule, busy or "a merge")

    def replaced(self, plane: int, changed: PlaneOwner, cfg: int) -> GroupRecord:
        """The record with another plane in the place of one, of the part that it is looked at from."""
        planes = (*self.planes[:plane], changed, *self.planes[plane + 1 :])
        if self.split is None:
            return GroupRecord(self.group, planes, cfg)
        own = PartRecord(self.part, planes, cfg)
        parts = tuple([own if found.part == own.part else found for found in self.parts])
        split = replace(self.split, parts=parts, next_cfg=max(self.next_cfg, cfg + 1))
        return GroupRecord(self.group, planes, cfg, split)

    @staticmethod
    @lru_cache(maxsize=2 * GROUPS)
    def decode(value: bytes) -> GroupRecord:
        """Inverse of ``encode``, as it is seen from the first part. ConfigError: not such a record."""
        fields = decode_fields(value, "group record", _GROUP_FIELDS, _SPLIT_FIELDS)
        group = _GROUP_OF_NAME.get(fields["group"]) if type(fields["group"]) is str else None
        if group is None:
            raise ConfigError(f"group record: no such group {fields['group']!r}")
        if "parts" in fields:
            return _decode_split(group, fields)
        return GroupRecord(group, _decode_planes(fields["planes"]), fields["cfg"])


def split_record(group: int, split: Split) -> GroupRecord:
    """A record of parts, as it is seen from ``split.part``; of one that is the whole group, without parts.

    ConfigError: they are not the group, each position once, or too many.
    """
    if [found.part for found in split.parts] == [group]:
        return GroupRecord(group, split.parts[0].planes, split.parts[0].cfg)
    at, end = part_piece(group).first, part_piece(group).end
    for found in split.parts:
        is_part = is_part_number(found.part) and group_of_part(found.part) == group
        piece = part_piece(found.part) if is_part else None
        if piece is None or piece.first != at:
            raise ConfigError(
                f"group {GROUP_NAMES[group]}: its parts are not all of it, each once and in order"
            )
        at = piece.end
    require(
        at == end and len(split.parts) <= GROUP_PARTS_MAX,
        f"a group has at most {GROUP_PARTS_MAX} parts, all of it",
        at,
    )
    replicas = {len(found.planes) for found in split.parts}
    require(len(replicas) == 1, "parts of a group have as many planes", sorted(replicas))
    highest = max(found.cfg for found in split.parts)
    require_int("next_cfg", split.next_cfg, highest + 1, 1 << 63)
    found = next((found for found in split.parts if found.part == split.part), split.parts[0])
    return GroupRecord(group, found.planes, found.cfg, replace(split, part=found.part))


@lru_cache(maxsize=GROUPS)
def _views(record: GroupRecord) -> tuple[GroupRecord, ...]:
    split = record.split
    assert split is not None
    return tuple(
        [
            GroupRecord(record.group, found.planes, found.cfg, replace(split, part=found.part))
            for found in split.parts
        ]
    )


# -- JSON -------------------------------------------------------------------------------------------

_GROUP_FIELDS = {"group", "planes", "cfg"}
_SPLIT_FIELDS = {"group", "parts", "next_cfg", "merging"}
_PART_FIELDS = {"part", "planes", "cfg"}
_MERGING_FIELDS = {"part", "ready"}
_PLANE_FIELDS = {"owner", "epoch", "state"}
_MORE_PLANE_FIELDS = {"env", "since", "target", "target_env", "target_plane"}


def _encode_plane(plane: PlaneOwner) -> dict[str, Any]:
    fields: dict[str, Any] = {"owner": plane.owner, "epoch": plane.epoch, "state": plane.state}
    # A record that names no environment is written as before there were any; so it is without a move.
    if plane.env:
        fields["env"] = f"{plane.env:08x}"
    if plane.since:
        fields["since"] = plane.since
    if plane.target:
        fields |= {"target": plane.target, "target_env": f"{plane.target_env:08x}"}
    if plane.target_plane:
        fields["target_plane"] = plane.target_plane
    return fields


def _encode_split(split: Split) -> dict[str, Any]:
    parts = [
        {"part": str(part_piece(part)), "cfg": cfg, "planes": [_encode_plane(plane) for plane in planes]}
        for part, planes, cfg in split.parts
    ]
    merging = split.merging and {
        "part": str(part_piece(split.merging.part)),
        "ready": [f"{env:08x}" for env in split.merging.ready],
    }
    return {"next_cfg": split.next_cfg, "merging": merging, "parts": parts}


def _decode_split(group: int, fields: dict[str, Any]) -> GroupRecord:
    if type(fields["parts"]) is not list:
        raise ConfigError("group record: its parts are not a list")
    parts = []
    for found in fields["parts"]:
        part = exact_fields(found, "part of a group", _PART_FIELDS)
        require_int("cfg", part["cfg"], 1, 1 << 63)
        parts.append(PartRecord(_decode_part(part["part"]), _decode_planes(part["planes"]), part["cfg"]))
    require(len(parts) > 1, "a group that is split has several parts", len(parts))
    merging = None
    if fields["merging"] is not None:
        found = exact_fields(fields["merging"], "merge", _MERGING_FIELDS)
        is_of_planes = type(found["ready"]) is list and len(found["ready"]) == len(parts[0].planes)
        require(is_of_planes, "a merge says of each plane whether it is ready", found["ready"])
        ready = tuple([_decode_env({"ready": env}, "ready") for env in found["ready"]])
        merging = Merging(_decode_part(found["part"]), ready)
    return split_record(group, Split(tuple(parts), parts[0].part, fields["next_cfg"], merging))


def _decode_part(text: Any) -> int:
    piece = slice_from_text(text)
    require(
        piece.plane == 0 and piece.depth >= SLICE_DEPTH_MIN, "a part is a group or less, in plane 0", text
    )
    return number_of_part(piece)


def _decode_planes(found: Any) -> tuple[PlaneOwner, ...]:
    if type(found) is not list:
        raise ConfigError("group record: planes are not a list")
    return tuple([_decode_plane(plane) for plane in found])


def _decode_plane(found: Any) -> PlaneOwner:
    if type(found) is dict and found.keys() == _PLANE_FIELDS:  # As in nearly all of some thousand.
        owner, epoch, state = found["owner"], found["epoch"], found["state"]
        if type(owner) is str and type(epoch) is int and type(state) is str:
            return _plain(owner, epoch, state)
    more = _MORE_PLANE_FIELDS & found.keys() if type(found) is dict else set()
    fields = exact_fields(found, "plane of a group", _PLANE_FIELDS | more)
    return PlaneOwner(
        fields["owner"],
        fields["epoch"],
        fields["state"],
        _decode_env(fields, "env"),
        fields.get("since", 0),
        fields.get("target", ""),
        _decode_env(fields, "target_env"),
        fields.get("target_plane", 0),
    )


_plain = lru_cache(maxsize=1024)(PlaneOwner)
"Kept, and shared by the groups of a node."


def _decode_env(fields: dict[str, Any], name: str) -> int:
    found = fields.get(name, "00000000")
    require(is_match(_ENV_ID, found), f"{name} must be 8 hex digits", found)
    return int(found, 16)
