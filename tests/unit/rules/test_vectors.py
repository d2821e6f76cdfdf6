"""The generator, the check and the specification's text agree: on the published vectors, and on drawn ones.

SSASTORE_TEST_RULES sets how many are drawn for each rule (``make rules``: 10,000).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys, hash_of, token_of
from ssastore.rules.rule import rule_from_text
from ssastore.rules.vectors import RULES, as_json, changed, vectors
from ssastore.rules.verdict import Verdict, blind_rate, check
from tests.unit.rules import reference

PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "docs" / "reference" / "rules-vectors.json").read_text(encoding="utf-8")
)
COUNT = int(os.environ.get("SSASTORE_TEST_RULES", "60"))
WRONG = max(10_000, COUNT * 100)


def test_published_vectors_are_what_the_command_prints() -> None:
    assert as_json(3, 1) == PUBLISHED


def test_the_hash_of_the_paper() -> None:
    # Appendix A: key 00..0f, message 00..0e.
    assert reference.siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    key = bytes(range(1, 17))
    assert hash_of(key, 3, "L", 5, 7) == reference.sip(key, 3, "L", 5, 7)
    assert token_of(key, 9) == reference.token(key, 9)


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: f"{entry['rule']}-{entry['plane']}")
def test_published_vector(entry: dict[str, Any]) -> None:
    assert f"{reference.generated(entry):016x}" == entry["iid"]
    position = int(entry["position"], 16)
    for verdict in entry["verdicts"]:
        assert verdict["verdict"] == reference.accepted(
            entry["rule"],
            int(verdict["source"], 16),
            int(verdict["iid"], 16),
            verdict["epoch"],
            [bytes.fromhex(entry["public"])],
            [bytes.fromhex(entry["secret"])],
            position if verdict["name"] else None,
        )


@pytest.mark.parametrize("text", RULES)
def test_drawn_vectors(text: str) -> None:
    rule = rule_from_text(text)
    seen: Counter[str] = Counter()
    for vector in vectors(rule, COUNT, seed=2):
        iid = vector.iid()
        for what, source, changed_iid, epoch in changed(vector, iid):
            position = vector.position if rule.needs_name and vector.free & 1 else None
            verdict = check(
                rule, source, changed_iid, epoch=epoch, keys=vector.service_keys, position=position
            )
            public, secret = [vector.public], [vector.secret]
            assert verdict == reference.accepted(text, source, changed_iid, epoch, public, secret, position)
            if what == "as it is":
                assert not verdict.is_break
            if verdict.is_break:
                seen[what] += 1
    assert seen["a reserved identifier"] == COUNT
    if rule.is_hashed:
        # One bit of 32 or more: none of so few gets through, but for a nonce of 8 bits.
        mean = COUNT * len(rule.epochs_allowed(1)) / 2**rule.work_bits if rule.work_bits else 0
        lucky = mean + 5 * mean**0.5 + bool(mean)
        for what in ("last bit of the tail", "another source"):
            assert seen[what] >= COUNT - lucky, what
        assert not rule.hop_s or (seen["the next epoch"] == 0 and seen["two epochs later"] >= COUNT - lucky)


@pytest.mark.parametrize(
    "text", ["source", "keyed", "pow:8", "content+source", "content+source+pow:8", "source+hop:5"]
)
@pytest.mark.parametrize("knows_locator", [False, True])
def test_wrong_addresses_pass_no_more_often_than_the_width_allows(text: str, knows_locator: bool) -> None:
    rule, random, keys = rule_from_text(text), Random(text), ServiceKeys(secrets=(bytes(range(16)),))
    rate = blind_rate(rule, keys)
    if knows_locator and rule.locator.name in ("SOURCE", "KEYED"):
        rate *= 2**28 / len(rule.epochs_allowed(1))
    source = random.getrandbits(64)
    client = ClientKeys(token=token_of(keys.secrets[0], source))
    locator = (
        address_under(rule, 0, source, epoch=77, position=random.getrandbits(60), keys=client) >> 32 << 32
    )
    passed = 0
    for _ in range(WRONG):
        iid = locator | random.getrandbits(32) if knows_locator else random.getrandbits(60)
        passed += check(rule, source, iid, epoch=77, keys=keys) is Verdict.KEPT
    expected = rate * WRONG
    known = "right" if knows_locator else "any"
    print(f"{text}, {known} locator: {passed} of {WRONG:,} passed, expected {expected:.3g}")
    assert passed <= expected + 5 * expected**0.5 + 0.5
    assert passed >= expected - 5 * expected**0.5 - 0.5
