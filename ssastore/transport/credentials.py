"""Secrets that open a connection, which may change while it is open."""

from __future__ import annotations

from dataclasses import dataclass

from ssastore.messages import Hello


@dataclass(slots=True)
class Credentials:
    """Access keys for clients, the cluster secret for nodes. One object is shared by all who use them."""

    cluster_secret: bytes
    access_keys: dict[str, bytes]
    further_secrets: tuple[bytes, ...] = ()
    "Of nodes that have another cluster secret yet, or already: while it is exchanged."

    def secrets_of(self, hello: Hello) -> tuple[bytes, ...]:
        """Those that prove the role in ``hello``; empty when there is no such key."""
        if hello.role == "node":
            return self.cluster_secret, *self.further_secrets
        secret = self.access_keys.get(hello.key_id)
        return () if secret is None else (secret,)

    def become(self, other: Credentials) -> None:
        """Take over what another object says. Connections that are open stay so."""
        self.cluster_secret, self.further_secrets = other.cluster_secret, other.further_secrets
        self.access_keys.clear()
        self.access_keys.update(other.access_keys)
