"""The floods of ``python -m bench.filter``: what the frames are."""

from __future__ import annotations

import pytest

from bench.filterfloods import FRAME_BYTES, RECORD, frames
from bench.filterlab import SERVICE
from ssastore.rules.hashes import ServiceKeys
from ssastore.rules.record import record_from_text

LINK = b"\2" * 6, b"\4" * 6


def folded(words: bytes) -> int:
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(("kind", "sources"), [("wrong", 50), ("forged", 50), ("slow", 1)])
def test_frames_of_a_flood(kind: str, sources: int) -> None:
    """Whole, with right checksums, from as many /64 as they should be; only the wrong ones break the rule."""
    record, made, seen = record_from_text(RECORD), frames(kind, LINK, 50), set()
    for at in range(0, len(made), FRAME_BYTES):
        frame = made[at : at + FRAME_BYTES]
        assert frame[:14] == LINK[1] + LINK[0] + b"\x86\xdd" and len(frame) == FRAME_BYTES
        source, iid = int.from_bytes(frame[22:30], "big"), int.from_bytes(frame[46:54], "big")
        assert frame[38:46] == SERVICE.network_address.packed[:8]
        assert folded(frame[22:54] + (20 + 6).to_bytes(2, "big") + frame[54:]) == 0xFFFF
        verdict = record.check(source, iid, unix_s=0, keys=ServiceKeys())
        assert verdict.is_break == (kind == "wrong")
        seen.add(source)
    assert len(seen) == sources
