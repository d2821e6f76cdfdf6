"""The exception tree is the one that errors.py draws, and callers can rely on its promises."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from ssastore import errors
from ssastore.errors import SsaStoreError

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, BaseException) and found.__module__ == errors.__name__
]
Tree = dict[str, tuple[str, str]]
"Class name -> names of its parent in the tree and of the built-in exception that it also is ('' for none)."


def tree_of_classes() -> Tree:
    tree: Tree = {}
    for found in CLASSES:
        if found is not SsaStoreError:
            parent, *builtins = [base.__name__ for base in found.__bases__]
            tree[found.__name__] = parent, " ".join(builtins)
    return tree


def tree_of_drawing(drawing: str) -> Tree:
    """A line with a branch opens a parent; a line with a bare stem lists its children.

    A line that is set in further lists the children of the last of them.
    """
    tree: Tree = {}
    parent = name = ""
    for line in drawing.splitlines():
        if branch := re.match(r" *[├└]─ (\w+)(?: \((\w+)\))?(?:  |$)", line):
            parent = branch[1]
            tree[parent] = "SsaStoreError", branch[2] or ""
        elif children := re.fullmatch(r" *[│ ] {4}((?:\w+(?: \(\w+\))?(?:, |$))+)", line):
            for child in children[1].split(", "):
                name, _, builtin = child.partition(" ")
                tree[name] = parent, builtin.strip("()")
        elif grandchildren := re.fullmatch(r" *[│ ] {6}((?:\w+(?:, |$))+)", line):
            tree |= dict.fromkeys(grandchildren[1].split(", "), (name, ""))
    return tree


def test_the_drawing_is_the_tree() -> None:
    assert errors.__doc__
    assert tree_of_drawing(errors.__doc__) == tree_of_classes()


def test_a_stale_drawing_is_noticed() -> None:
    """The parser reads every line: each change to the drawing changes the tree that it gives."""
    drawing = errors.__doc__ or ""
    for stale in (
        drawing.replace("    │    BadFrame, UnexpectedMessage, Misdirected\n", ""),
        drawing.replace("Overloaded", "Overworked"),
        drawing.replace(" (ConnectionError)", ""),
        drawing.replace("├─ NotMine ", "├─ NotOurs "),
        drawing.replace("└─ ConfigError (ValueError)", "└─ ConfigError"),
    ):
        assert stale != drawing
        assert tree_of_drawing(stale) != tree_of_classes()


def test_every_error_is_of_the_family() -> None:
    assert len(CLASSES) > 20
    assert all(issubclass(found, SsaStoreError) for found in CLASSES)


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_error_documents_itself(found: type[SsaStoreError]) -> None:
    own = vars(found)["__doc__"] or ""
    assert own.splitlines()[0].endswith(".")


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_message_survives_and_travels(found: type[SsaStoreError]) -> None:
    """Some are OSErrors, whose constructor treats its arguments in its own way; workers pickle them."""
    error = found("slice 1a3f is not here")
    assert str(error) == "slice 1a3f is not here"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is found and str(copy) == str(error)


@pytest.mark.parametrize(
    "found", [c for c in CLASSES if issubclass(c, errors.TryLater)], ids=lambda found: found.__name__
)
def test_try_later_carries_its_hint(found: type[errors.TryLater]) -> None:
    assert found("busy").retry_after_ms > 0
    error = found("busy", 250)
    assert (str(error), error.retry_after_ms) == ("busy", 250)
    assert found("busy", retry_after_ms=250).retry_after_ms == 250
    assert pickle.loads(pickle.dumps(error)).retry_after_ms == 250


def test_what_may_be_retried_is_apart_from_what_may_not() -> None:
    """No class is on both sides: a retry loop catches TryLater and nothing that can never succeed."""
    never = (errors.RequestError, errors.AccessDenied, errors.Conflict, errors.ConfigError, errors.PeerError)
    for found in CLASSES:
        assert not (issubclass(found, errors.TryLater) and issubclass(found, never))
