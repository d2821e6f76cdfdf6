"""Style by test: what matters is checked here or by a linter; the rest is advice in CONTRIBUTING.md.

A rule is a function from one file to its complaints. Each is also shown a planted offence that it must
catch and a near miss that it must leave alone: a rule never seen red proves nothing.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED_FOLDERS = {
    ".git",
    ".venv",
    ".venv-clients",
    ".venv-docs",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
    "__pycache__",
    "build",
    "dist",
    "results",
}
TEXT_BYTES_MAX = 1_000_000
"Larger files are data."

MODULE_LINES_MAX = 500
"Past this a module has more than one concern. Typical: 100 to 300."
FUNCTION_LINES_MAX = 70
"Typical: 10; 40 is long."

# Words of other systems whose meaning here would be wrong (glossary.md). Prose may say that there
# is no leader and no redirect; a name may not.
NAME_WORDS_BANNED = {"master", "leader", "donor", "vnode", "ring", "migration", "redirect"}
PROSE_WORDS_BANNED = {"master", "donor", "vnode"}
HTTP_WORDS = {"redirect"}  # S3 has errors of this name

# Spelled with a class of one letter, so that this file keeps its own rules.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|NotImplemented[E]rror)\b")
WORKPLACE = re.compile(r"(?<!\w)/wor[k]/|pyp[i]\.org|pythonhoste[d]\.org|npmj[s]\.org")


class Source:
    """One file of the repository; ``path`` is relative to its root."""

    def __init__(self, path: str, text: str) -> None:
        self.path = PurePosixPath(path)
        self.text = text

    @property
    def is_python(self) -> bool:
        return self.path.suffix == ".py"

    @property
    def is_package(self) -> bool:
        return self.is_python and self.path.parts[0] == "ssastore"

    @property
    def is_front_door(self) -> bool:
        return self.is_package and len(self.path.parts) == 2

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def comments(self) -> Iterator[tuple[int, str]]:
        if "#" in self.text:
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    yield token.start[0], token.string


Complaints = Iterator[tuple[int, str]]
"Line and what is wrong there."


def module_length(source: Source) -> Complaints:
    lines = source.text.count("\n")
    # A test file follows its module and may hold long tables.
    if source.is_python and source.path.parts[0] != "tests" and lines > MODULE_LINES_MAX:
        yield lines, f"{lines} lines, more than {MODULE_LINES_MAX}: split it by concern"


def function_length(source: Source) -> Complaints:
    if not source.is_python:
        return
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def unfinished(source: Source) -> Complaints:
    if source.is_python:
        yield from matching_lines(
            UNFINISHED, source, "is unfinished work: do it or write it down as an issue"
        )


def file_name(source: Source) -> Complaints:
    if source.is_python and source.path.stem in ("util", "utils", "helper", "helpers"):
        yield 1, "a helper lives with its only user, or gets a noun of its own"


def bare_task(source: Source) -> Complaints:
    """A task that nobody keeps can vanish half way. A task group keeps its own."""
    if not source.is_package or source.path.name == "env.py":
        return
    for node in source.nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="create_task" | "ensure_future")):
                if "asyncio" in (text := ast.unparse(owner)) or text.removesuffix("()").endswith("loop"):
                    yield node.lineno, "create tasks with ssastore.env.spawn, which keeps and names them"
            case ast.Call(func=ast.Name(id="create_task" | "ensure_future")):
                yield node.lineno, "create tasks with ssastore.env.spawn, which keeps and names them"


def vocabulary(source: Source) -> Complaints:
    if not source.is_package:
        return
    allowed = HTTP_WORDS if source.path.parts[1] == "s3" else set()
    for node in source.nodes:
        for name in names_defined_by(node):
            for word in (words_of_name(name) & NAME_WORDS_BANNED) - allowed:
                yield getattr(node, "lineno", 1), f"{name}: do not say {word} (docs/reference/glossary.md)"
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for word in words_of_prose(ast.get_docstring(node) or "") & PROSE_WORDS_BANNED:
                yield getattr(node, "lineno", 1), f"docstring: do not say {word} (docs/reference/glossary.md)"
    for line, comment in source.comments():
        for word in words_of_prose(comment) & PROSE_WORDS_BANNED:
            yield line, f"comment: do not say {word} (docs/reference/glossary.md)"


def workplace(source: Source) -> Complaints:
    yield from matching_lines(WORKPLACE, source, "belongs to one machine or one registry, not to the project")


def module_docstring(source: Source) -> Complaints:
    if source.is_package and source.text.strip() and not ast.get_docstring(source.tree):
        yield 1, "a module opens with what it is for"


def front_door_docstring(source: Source) -> Complaints:
    if not source.is_front_door:
        return
    for node in source.tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not name.startswith("_") and not ast.get_docstring(node):
                    yield node.lineno, f"{name} is public: its docstring states the contract"


def matching_lines(pattern: re.Pattern[str], source: Source, why: str) -> Complaints:
    # One search of the whole text first: nearly every file is clean.
    if pattern.search(source.text):
        for number, line in enumerate(source.text.splitlines(), 1):
            if found := pattern.search(line):
                yield number, f"{found[0]} {why}"


def names_defined_by(node: ast.AST) -> Iterator[str]:
    """Names that this code chose; those of foreign interfaces (imports, keywords of calls) are not ours."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case (
            ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store())
        ):
            yield name


def words_of_name(name: str) -> set[str]:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    return words | {word.removesuffix("s") for word in words}


def words_of_prose(text: str) -> set[str]:
    return {word.lower().removesuffix("s") for word in re.findall(r"\b[A-Za-z]+\b", text)}


RULES: dict[str, Callable[[Source], Complaints]] = {
    rule.__name__: rule
    for rule in (
        module_length,
        function_length,
        unfinished,
        file_name,
        bare_task,
        vocabulary,
        workplace,
        module_docstring,
        front_door_docstring,
    )
}


@cache
def repository() -> list[Source]:
    sources = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        # In a further work tree .git is a file.
        for path in (Path(folder, name) for name in sorted(set(names) - SKIPPED_FOLDERS)):
            if path.is_file() and path.stat().st_size <= TEXT_BYTES_MAX:
                content = path.read_bytes()
                if b"\0" not in content:
                    sources.append(
                        Source(path.relative_to(ROOT).as_posix(), content.decode("utf-8", "replace"))
                    )
    return sources


@pytest.mark.parametrize("name", RULES)
def test_repository_is_tidy(name: str) -> None:
    complaints = [f"{s.path}:{line}: {what}" for s in repository() for line, what in RULES[name](s)]
    assert not complaints, "\n" + "\n".join(complaints)


def test_repository_is_found() -> None:
    """A walk that finds nothing would pass every rule."""
    paths = {source.path.as_posix() for source in repository()}
    assert paths >= {"Makefile", ".ci/run", "pyproject.toml", "ssastore/keyspace.py", "tests/test_tidy.py"}
    assert not any(path.startswith(".venv") for path in paths)


def ignored_and_tracked(repository: Path) -> list[str]:
    """Files that git tracks although a .gitignore names them."""
    command = ["git", "-C", str(repository), "ls-files", "--cached", "--ignored", "--exclude-standard"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout, but an archive of one")
def test_nothing_is_tracked_that_is_to_be_ignored() -> None:
    """Secrets that a command has made, wheels, results."""
    assert ignored_and_tracked(ROOT) == []


def test_a_tracked_secret_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}")
    (tmp_path / ".gitignore").write_text("secrets.json\n")
    for command in (["init", "-q"], ["add", "-f", "secrets.json"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert ignored_and_tracked(tmp_path) == ["secrets.json"]


def names_in_glossary(text: str) -> set[str]:
    """Identifiers and file names of the table's third column."""
    cells = [line.split("|")[3] for line in text.splitlines() if line.startswith("| ")]
    code = " ".join(found for cell in cells for found in re.findall("`([^`]+)`", cell))
    return set(re.findall(r"\w+\.py|[A-Za-z_]\w+", code))


def missing_from_package(names: set[str]) -> set[str]:
    package = [source for source in repository() if source.is_package]
    words = {word for source in package for word in re.findall(r"\w+", source.text)}
    return names - words - {source.path.name for source in package}


def test_glossary_names_what_the_code_has() -> None:
    names = names_in_glossary((ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8"))
    assert names >= {"Slice", "is_reserved_iid", "greeting.py"}
    assert not missing_from_package(names)


def test_glossary_entry_without_code_is_noticed() -> None:
    names = names_in_glossary("| ring | all of it | `RingBuffer`, `ring.py`, `Slice` | |\n")
    assert missing_from_package(names) == {"RingBuffer", "ring.py"}


def foreign_imports(source: Source) -> set[str]:
    """Top-level packages that a file imports and that are neither ours nor Python's."""
    found: set[str] = set()
    for node in source.nodes:
        match node:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"ssastore"}


MODULE_OF_PACKAGE = {"dnspython": "dns"}


def declared_packages() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[^\w-]", requirement)[0] for group in groups for requirement in group}
    return declared | {module for package, module in MODULE_OF_PACKAGE.items() if package in declared}


def test_every_foreign_import_is_declared() -> None:
    """What happens to be installed here is missing in a fresh installation."""
    used = set().union(*(foreign_imports(source) for source in repository() if source.is_package))
    assert used >= {"lmdb", "msgpack", "xxhash"}
    assert used <= declared_packages()


def test_undeclared_import_is_noticed() -> None:
    ours = "import os\nfrom ssastore import env\nfrom . import x\n"
    planted = ours + "import numpy.linalg\nif x:\n    from rich.text import Text\n"
    assert not foreign_imports(Source("ssastore/x.py", ours))
    assert foreign_imports(Source("ssastore/x.py", planted)) - declared_packages() == {"numpy", "rich"}


def function_of(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


PLANTS = [
    (module_length, "bench/x.py", "x = 1\n" * 501),
    (function_length, "ssastore/core/x.py", function_of(71)),
    (unfinished, "tests/unit/x.py", "x = 1  # TO" + "DO: y\n"),
    (unfinished, "ssastore/x.py", "def f():\n    raise NotImplemented" + "Error\n"),
    (file_name, "ssastore/store/utils.py", ""),
    (file_name, "tests/helpers.py", ""),
    (bare_task, "ssastore/node.py", "import asyncio\ntask = asyncio.create_task(f())\n"),
    (bare_task, "ssastore/core/x.py", "asyncio.get_running_loop().create_task(f())\n"),
    (bare_task, "ssastore/worker.py", "self._loop.create_task(f())\n"),
    (bare_task, "ssastore/worker.py", "from asyncio import ensure_future\nensure_future(f())\n"),
    (vocabulary, "ssastore/core/x.py", "def elect_leader(): ...\n"),
    (vocabulary, "ssastore/core/x.py", "class MasterNode: ...\n"),
    (vocabulary, "ssastore/core/x.py", "def f(vnodes): ...\n"),
    (vocabulary, "ssastore/core/x.py", "self.redirect_count = 1\n"),
    (vocabulary, "ssastore/core/x.py", 'def f():\n    """Ask the master."""\n'),
    (vocabulary, "ssastore/core/x.py", "x = 1  # the donor sends it\n"),
    (workplace, "docs/x.md", "see /wor" + "k/notes\n"),
    (workplace, ".ci/run", "pip install -i https://pyp" + "i.org/simple x\n"),
    (workplace, "README.md", "from files.pythonhoste" + "d.org\n"),
    (workplace, "Makefile", "npm --registry=https://registry.npmj" + "s.org\n"),
    (module_docstring, "ssastore/core/x.py", "import json\n"),
    (front_door_docstring, "ssastore/client.py", '"""Doc."""\n\n\ndef put(): ...\n'),
    (front_door_docstring, "ssastore/client.py", '"""Doc."""\n\n\nclass Client: ...\n'),
]
NEAR_MISSES = [
    (module_length, "bench/x.py", "x = 1\n" * 500),
    (module_length, "bench/baselines/x.json", "1\n" * 501),
    (module_length, "tests/unit/test_x.py", "x = 1\n" * 501),
    (function_length, "ssastore/core/x.py", function_of(70)),
    (unfinished, "ssastore/x.py", "MASTODON = NotImplemented\n"),
    (file_name, "ssastore/store/longkeys.py", ""),
    (bare_task, "ssastore/env.py", "asyncio.get_running_loop().create_task(f())\n"),
    (bare_task, "ssastore/node.py", "group.create_task(f())\nspawn('name', f())\n"),
    (vocabulary, "ssastore/lab/x.py", "link('set', index=3, master=4)  # attach the port to its bridge\n"),
    (vocabulary, "ssastore/x.py", '"""No map of nodes, no leader, no redirect."""\nstring = remaster = 1\n'),
    (vocabulary, "ssastore/s3/errors.py", "class PermanentRedirect: ...\n"),
    (workplace, "docs/x.md", "the network/work/load; a worker; `make work`\n"),
    (module_docstring, "ssastore/core/__init__.py", ""),
    (module_docstring, "tests/unit/x.py", "import json\n"),
    (front_door_docstring, "ssastore/client.py", "def _private(): ...\n"),
    (front_door_docstring, "ssastore/core/x.py", "def inner(): ...\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTS)
def test_planted_offence_is_caught(rule: Callable[[Source], Complaints], path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), NEAR_MISSES)
def test_near_miss_is_left_alone(rule: Callable[[Source], Complaints], path: str, text: str) -> None:
    assert not list(rule(Source(path, text)))


def test_every_rule_has_been_seen_red() -> None:
    assert {rule.__name__ for rule, _, _ in PLANTS} == set(RULES)
