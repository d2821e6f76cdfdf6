"""The greeting: both sides show that they hold the same secret, neither sends it. Pure.

    client -> node   Hello    what the client believes, role, key id, nonce
    node -> client   Welcome  what the cluster is, nonce
    client -> node   Proof    HMAC(secret, "client" | Hello | Welcome)
    node -> client   Proof    HMAC(secret, "node" | Hello | Welcome), then COVERAGE

The MAC is HMAC-SHA-256 over both frames' headers, so role, cluster id, hash rule
and replica count are bound into it and neither side can be led to believe another
configuration: a mismatch is a ConfigError before the first request.  A cluster may have
more replicas than the client asks for, as it can get more while it runs; what keeps a client that knows
an older number from harm is that every request says what it was made for.
"""

from __future__ import annotations

import hashlib
import hmac

import msgpack

from ssastore.errors import ConfigError
from ssastore.keyspace import HASH_NAME, RULE_VERSION
from ssastore.messages import PROTOCOL_VERSION, Hello, Welcome

CLIENT_SIDE = b"client"
NODE_SIDE = b"node"

_DOMAIN = b"ssastore greeting 1\0"


def proof(secret: bytes, side: bytes, hello: Hello, welcome: Welcome) -> bytes:
    """The MAC that ``side`` sends."""
    transcript = msgpack.packb([side, hello.header(0), welcome.header(0)])
    return hmac.digest(secret, _DOMAIN + transcript, hashlib.sha256)


def is_proof(mac: bytes, secret: bytes, side: bytes, hello: Hello, welcome: Welcome) -> bool:
    """Whether ``mac`` is the proof of ``side``, in constant time."""
    return hmac.compare_digest(mac, proof(secret, side, hello, welcome))


def check_welcome(hello: Hello, welcome: Welcome) -> None:
    """Raise ConfigError unless client and cluster agree; 0 or empty in ``hello`` means "any"."""
    for what, mine, theirs in (
        ("protocol version", PROTOCOL_VERSION, welcome.protocol),
        ("placement hash", HASH_NAME, welcome.hash_name),
        ("rule version", RULE_VERSION, welcome.rule_version),
        ("replicas", max(hello.replicas, welcome.replicas), welcome.replicas),
        ("cluster id", hello.cluster_id or welcome.cluster_id, welcome.cluster_id),
    ):
        if mine != theirs:
            raise ConfigError(f"client and cluster disagree on the {what}: {mine} here, {theirs} there")
