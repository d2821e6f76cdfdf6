"""``ssastore rule``: addresses and verdicts from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ssastore.cli import cli

SERVICE, SOURCE = "2001:db8:5a:1::", "2001:db8:77:8::9"


def run(*words: str, given: str = "") -> Result:
    return CliRunner().invoke(cli, ["rule", *words], input=given)


def test_an_address_that_is_made_passes_and_another_does_not(tmp_path: Path) -> None:
    made = run("address", "source+hop:30", SERVICE, "--source", SOURCE, "--at", "1800000000").output.strip()
    assert made.startswith("2001:db8:5a:1:f")
    passed = run("check", "source+hop:30", made, "--source", SOURCE, "--at", "1800000029")
    assert (passed.exit_code, passed.output) == (0, "kept\n")
    late = run("check", "source+hop:30", made, "--source", SOURCE, "--at", "1800000060")
    assert (late.exit_code, late.output) == (1, "locator\n")


def test_keyed_addresses_need_the_token(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("00112233445566778899aabbccddeeff\n")
    token = run("token", SOURCE, "--secret-file", str(secret)).output
    assert len(token.strip()) == 32
    made = run(
        "address", "keyed", SERVICE, "--source", SOURCE, "--token-file", "-", given=token
    ).output.strip()
    asked = ("check", "keyed", made, "--source", SOURCE)
    assert run(*asked, "--secret-file", str(secret)).output == "kept\n"
    assert run(*asked).output == "locator\n"
    without = run("address", "keyed", SERVICE, "--source", SOURCE)
    assert "a token is needed" in str(without.exception)


def test_position_and_public_key_count() -> None:
    place, key = ("--position", "8b65d073f925c9d"), "ab" * 16
    words = ("content+source", SERVICE, "--source", SOURCE, "--plane", "0")
    made = run("address", *words, *place, "--public", key).output.strip()
    asked = ("check", "content+source", made, "--source", SOURCE)
    assert run(*asked, "--public", key, *place).output == "kept\n"
    assert run(*asked, "--public", key, "--position", "1").output == "locator\n"
    assert run(*asked, *place).output == "tail\n"


def test_vectors_are_json_and_the_same_each_time() -> None:
    first = run("vectors", "--count", "1").output
    assert first == run("vectors", "--count", "1").output
    assert first != run("vectors", "--count", "1", "--seed", "2").output
    assert {"rule", "iid", "verdicts"} <= json.loads(first)[0].keys()


def test_show_says_what_a_rule_asks() -> None:
    shown = run("show", "pow:16+hop:30").output
    assert "2^16 = 65,536 hashes" in shown
    assert "an address passes for at most 60 s" in shown
    assert "probability" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show", "sauce"), "no such word"),
        (("address", "source", "here", "--source", SOURCE), "is no IPv6 address"),
        (("address", "source", SERVICE, "--source", SOURCE, "--plane", "10"), "is not 1 hexadecimal digits"),
        (("check", "source", SERVICE, "--source", SOURCE, "--public", "xyz"), "is not 32 hexadecimal digits"),
        (("check", "source", SERVICE, "--source", SOURCE, "--at", "-1"), "is no time"),
        (("check", "source", SERVICE, "--source", SOURCE, "--at", "nan"), "is no time"),
        (("check", "source", SERVICE, "--source", SOURCE, "--at", "1e300"), "is no time"),
    ],
)
def test_wrong_usage_is_one_line(words: tuple[str, ...], complaint: str) -> None:
    wrong = run(*words)
    assert wrong.exit_code == 2
    assert complaint in wrong.output
