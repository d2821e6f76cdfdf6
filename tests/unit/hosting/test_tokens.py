"""A token works once, for one host, for a while; and what is no token is told apart without repeating it."""

from __future__ import annotations

import base64
import json
import stat
import threading
from pathlib import Path

import pytest

from ssastore.core.cluster import NodeRecord
from ssastore.errors import AccessDenied, ConfigError
from ssastore.hosting.tokens import Token, TokenBook, decode_token

N2, N3 = NodeRecord("n2", "fd00::2", zone="b"), NodeRecord("n3", "fd00::3")
TOKEN = Token("fd00::1", 7484, "store.example", "ab" * 32, "cd" * 16)


@pytest.fixture
def book(tmp_path: Path) -> TokenBook:
    return TokenBook(tmp_path / "tokens.json")


def test_a_token_is_one_word_and_comes_back() -> None:
    text = TOKEN.encode()
    assert decode_token(f"  {text}\n") == TOKEN
    assert text.startswith("ssaj1.") and len(text.split()) == 1


def of(value: object) -> str:
    return "ssaj1." + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssaj1.",
        "ssaj2." + TOKEN.encode().removeprefix("ssaj1."),
        TOKEN.encode()[:-9],
        of(["fd00::1", 7484, "n", "f"]),
        of(["fd00::1", "7484", "n", "f", "cd"]),
        of({"address": "fd00::1"}),
        of("x" * 3000),
        "ssaj1.\N{SNOWMAN}",
    ],
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(ConfigError, match="that is no token") as caught:
        decode_token(text)
    assert text[7:20] not in str(caught.value) or not text[7:20]


def test_it_works_once(book: TokenBook, tmp_path: Path) -> None:
    secret = book.issue(N2, ttl_s=60)
    text = (tmp_path / "tokens.json").read_text()
    assert secret not in text and stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600
    assert book.open_until() > 0
    assert book.use(secret) == N2
    assert book.open_until() == 0
    # Also for whoever reads the file anew.
    with pytest.raises(AccessDenied, match="used already"):
        TokenBook(tmp_path / "tokens.json").use(secret)
    with pytest.raises(AccessDenied, match="not known here"):
        book.use("cd" * 16)


def test_of_many_at_once_one_is_admitted(book: TokenBook) -> None:
    secret = book.issue(N2, ttl_s=60)
    admitted: list[NodeRecord] = []

    def come() -> None:
        try:
            admitted.append(book.use(secret))
        except AccessDenied:
            pass

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted == [N2]


def test_it_ends_by_itself_and_by_the_next_one(book: TokenBook) -> None:
    late = book.issue(N2, ttl_s=0)
    with pytest.raises(AccessDenied, match="is over"):
        book.use(late)
    first, other = book.issue(N2, ttl_s=60), book.issue(N3, ttl_s=60)
    second = book.issue(N2, ttl_s=60)
    with pytest.raises(AccessDenied):
        book.use(first)
    assert (book.use(second), book.use(other)) == (N2, N3)


def test_a_file_that_is_none_is_said(book: TokenBook, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokens\.json: not JSON"):
        book.issue(N2, ttl_s=60)
