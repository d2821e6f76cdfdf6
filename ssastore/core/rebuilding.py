"""The control store made anew from what nodes have left of it: their copies, and their environments.

Pure, but for writing it.  A copy may miss the last changes of a group.  What they were shows in the standings
on the disks, as far as it matters: nobody votes for a plane under a later epoch without one that says so,
a handover seals its source durably before it ends, a recovery fences mates before it copies.  So a plane

    whose environment's standing fits the newest copy of the group's record    stays as it is
    that is MOVING, and not sealed at its source                               stays at the source
    that was alone, and sealed for a second one, which is all that shows       stays at the source
    that is MOVING and sealed, or RECOVERING                                   is in doubt
    of which somebody has a standing for a later epoch than that record's      is in doubt, and his
    that the record has not, and that somebody has rebuilt                     is in doubt, and his

Whoever has a plane that is in doubt may lack votes that were given for it.  It is taken for a disk that was
lost: its epoch is above all that anybody noted, so its environment does not vote and rebuilds the slice from
the other planes (``core.recovery``).  That needs F+1 planes without doubt, else the group is *unclear* and
nothing is written: the traces of another node may help.

No epoch and no configuration that anybody noted is given again: where a disk knows more of a group than the
record, all get higher ones.  Of several copies of a record the one with the highest counts.

A backup is one more copy, of any age: it counts where no node has a copy, or an older one, and only beside
the disks of all workers.  Of what has happened since it was taken any of them may be the only witness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ssastore.core.boot import ENV_PREFIX, FIRST_PREFIX
from ssastore.core.cluster import CLUSTER_KEY, NODE_PREFIX, Cluster, ClusterRecord, NodeRecord
from ssastore.core.controlcopy import ControlCopy
from ssastore.core.groups import (
    ACTIVE,
    GROUP_NAMES,
    MOVING,
    RECOVERING,
    GroupRecord,
    PlaneOwner,
    group_key,
)
from ssastore.core.marks import Watermark, mark_name
from ssastore.core.moving import called_off
from ssastore.core.numbers import (
    covers,
    group_of_slice,
    lane_of_slice,
    overlaps,
    part_of_slice,
    plane_of_slice,
    slice_name,
    slice_number,
)
from ssastore.core.recut import cancel_merge
from ssastore.core.settings import SETTING_PREFIX
from ssastore.core.standing import UNTOUCHED, Standing
from ssastore.core.widening import FILLED_PLANE
from ssastore.env import Compare, ControlStore, Write
from ssastore.errors import ConfigError
from ssastore.keyspace import GROUPS, REPLICAS_ALLOWED
from ssastore.limits import CONTROL_OPS_MAX


@dataclass(frozen=True, slots=True)
class Disk:
    """An environment, as its disk shows it."""

    node: str
    worker: int
    env_id: int
    mark: Watermark
    standings: Mapping[int, Standing]
    "Those that differ from UNTOUCHED, by slice."
    told: Mapping[int, Watermark] = field(default_factory=dict)
    "What other environments told it of themselves."

    @property
    def owner(self) -> str:
        return f"{self.node}/{self.worker}"


@dataclass(frozen=True, slots=True)
class Trace:
    """What a node has left of a cluster."""

    node: str
    copy: ControlCopy | None
    "None: it was lost; then a backup has to take its place."
    disks: tuple[Disk, ...]
    noted: str = ""
    "The cluster that the node's directory belongs to, where there is no copy."

    @property
    def cluster_id(self) -> str:
        return self.copy.cluster_id if self.copy is not None else self.noted


class Source(NamedTuple):
    """A copy, and who kept it."""

    who: str
    copy: ControlCopy
    is_backup: bool


class Note(NamedTuple):
    """A standing of a slice, and on whose disk it is."""

    disk: Disk
    number: int
    standing: Standing


@dataclass(slots=True)
class Rebuilt:
    """What a control store is to hold, and how that was found."""

    items: dict[str, bytes] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    "Nodes of which there are no traces here, and workers whose disk is not among their node's."
    groups: int = 0
    raised: list[str] = field(default_factory=list)
    "Groups of which disks know more than their records: they get higher numbers."
    taken: dict[str, int] = field(default_factory=dict)
    "Whose copies count, and for how many groups; what else they hold is that of the first."
    doubtful: list[str] = field(default_factory=list)
    "Slices that their owners have to rebuild from the other planes."
    unclear: dict[str, str] = field(default_factory=dict)
    "Groups that nothing can be said of, and why: while there are any, ``items`` must not be written."


class _Unclear(Exception):
    """Nobody can tell who owns a group, or what it holds."""


def rebuild(traces: Sequence[Trace], backups: Sequence[ControlCopy] = ()) -> Rebuilt:
    """What the control store held.

    ConfigError: the traces and backups are of several clusters or of none, nobody has a copy, or what they
    give breaks an invariant of ``core.cluster``.
    """
    if not traces:
        raise ConfigError("there are no traces of any node")
    clusters = {trace.cluster_id for trace in traces} | {backup.cluster_id for backup in backups}
    if len(clusters) > 1:
        raise ConfigError(f"these are traces of {len(clusters)} clusters: {', '.join(sorted(clusters))}")
    sources = _sources(traces, backups)
    copies = [source.copy for source in sources]
    disks = {disk.env_id: disk for trace in traces for disk in trace.disks}
    made = Rebuilt()
    newest = copies[-1].items
    for key, value in newest.items():
        if key == CLUSTER_KEY or key.startswith((NODE_PREFIX, SETTING_PREFIX)):
            made.items[key] = value
    for copy in copies:
        made.items.update(_claims_of(copy))
    for disk in disks.values():
        made.items.setdefault(f"{ENV_PREFIX}{disk.env_id:08x}", disk.owner.encode())
    claims = Counter(value.decode() for key, value in made.items.items() if key.startswith(ENV_PREFIX))
    for disk in disks.values():
        if claims[disk.owner] == 1:
            made.items.setdefault(FIRST_PREFIX + disk.owner, f"{disk.env_id:08x}".encode())
    made.items |= {mark_name(env_id): mark.encode() for env_id, mark in _marks_of(disks.values()).items()}
    nodes = [NodeRecord.decode(value) for key, value in newest.items() if key.startswith(NODE_PREFIX)]
    made.nodes = sorted(node.name for node in nodes)
    made.missing = _missing(nodes, traces)
    made.taken = {source.who: 0 for source in reversed(sources)}
    records = _rebuild_groups(made, sources, disks, {node.name: node.workers for node in nodes})
    if not made.unclear:
        record = _cluster_of(copies, records)
        made.items[CLUSTER_KEY] = record.encode()
        Cluster(record, tuple(sorted(nodes, key=lambda node: node.name)), tuple(records)).check()
    return made


def _sources(traces: Sequence[Trace], backups: Sequence[ControlCopy]) -> list[Source]:
    """All copies, the later ones last; backups before those of nodes, whatever their clocks say."""
    found = [Source(trace.node, trace.copy, False) for trace in traces if trace.copy is not None]
    names = ["backup"] if len(backups) == 1 else [f"backup {at}" for at in range(1, len(backups) + 1)]
    found += [Source(name, backup, True) for name, backup in zip(names, backups, strict=True)]
    if not found:
        raise ConfigError("no node has its copy of the control store: add a backup of it")
    return sorted(found, key=lambda source: (not source.is_backup, source.copy.taken_ms))


def _missing(nodes: Sequence[NodeRecord], traces: Iterable[Trace]) -> list[str]:
    """Whose disks are not here: nodes, and workers of those that are."""
    found = {trace.node: {disk.worker for disk in trace.disks} for trace in traces}
    missing = [node.name for node in nodes if node.name not in found]
    for node in nodes:
        if node.name in found:
            missing += [
                f"{node.name}/{worker}" for worker in range(node.workers) if worker not in found[node.name]
            ]
    return sorted(missing)


def _cluster_of(copies: Sequence[ControlCopy], records: Iterable[GroupRecord]) -> ClusterRecord:
    """With as many replicas as any copy or group knows: there are never fewer than before. The prefix is
    that of which clients were told last, whatever the clocks of the copies say."""
    known = sorted(
        [ClusterRecord.decode(copy.items[CLUSTER_KEY]) for copy in copies], key=lambda record: record.serial
    )
    most = max([record.replicas for record in known] + [len(record.planes) for record in records])
    return replace(known[-1], replicas=min(count for count in REPLICAS_ALLOWED if count >= most))


def _claims_of(copy: ControlCopy) -> dict[str, bytes]:
    return {key: value for key, value in copy.items.items() if key.startswith((ENV_PREFIX, FIRST_PREFIX))}


def _marks_of(disks: Iterable[Disk]) -> dict[int, Watermark]:
    """By environment, the highest that its own disk and its peers' show."""
    marks: dict[int, Watermark] = {}
    for disk in disks:
        for env_id, mark in ((disk.env_id, disk.mark), *disk.told.items()):
            known = marks.get(env_id, Watermark())
            marks[env_id] = Watermark(max(known.boot, mark.boot), max(known.sequence, mark.sequence))
    return marks


def _rebuild_groups(
    made: Rebuilt, sources: Sequence[Source], disks: Mapping[int, Disk], workers: Mapping[str, int]
) -> list[GroupRecord]:
    """Put the records of all groups into ``made``, and say what is to be said of them."""
    notes: dict[int, list[Note]] = {}
    for disk in disks.values():
        for number, standing in disk.standings.items():
            notes.setdefault(group_of_slice(number), []).append(Note(disk, number, standing))
    first = {
        key.removeprefix(FIRST_PREFIX): int(value, 16)
        for key, value in made.items.items()
        if key.startswith(FIRST_PREFIX)
    }
    records = []
    for group in range(GROUPS):
        name = GROUP_NAMES[group]
        key = group_key(group)
        found = [
            (source, GroupRecord.decode(source.copy.items[key]))
            for source in sources
            if key in source.copy.items
        ]
        try:
            if not found:
                raise _Unclear("no node has a record of it: it has no owner")
            record = _newest([known for _, known in found])
            source = next(source for source, known in reversed(found) if known == record)
            if source.is_backup and made.missing:
                raise _Unclear(
                    "a backup has its latest record, which may be older than what the missing disks know: "
                    "add the directories of all nodes"
                )
            made.taken[source.who] += 1
            search = _Search(record, notes.get(group, []), disks, first, workers, bool(made.missing))
            record = search.settled()
        except _Unclear as error:
            made.unclear[name] = str(error)
            continue
        made.groups += 1
        made.raised += [name] if search.is_raised else []
        made.doubtful += map(slice_name, search.doubtful)
        made.items[group_key(group)] = record.encode()
        records.append(record)
    return records


def _newest(found: Sequence[GroupRecord]) -> GroupRecord:
    """The latest of a group's records. Raises _Unclear: they were never true one after the other."""
    counts = {record.next_cfg: set[int]() for record in sorted(found, key=_age_of)}
    for record in found:
        counts[record.next_cfg].add(len(record.planes))
    # Planes are only added, and each of them takes a configuration (``core.widening``).
    in_order = [max(known) for known in counts.values()]
    if any(len(known) > 1 for known in counts.values()) or in_order != sorted(in_order):
        raise _Unclear("the copies disagree about how many planes it has")
    return max(found, key=_age_of)


def _age_of(record: GroupRecord) -> tuple[int, bool, int]:
    """Later records of a group have higher ones, whatever store they stood in."""
    epochs = sum(plane.epoch for found in record.parts for plane in found.planes)
    # A merge takes a number at its beginning; at its end there are fewer parts.
    return record.next_cfg, record.merging is None, epochs


class _Search:
    """One group: its newest record, against what disks know of its slices."""

    def __init__(
        self,
        record: GroupRecord,
        notes: Sequence[Note],
        disks: Mapping[int, Disk],
        first: Mapping[str, int],
        workers: Mapping[str, int],
        is_incomplete: bool,
    ) -> None:
        self._record = record
        self._notes = notes
        self._disks = disks
        self._first = first
        self._workers = workers
        self._is_incomplete = is_incomplete
        self.is_raised = False
        self.doubtful: list[int] = []
        self._recovered: set[int] = set()
        "Configurations of environments that recovered a plane after the record."

    def settled(self) -> GroupRecord:
        """The record that is to be written. Raises _Unclear."""
        record = self._record
        if record.is_untouched and not self._notes:
            for plane, found in enumerate(record.planes):
                self._env_of(slice_number(plane, record.group), found)
            return record
        if record.merging is not None:
            record = cancel_merge(record)
        record = self._with_later_planes(record)
        for part in [found.part for found in record.parts]:
            record = self._settle_part(_at(record, part))
        known_cfg = max((note.standing.cfg for note in self._notes), default=0)
        if known_cfg >= record.next_cfg:
            self.is_raised = True
            # One number is the recovery that shows; of any other one the environment may be elsewhere.
            is_explained = known_cfg == record.next_cfg and known_cfg in self._recovered
            if self._is_incomplete and not is_explained:
                raise _Unclear(
                    "a recovery was begun that no node here knows of: add the traces of the others"
                )
            cfg = known_cfg + 1
            for part in [found.part for found in record.parts]:
                view = _at(record, part)
                record = view.replaced(0, view.planes[0], cfg)
        return record

    def _with_later_planes(self, record: GroupRecord) -> GroupRecord:
        """With the planes that it was given since: somebody has rebuilt them, and may have voted."""
        while True:
            count = len(record.planes)
            later = [
                note
                for note in self._notes
                if note.standing.epoch and plane_of_slice(note.number) >= max(count, FILLED_PLANE + 1)
            ]
            if not later:
                return record
            own = [
                note.disk
                for note in later
                if note.number == slice_number(count, record.group) and note.disk.node not in record.owners
            ]
            if not own or record.split is not None or count <= FILLED_PLANE:
                raise _Unclear("it was given planes, and nobody noted how: add the traces of the others")
            begun = PlaneOwner(own[0].node, 1, RECOVERING, own[0].env_id)
            record = GroupRecord(record.group, (*record.planes, begun), record.next_cfg)

    def _notes_of(self, view: GroupRecord, plane: int) -> list[Note]:
        """What is known of a plane, and of the one that it is copied for: they share their handovers."""
        planes = [plane] if len(view.planes) > FILLED_PLANE else [plane, FILLED_PLANE]
        numbers = [slice_number(at, view.part) for at in planes]
        return [note for note in self._notes if note.number in numbers]

    def _settle_part(self, view: GroupRecord) -> GroupRecord:
        doubts = []
        for plane, found in enumerate(view.planes):
            number = slice_number(plane, view.part)
            known = self._notes_of(view, plane)
            self._recovered |= {note.standing.cfg for note in known if _is_recovered(note.standing, found)}
            changed = self._settle_plane(number, found, known)
            if changed is None:
                doubts.append(plane)
                changed = self._in_doubt(view, plane, found, known)
            if changed != found:
                view = view.replaced(plane, changed, view.cfg)
        if doubts and len(view.planes) - len(doubts) < len(view.planes) // 2 + 1:
            raise _Unclear(
                f"{len(doubts)} of {len(view.planes)} planes are in doubt: too few are left to ask"
            )
        self.doubtful += [slice_number(plane, view.part) for plane in doubts]
        return view

    def _settle_plane(self, number: int, found: PlaneOwner, known: Sequence[Note]) -> PlaneOwner | None:
        """The plane as it is to be; None when it is in doubt."""
        own = self._disks.get(self._env_of(number, found))
        if own is not None and any(
            note.disk is own
            and note.number != number
            and note.standing.epoch
            and overlaps(note.number, number)
            and not self._is_over(note, number)
            for note in self._notes
        ):
            raise _Unclear("it was split or merged, and nobody noted how: add the traces of the others")
        standing = UNTOUCHED if own is None else own.standings.get(number, UNTOUCHED)
        is_sole = own is not None and self._is_sole(own, number, found, known)
        is_changed = found.state == RECOVERING or standing.seal > found.epoch or _is_later(known, found)
        if is_changed and not is_sole:
            return None
        if found.state == MOVING:
            # Only who was filled can have taken over, and only from who was sealed.
            is_told = own is not None or found.target_env in self._disks
            if not is_sole and (standing.seal == found.epoch or not is_told):
                return None
            found = called_off(found)
        highest = _highest(known)
        if highest <= found.epoch:
            return found
        self.is_raised = True
        return replace(found, epoch=highest + 2, since=found.complete_epoch)

    def _is_over(self, note: Note, number: int) -> bool:
        """Whether a note is of a whole that was no more, or came to nothing, when the record was made.

        What is merged has a higher epoch than its parts had; one that was called off leaves its note.
        """
        if not covers(note.number, number):
            return False
        part = _at(self._record, part_of_slice(number)).planes[plane_of_slice(number)]
        return note.standing.epoch <= part.epoch

    def _is_sole(self, own: Disk, number: int, found: PlaneOwner, known: Sequence[Note]) -> bool:
        """Whether a plane that was alone, and sealed for a second one, has all votes, whatever came of that.

        It gave them alone or both did, as a majority of two, until a third one took the next but one
        configuration; and it was neither handed over nor recovered since.
        """
        standing = own.standings.get(number, UNTOUCHED)
        h = found.epoch if found.state == MOVING else found.epoch + 1
        filled = [note for note in known if note.number != number and note.standing.seal == h]
        later = [note for note in known if note.standing.epoch > found.epoch]
        is_here = standing.epoch == found.complete_epoch and found.state != RECOVERING
        is_at_most_second = standing.cfg <= self._record.cfg + 1 and standing.seal == h
        is_known = bool(filled) and all(note in filled for note in later) and not self._is_incomplete
        return is_here and is_at_most_second and is_known

    def _in_doubt(
        self, view: GroupRecord, plane: int, found: PlaneOwner, known: Sequence[Note]
    ) -> PlaneOwner:
        """The plane as one whose owner has to rebuild it: the one who came last, if he may have it."""
        others = [owner for at, owner in enumerate(view.owners) if at != plane]
        owner, env_id = found.owner, self._env_of(slice_number(plane, view.part), found)
        later = [note for note in known if note.standing.epoch > found.epoch and note.disk.node not in others]
        if later:
            latest = max(later, key=lambda note: note.standing.epoch)
            owner, env_id = latest.disk.node, latest.disk.env_id
        return PlaneOwner(owner, max(_highest(known), found.epoch) + 2, ACTIVE, env_id)

    def _env_of(self, number: int, found: PlaneOwner) -> int:
        """The environment of a plane. Raises _Unclear."""
        owner = f"{found.owner}/{lane_of_slice(number) % self._workers.get(found.owner, 1)}"
        env_id = found.env or self._first.get(owner, 0)
        if not env_id:
            # Whichever environment came first now would be taken for it, and vote with nothing.
            raise _Unclear(f"nobody knows the first environment of {owner}: add its traces")
        return env_id


def _is_later(known: Sequence[Note], found: PlaneOwner) -> bool:
    return any(note.standing.epoch > found.epoch for note in known)


def _is_recovered(standing: Standing, found: PlaneOwner) -> bool:
    """Whether it is of an environment whose recovery of a plane was begun after the record, and is complete.

    The end of one that the record knows is one epoch later.
    Who was filled by a handover has its number as a seal.
    """
    return standing.epoch > found.epoch + 1 and standing.seal != standing.epoch - 1


def _highest(known: Sequence[Note]) -> int:
    """The highest epoch that anybody noted of a slice."""
    return max((max(note.standing.epoch, note.standing.seal) for note in known), default=0)


def _at(record: GroupRecord, part: int) -> GroupRecord:
    view = record.at(part)
    assert view is not None
    return view


async def write_rebuilt(control: ControlStore, items: Mapping[str, bytes]) -> None:
    """Write what ``rebuild`` gives into a control store that holds no cluster. May be repeated until it is.

    Nobody takes a store for a cluster's that has no ``cluster``, which is written last.

    Raises:
        ConfigError: there is a cluster. Unavailable: the control store does not answer; call again.
    """
    is_free = Compare(CLUSTER_KEY, 0)
    writes = [Write(key, items[key]) for key in sorted(items) if key != CLUSTER_KEY]
    writes.append(Write(CLUSTER_KEY, items[CLUSTER_KEY]))
    for first in range(0, len(writes), CONTROL_OPS_MAX):
        if await control.transact([is_free], writes[first : first + CONTROL_OPS_MAX]) is None:
            raise ConfigError("the control store holds a cluster already: rebuild into an empty one")
