"""Proofs bind everything that both sides said; whoever believes another cluster finds out at once."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from ssastore.errors import ConfigError
from ssastore.keyspace import HASH_NAME, RULE_VERSION
from ssastore.messages import MAC_BYTES, PROTOCOL_VERSION, Hello, Welcome
from ssastore.transport.greeting import CLIENT_SIDE, NODE_SIDE, check_welcome, is_proof, proof

SECRET = b"secret"
HELLO = Hello(PROTOCOL_VERSION, HASH_NAME, RULE_VERSION, 3, "client", "KEY", b"c" * 16, "ab" * 16)
WELCOME = Welcome(PROTOCOL_VERSION, HASH_NAME, RULE_VERSION, 3, "ab" * 16, b"n" * 16)


def other(value: Any) -> Any:
    return value + 1 if type(value) is int else value[:-1] + (b"x" if type(value) is bytes else "x")


def test_proof_is_that_of_its_side() -> None:
    for side in (CLIENT_SIDE, NODE_SIDE):
        mac = proof(SECRET, side, HELLO, WELCOME)
        assert len(mac) == MAC_BYTES
        assert is_proof(mac, SECRET, side, HELLO, WELCOME)
    assert proof(SECRET, CLIENT_SIDE, HELLO, WELCOME) != proof(SECRET, NODE_SIDE, HELLO, WELCOME), (
        "else a client's proof could be sent back to it as the node's"
    )


def test_proof_needs_the_secret() -> None:
    mac = proof(SECRET, CLIENT_SIDE, HELLO, WELCOME)
    for secret in (b"", b"secrets", b"Secret"):
        assert not is_proof(mac, secret, CLIENT_SIDE, HELLO, WELCOME)
    for wrong in (b"", mac[:-1], mac + b"\0", bytes([mac[0] ^ 1]) + mac[1:]):
        assert not is_proof(wrong, SECRET, CLIENT_SIDE, HELLO, WELCOME)


@pytest.mark.parametrize("name", [field.name for field in fields(Hello)])
def test_proof_binds_every_field_of_the_hello(name: str) -> None:
    """Role, key, beliefs and nonce: nobody in between can change one of them."""
    changed = replace(HELLO, **{name: other(getattr(HELLO, name))})
    mac = proof(SECRET, NODE_SIDE, HELLO, WELCOME)
    assert not is_proof(mac, SECRET, NODE_SIDE, changed, WELCOME)


@pytest.mark.parametrize("name", [field.name for field in fields(Welcome)])
def test_proof_binds_every_field_of_the_welcome(name: str) -> None:
    changed = replace(WELCOME, **{name: other(getattr(WELCOME, name))})
    mac = proof(SECRET, CLIENT_SIDE, HELLO, WELCOME)
    assert not is_proof(mac, SECRET, CLIENT_SIDE, HELLO, changed)


@pytest.mark.parametrize("replicas", [0, 1, 3])
@pytest.mark.parametrize("cluster_id", ["", "ab" * 16])
def test_client_that_asks_for_no_other_cluster_goes_on(replicas: int, cluster_id: str) -> None:
    check_welcome(replace(HELLO, replicas=replicas, cluster_id=cluster_id), WELCOME)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("protocol", PROTOCOL_VERSION + 1, "protocol version"),
        ("hash_name", "siphash", "placement hash"),
        ("rule_version", 2, "rule version"),
        ("replicas", 1, "replicas"),
        ("cluster_id", "cd" * 16, "cluster id"),
    ],
)
def test_client_that_believes_otherwise_is_told_what_and_how(name: str, value: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        check_welcome(HELLO, replace(WELCOME, **{name: value}))
    assert f"{getattr(HELLO, name)} here, {value} there" in str(caught.value)
