"""Overwrites go round the keys that were filled in, and read back as what was written."""

from __future__ import annotations

from ssastore.load import Load, round_of


class Recorder:
    """Implements ``bench.load.Client`` in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.puts = 0

    async def put(self, key: str, data: bytes) -> None:
        self.puts += 1
        self.kept[key] = data

    async def get(self, key: str) -> bytes:
        return self.kept[key]

    async def close(self) -> None:
        """Nothing is open."""


async def test_overwrites_touch_only_keys_that_are_there() -> None:
    client = Recorder()
    load = Load(client)
    wanted = round_of("overwrite", size=64, inflight=4, seconds=0.05)
    await load.fill(wanted)
    filled, keys = client.puts, set(client.kept)
    measured = await load.run(wanted)
    assert client.puts == filled + measured.ops > filled and set(client.kept) == keys
    assert (await load.run(round_of("get", size=64, inflight=4, seconds=0.05))).ops > 0
