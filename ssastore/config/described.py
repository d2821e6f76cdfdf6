"""Settings for people and tools: a commented file, a JSON schema, and where each value comes from. Pure.

What a setting means stands under it in the source, and nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from dataclasses import MISSING, fields
from textwrap import wrap
from typing import Any, get_type_hints

from ssastore.config.gatewaysettings import GatewayConfig
from ssastore.config.loading import where
from ssastore.config.nodesettings import NodeConfig

KINDS: dict[str, type[NodeConfig] | type[GatewayConfig]] = {"node": NodeConfig, "gateway": GatewayConfig}

_WIDTH = 100
_EXAMPLES = {
    "name": "n1",
    "control": "etcd://[2001:db8:99::11]:2379",
    "data_dir": "/var/lib/ssastore/node",
    "secrets_file": "/etc/ssastore/secrets.json",
}
"For settings that have no default."
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}


def descriptions_of(kind: type) -> dict[str, str]:
    """Setting -> the text under it in the source."""
    source = ast.parse(inspect.getsource(sys.modules[kind.__module__])).body
    (body,) = [node.body for node in source if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    found = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = words
    return found


def kind_of(values: dict[str, Any]) -> str:
    """Of which process settings are: only a node has data."""
    return "node" if "data_dir" in values else "gateway"


def commented(name: str) -> str:
    """A file of settings of this kind with every key: those without a default are examples."""
    kind = KINDS[name]
    texts, lines = descriptions_of(kind), [f"# Settings of a {name}: ssastore {name} --config FILE", ""]
    for field in fields(kind):
        lines += wrap(texts[field.name], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        if field.default is MISSING:
            lines.append(f"{field.name} = {json.dumps(_EXAMPLES[field.name])}")
        else:
            lines.append(f"# {field.name} = {json.dumps(field.default)}")
        lines.append("")
    return "\n".join(lines)


def schema(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the settings of this kind, as editors take it for TOML."""
    kind = KINDS[name]
    texts, types = descriptions_of(kind), get_type_hints(kind)
    properties = {
        field.name: {
            "type": _JSON_TYPES[types[field.name]],
            "description": texts[field.name],
            **({} if field.default is MISSING else {"default": field.default}),
        }
        for field in fields(kind)
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Settings of a {name} of ssastore",
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields(kind) if field.default is MISSING],
        "additionalProperties": False,
    }


def with_origin(settings: NodeConfig | GatewayConfig, path: str, text: str) -> list[dict[str, Any]]:
    """Each setting, its value, and where that comes from: ``FILE:LINE`` or ``default``."""
    rows = []
    for field in fields(settings):
        found = where(path, text, field.name)
        origin = found if found != path else "default"
        rows.append({"name": field.name, "value": getattr(settings, field.name), "origin": origin})
    return rows
