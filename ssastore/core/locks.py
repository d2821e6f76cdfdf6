"""Locks of versions: what keeps one from being deleted. Pure.

``extra`` of an object has ``lock``, {"mode", "until_ms"}, and ``hold``, "ON" or "OFF" (S3's object lock).
"""

from __future__ import annotations

from ssastore.core.metadata import Metadata

GOVERNANCE = "GOVERNANCE"
"Can be overruled by who may and says so."
COMPLIANCE = "COMPLIANCE"
"Can be overruled by nobody."


def is_locked(metadata: Metadata, now_ms: int, *, may_bypass: bool = False) -> bool:
    """Whether a version must not be deleted now."""
    if metadata.extra.get("hold") == "ON":
        return True
    lock = metadata.extra.get("lock")
    if lock is None or lock["until_ms"] <= now_ms:
        return False
    return not (may_bypass and lock["mode"] == GOVERNANCE)
