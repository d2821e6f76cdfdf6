"""A plan as JSON, one change a line: to be read, compared and reviewed. Pure.

Slices are written as everywhere else: ``1a3f``, or fixed digits and length (``0a3e/79``, ``1a3f8/82``).
Everything is checked before it becomes a plan; of the figures, which are for people, only the kinds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ssastore.core.cluster import NodeRecord
from ssastore.core.numbers import slice_from_text
from ssastore.core.plans import CHANGE_KINDS, FILL, Change, Figures, NodeFigures, Plan, Recut
from ssastore.errors import ConfigError
from ssastore.keyspace import REPLICAS_ALLOWED, SLICE_DEPTH_MAX, SLICE_DEPTH_MIN, Slice
from ssastore.limits import PLAN_FILE_BYTES_MAX, PLAN_STEPS_MAX

FORMAT = 1
_KIND = "ssastore plan"
_FIGURE_END = 1e9
_DIGEST = re.compile(r"[0-9a-f]{32}")
_PLAN_FIELDS = {"kind", "format", "made_for", "gives", "replicas", "figures", "splits", "changes", "merges"}
_CHANGE_FIELDS = {"do", "slice", "from", "to"}
_RECUT_FIELDS = {"part", "pieces"}
_FIGURES_FIELDS = {"moved_groups", "bytes", "fullest", "nodes"}
_NODE_FIELDS = {"name", "prefixes", "loads"}

T = TypeVar("T")


def encode_plan(plan: Plan) -> bytes:
    """The file."""
    figures = plan.figures
    head: list[tuple[str, Any]] = [
        ("kind", _KIND),
        ("format", FORMAT),
        ("made_for", plan.made_for),
        ("gives", plan.gives),
        ("replicas", plan.replicas),
    ]
    summary = {"moved_groups": figures.moved_groups, "bytes": figures.bytes, "fullest": figures.fullest}
    nodes = [{"name": node.name, "prefixes": node.prefixes, "loads": node.loads} for node in figures.nodes]
    changes = [
        {"do": change.kind, "slice": str(change.piece), "from": change.source, "to": change.target}
        for change in plan.changes
    ]
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in head]
    lines.append(f'  "figures": {json.dumps(summary)[:-1]}, "nodes": {_rows(nodes)}}}')
    lines.append(f'  "splits": {_rows([_recut(recut) for recut in plan.splits])}')
    lines.append(f'  "changes": {_rows(changes)}')
    lines.append(f'  "merges": {_rows([_recut(recut) for recut in plan.merges])}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def decode_plan(text: bytes) -> Plan:
    """Inverse of ``encode_plan``. ConfigError: it is no plan, one of another version, or too large."""
    if len(text) > PLAN_FILE_BYTES_MAX:
        raise ConfigError(f"a plan has at most {PLAN_FILE_BYTES_MAX} bytes, this file has {len(text)}")
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"plan: not JSON: {error}") from error
    if type(found) is not dict or found.get("kind") != _KIND:
        raise ConfigError(f'this is no plan: "kind" is not "{_KIND}"')
    number = found.get("format")
    if type(number) is not int or number != FORMAT:
        raise ConfigError(f"plan: format {number!r}, this version reads {FORMAT}")
    _fields(found, "the plan", _PLAN_FIELDS)
    before, after = _pair(found["replicas"], "replicas", _replicas)
    if after < before:
        raise ConfigError(f"plan: planes are only added, not {before} to {after}")
    return Plan(
        _digest(found["made_for"], "made_for"),
        _digest(found["gives"], "gives"),
        (before, after),
        tuple(_decode_recut(item, "a split") for item in _list(found["splits"], "splits")),
        tuple(_decode_change(item, after) for item in _list(found["changes"], "changes")),
        tuple(_decode_recut(item, "a merge") for item in _list(found["merges"], "merges")),
        _decode_figures(found["figures"]),
    )


def _rows(rows: Sequence[object]) -> str:
    return "[\n    " + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]" if rows else "[]"


def _recut(recut: Recut) -> dict[str, Any]:
    return {"part": str(recut.whole), "pieces": [str(piece) for piece in recut.pieces]}


def _decode_recut(found: object, what: str) -> Recut:
    fields = _fields(found, what, _RECUT_FIELDS)
    whole = _part(fields["part"], what)
    pieces = [_part(piece, what) for piece in _list(fields["pieces"], what)]
    at = whole.first
    for piece in pieces:
        if piece.first != at or not whole.covers(piece):
            raise ConfigError(f"plan: {what} of {whole}: {piece} is not the next piece of it")
        at = piece.end
    if at != whole.end or len(pieces) < 2:
        raise ConfigError(f"plan: {what} of {whole}: the pieces are not all of it, or only one")
    return Recut(whole, tuple(pieces))


def _decode_change(found: object, replicas: int) -> Change:
    fields = _fields(found, "a change", _CHANGE_FIELDS)
    kind, piece = fields["do"], slice_from_text(fields["slice"])
    if kind not in CHANGE_KINDS:
        raise ConfigError(f"plan: a change is one of {', '.join(CHANGE_KINDS)}, not {kind!r}")
    # A prefix shorter than a plane's /68 would speak of several planes at once.
    if not 4 <= piece.depth <= SLICE_DEPTH_MAX or piece.plane >= replicas:
        raise ConfigError(f"plan: {piece} is no slice of planes 0 to {replicas - 1}")
    target = _name(fields["to"])
    source = fields["from"] if kind == FILL else _name(fields["from"])
    if (kind == FILL and source != "") or source == target:
        raise ConfigError(f"plan: {piece} cannot go from {source!r} to {target} by {kind}")
    return Change(kind, piece, source, target)


def _decode_figures(found: object) -> Figures:
    fields = _fields(found, "the figures", _FIGURES_FIELDS)
    nodes = []
    for item in _list(fields["nodes"], "nodes"):
        node = _fields(item, "a node's figures", _NODE_FIELDS)
        prefixes = _pair(node["prefixes"], "prefixes", _count)
        nodes.append(NodeFigures(_name(node["name"]), prefixes, _pair(node["loads"], "loads", _number)))
    copied = fields["bytes"]
    return Figures(
        _number(fields["moved_groups"]),
        None if copied is None else _count(copied),
        _pair(fields["fullest"], "fullest", _number),
        tuple(nodes),
    )


def _part(text: object, what: str) -> Slice:
    piece = slice_from_text(text)
    if piece.plane != 0 or not SLICE_DEPTH_MIN <= piece.depth <= SLICE_DEPTH_MAX:
        raise ConfigError(f"plan: {what} names {piece}, which is no group and no piece of one in plane 0")
    return piece


def _fields(found: object, what: str, fields: set[str]) -> dict[str, Any]:
    if type(found) is not dict or found.keys() != fields:
        raise ConfigError(f"plan: {what} wants exactly the fields {', '.join(sorted(fields))}")
    return found


def _list(found: object, what: str) -> list[Any]:
    if type(found) is not list or len(found) > PLAN_STEPS_MAX:
        raise ConfigError(f"plan: {what} must be a list of at most {PLAN_STEPS_MAX}")
    return found


def _pair(found: object, what: str, read: Callable[[object], T]) -> tuple[T, T]:
    if type(found) is not list or len(found) != 2:
        raise ConfigError(f"plan: {what} must be two values, before and after")
    return read(found[0]), read(found[1])


def _digest(found: object, what: str) -> str:
    if type(found) is not str or _DIGEST.fullmatch(found) is None:
        raise ConfigError(f"plan: {what} must be 32 hex digits, got {found!r}")
    return found


def _name(found: object) -> str:
    # The rule for names is the record's; an address is needed to make one.
    return NodeRecord(found, "fd00::1").name  # type: ignore[arg-type]  # the record checks


def _count(found: object) -> int:
    if type(found) is not int or found < 0:
        raise ConfigError(f"plan: a count must be a whole number from 0, got {found!r}")
    return found


def _number(found: object) -> float:
    if type(found) not in (int, float) or not 0 <= found < _FIGURE_END:  # type: ignore[operator]  # a number, by type
        raise ConfigError(f"plan: a figure must be a number from 0, got {found!r}")
    return float(found)  # type: ignore[arg-type]  # a number, by type


def _replicas(found: object) -> int:
    if type(found) is not int or found not in REPLICAS_ALLOWED:
        raise ConfigError(f"plan: replicas must be one of {REPLICAS_ALLOWED}, got {found!r}")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")
