"""Pages of the reference that come from the code: ``make docs`` writes them.

cli.md      every command with its options, from the command line itself
python.md   the public names, from their docstrings
errors.md   exceptions, exit codes, S3 errors
s3.md       which operations of S3 are answered

tests/unit/test_reference.py says when one of them is not what the code says any more.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import ssastore
from ssastore import errors
from ssastore.cli import cli, exit_code
from ssastore.s3 import errors as s3errors
from ssastore.s3 import router

FOLDER = Path(__file__).parent / "reference"
_MADE = "Made from the code by `make docs`.\n"


def cell(text: str) -> str:
    """Text for a cell of a table, in one line."""
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown; cells are as they are to be."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# -- the command line -------------------------------------------------------------------------------


def cli_page() -> str:
    """All commands in the order in which ``--help`` shows them."""
    context = click.Context(cli, info_name="ssastore")
    parts = [f"# Command line\n\n{_MADE}\n", _command(context, cli), _subcommands(context, cli)]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _subcommands(context: click.Context, group: click.Group) -> str:
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        parts.append(f"## {inner.command_path}\n\n{_command(inner, command)}")
        if isinstance(command, click.Group):
            parts.append(_subcommands(inner, command))
    return "\n".join(parts)


def _command(context: click.Context, command: click.Command) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    told = "\n\n".join(_paragraph(text) for text in inspect.cleandoc(command.help or "").split("\n\n"))
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            rows.append([f"`{cell(record[0])}`", cell(record[1])])
    options = "\n" + table(["option", "meaning"], rows) if rows else ""
    return f"```\n{usage}\n```\n\n{told}\n{options}"


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):  # Of click: to be left as it is.
        return "```\n" + text.removeprefix("\b\n") + "\n```"
    return " ".join(text.split())


# -- Python -----------------------------------------------------------------------------------------


def python_page() -> str:
    """The public names of the package."""
    found = {name: getattr(ssastore, name) for name in ssastore.__all__ if name != "__version__"}
    classes = {name: thing for name, thing in found.items() if not issubclass(thing, errors.SsaStoreError)}
    parts = [
        f"# Python API\n\n{_MADE}\n`from ssastore import Client`. `Client` and `AsyncClient` have the same "
        "names, those of the second with `await`. Exceptions: [errors.md](errors.md).\n"
    ]
    parts += [_class(name, kind) for name, kind in classes.items()]
    return "\n".join(parts)


def _class(name: str, kind: type) -> str:
    parts = [f"## {name}\n\n{_docstring(kind.__doc__)}\n"]
    for attribute, thing in vars(kind).items():
        is_made = attribute == "__init__" and "Make a" in (thing.__doc__ or "")
        if attribute.startswith("_") and not is_made:
            continue
        plain = thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing
        if isinstance(plain, property):
            parts.append(f"### {name}.{attribute}\n\n{_docstring(plain.__doc__)}\n")
        elif inspect.isfunction(plain):
            parts.append(
                f"### {_heading(name, attribute)}\n\n```\n{_signature(name, attribute, plain)}\n```\n"
            )
            parts.append(f"{_docstring(plain.__doc__)}\n")
    return "\n".join(parts)


def _heading(name: str, attribute: str) -> str:
    return name + "()" if attribute == "__init__" else f"{name}.{attribute}"


def _signature(name: str, attribute: str, function: Callable[..., Any]) -> str:
    found = inspect.signature(function)
    parameters = [one for one in found.parameters.values() if one.name not in ("self", "cls")]
    shown = str(found.replace(parameters=parameters)).replace("'", "").replace("-> None", "").rstrip()
    word = "async " if inspect.iscoroutinefunction(function) else ""
    return f"{word}{name}{shown}" if attribute == "__init__" else f"{word}{attribute}{shown}"


def _docstring(text: str | None) -> str:
    """Sections of Google's style as lists."""
    lines = []
    for line in inspect.cleandoc(text or "").replace("``", "`").splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", line):
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif found := re.match(r"    (\w+): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif line.startswith("        "):
            lines.append(f"  {line.strip()}")
        elif line.startswith("    "):
            lines.append(
                f"- {line.strip()}" if not lines or not lines[-1].startswith("    ") else line.strip()
            )
        else:
            lines.append(line)
    return "\n".join(lines)


# -- errors -----------------------------------------------------------------------------------------


def errors_page() -> str:
    """Exceptions with exit codes and S3 answers, and all codes of S3."""
    rows = [_error_row(kind, depth) for kind, depth in _tree(errors.SsaStoreError, 0)]
    codes = [
        [f"`{code}`", str(status), cell(text)] for code, (status, text) in sorted(s3errors.CODES.items())
    ]
    return (
        f"# Errors\n\n{_MADE}\n## Exceptions\n\n"
        "Exit code: of a command that ends with it. S3: what a gateway answers.\n\n"
        + table(["exception", "exit code", "S3", "meaning"], rows)
        + "\n## Codes of S3\n\n"
        + table(["code", "HTTP", "text, unless there is a better one"], codes)
    )


def _tree(kind: type[errors.SsaStoreError], depth: int) -> list[tuple[type[errors.SsaStoreError], int]]:
    found = [(kind, depth)]
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found += _tree(child, depth + 1)
    return found


def _error_row(kind: type[errors.SsaStoreError], depth: int) -> list[str]:
    row = s3errors._ROWS.get(kind)
    code = f"`{row.code}`" if row else ""
    number = str(exit_code(kind.__new__(kind)))
    return [f"{'· ' * depth}`{kind.__name__}`", number, code, cell(kind.__doc__ or "")]


# -- S3 ---------------------------------------------------------------------------------------------


def s3_page() -> str:
    """Operations that are answered, by what they are about, and those that are refused by name."""
    rows = []
    for what, plain, parameters in (
        ("the service", router._SERVICE, {}),
        ("a bucket", router._BUCKET, router._BUCKET_PARAMETERS),
        ("an object", router._OBJECT, router._OBJECT_PARAMETERS),
    ):
        rows += [[what, method, "", f"`{name}`"] for method, name in plain.items()]
        for parameter, methods in parameters.items():
            rows += [[what, method, f"`?{parameter}`", f"`{name}`"] for method, name in methods.items()]
    rows += [
        ["an object", "PUT", "with a source", f"`{name}`, of `{of}`"] for of, name in router._COPIES.items()
    ]
    refused = [*router._BUCKET_SUBRESOURCES, *router._OBJECT_SUBRESOURCES]
    return (
        f"# Operations of S3\n\n{_MADE}\nWhat is not here is answered with 501 and its name. "
        "636 of the 883 tests of ceph/s3-tests pass ([testing.md](../explanation/testing.md)).\n\n"
        + table(["of", "method", "parameter", "operation"], rows)
        + "\n## Refused by name\n\n"
        + ", ".join(f"`?{name}`" for name in refused)
        + "\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "python.md": python_page,
    "errors.md": errors_page,
    "s3.md": s3_page,
}


def main() -> None:
    """Write all of them."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
