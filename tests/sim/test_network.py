"""What the simulated network does and the loopback cannot: routes, cuts, resets, hosts that die."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address
from typing import Any, TypeVar

import pytest

from ssastore.keyspace import Slice, address_of, slice_of
from ssastore.limits import DIAL_TIMEOUT_MS
from ssastore.sim.clock import NS_PER_MS, NS_PER_S
from ssastore.sim.dial import VirtualLinks
from ssastore.sim.host import Host
from ssastore.sim.links import Weather
from ssastore.sim.swarm import Swarm
from ssastore.sim.traps import Forbidden
from ssastore.sim.world import World

T = TypeVar("T")

PORT = 7480
PIECE = slice_of(0, 0xA3F)
IID = PIECE.first + 5


class Keeper(asyncio.Protocol):
    """Keeps what happens to it and echoes what it is told to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.transport: Any = None
        self.is_echo = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.is_echo:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(type(exc).__name__ if exc else "lost")


class Pair:
    """Two hosts: ``a`` listens and answers for PIECE, ``b`` dials."""

    def __init__(self, seed: int = 1, weather: Weather | None = None) -> None:
        quick = Weather(latency_ns=NS_PER_MS, jitter_ns=0, split_share=0)
        self.world = World(seed, Swarm(weather or quick))
        self.network = self.world.network
        self.accepted: list[Keeper] = []
        self.a = self.world.host("a", self._listen)
        self.b = self.world.host("b")
        self.a.accept(PIECE)
        self.network.routing.announce(PIECE, "a")
        self.is_echo = False

    def _accept(self) -> Keeper:
        self.accepted.append(Keeper())
        self.accepted[-1].is_echo = self.is_echo
        return self.accepted[-1]

    async def _listen(self, host: Host) -> None:
        await asyncio.get_running_loop().create_server(self._accept, "::", PORT)

    def start(self) -> None:
        self.a.start()
        self.b.start()

    async def dial(self, iid: int = IID, port: int = PORT) -> Keeper:
        """From b, by address of the service."""
        address = address_of(self.network.service, iid)
        near: Keeper = await self.b.spawn("dial", VirtualLinks().dial(address, port, Keeper))
        return near

    async def pair(self) -> tuple[Keeper, Keeper]:
        near = await self.dial()
        await seconds(0.1)
        return near, self.accepted[-1]

    @property
    def now_s(self) -> float:
        return self.network.loop.now_ns / NS_PER_S


async def seconds(count: float) -> None:
    await asyncio.sleep(count)


def played(scenario: Callable[[Pair], Awaitable[T]], pair: Pair | None = None) -> T:
    """Run a scenario from the world, with both hosts started."""
    pair = pair or Pair()

    async def main() -> T:
        pair.start()
        await seconds(0.1)
        return await scenario(pair)

    return pair.world.run(main())


# -- dialling and routes -------------------------------------------------------------------------------


def test_a_dial_reaches_who_owns_the_address() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        assert far.transport.get_extra_info("sockname")[:2] == (
            str(address_of(pair.network.service, IID)),
            PORT,
        )
        assert far.transport.get_extra_info("peername")[0] == str(pair.b.address)
        assert near.events == far.events == ["made"]

    played(scenario)


def test_the_longest_prefix_wins() -> None:
    async def scenario(pair: Pair) -> None:
        c = pair.world.host("c", pair._listen)
        c.start()
        part = Slice(PIECE.first, PIECE.depth + 4)
        c.accept(part)
        pair.network.routing.announce(part, "c")
        await seconds(1)
        assert pair.network.routing.lookup("b", IID) == "c"
        assert pair.network.routing.lookup("b", PIECE.end - 1) == "a"
        pair.network.routing.withdraw(part)
        assert pair.network.routing.lookup("b", IID) == "a"

    played(scenario)


def test_each_host_hears_of_a_route_at_a_time_of_its_own() -> None:
    """And a change that was overtaken by a later one does not come back."""
    pair = Pair()
    for index in range(10):
        pair.world.host(f"h{index}")
    routing = pair.network.routing
    routing.lag_ns_max = 30 * NS_PER_S

    async def scenario(pair: Pair) -> None:
        seen: set[tuple[str | None, ...]] = set()
        for owner in ("b", "a", "b"):
            routing.announce(PIECE, owner)
            await seconds(1)
        for _ in range(31):
            seen.add(tuple(routing.lookup(name, IID) for name in pair.network.hosts))
            await seconds(1)
        assert len(seen) > 5
        assert {routing.lookup(name, IID) for name in pair.network.hosts} == {"b"}

    played(scenario, pair)


def test_dials_fail_as_the_kernel_lets_them() -> None:
    async def failure(pair: Pair, iid: int, port: int = PORT) -> int | None:
        with pytest.raises(OSError) as caught:
            await pair.dial(iid, port)
        return caught.value.errno

    async def scenario(pair: Pair) -> None:
        elsewhere = slice_of(0, 0x111)
        assert await failure(pair, elsewhere.first + 9) == errno.ENETUNREACH
        pair.network.routing.announce(elsewhere, "a")
        assert await failure(pair, elsewhere.first + 9) == errno.EHOSTUNREACH
        assert await failure(pair, IID, 9) == errno.ECONNREFUSED
        pair.a.kill()
        assert await failure(pair, IID) == errno.ECONNREFUSED
        pair.a.start()
        await seconds(0.1)
        pair.a.power_off()
        before = pair.now_s
        assert await failure(pair, IID) is None
        assert pair.now_s - before == pytest.approx(DIAL_TIMEOUT_MS / 1000, abs=0.01)

    played(scenario)


def test_a_dial_through_a_short_cut_succeeds_at_the_second_packet() -> None:
    async def scenario(pair: Pair) -> None:
        heal = pair.network.cut([pair.b], [pair.a])
        pair.network.loop.at(pair.network.loop.now_ns + NS_PER_S // 2, heal)
        before = pair.now_s
        await pair.dial()
        assert 1.0 <= pair.now_s - before < 1.1

    played(scenario)


def test_a_dial_that_nobody_limits_ends_after_a_minute() -> None:
    async def scenario(pair: Pair) -> None:
        pair.network.cut([pair.a], [pair.b])

        async def dial() -> None:
            await asyncio.get_running_loop().create_connection(Keeper, str(pair.a.address), PORT)

        with pytest.raises(TimeoutError):
            await pair.b.spawn("dial", dial())
        assert 60 < pair.now_s < 70

    played(scenario)


def test_refusals_come_as_often_as_the_weather_says() -> None:
    async def scenario(pair: Pair) -> int:
        refused = 0
        for _ in range(100):
            try:
                (await pair.dial()).transport.abort()
            except ConnectionRefusedError:
                refused += 1
        return refused

    assert 10 < played(scenario, Pair(weather=Weather(refused_share=0.3))) < 60


def test_only_hosts_have_a_network() -> None:
    async def scenario(pair: Pair) -> None:
        with pytest.raises(Forbidden):
            await VirtualLinks().dial(IPv6Address("::1"), PORT, Keeper)

    played(scenario)


# -- links ---------------------------------------------------------------------------------------------


def test_a_cut_holds_bytes_up_and_loses_none() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        heal = pair.network.cut([pair.b], [pair.a])
        for number in range(10):
            near.transport.write(b"%d" % number)
            await seconds(0.1)
        far.transport.write(b"the other way is open")
        await seconds(1)
        assert far.data == b""
        assert near.data == b"the other way is open"
        heal()
        await seconds(4)
        assert far.data == b"0123456789"

    for seed in range(5):
        played(scenario, Pair(seed, Weather(split_share=0.5)))


def test_bytes_before_and_after_the_healing_keep_their_order() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        heal = pair.network.cut([pair.b], [pair.a])
        near.transport.write(b"first ")
        await seconds(2)
        heal()
        near.transport.write(b"second")
        await seconds(0.01)
        assert far.data == b""  # the first is sent again some time after the healing
        await seconds(4)
        assert far.data == b"first second"

    played(scenario)


def test_two_cuts_of_one_link_need_two_healings() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        heals = [pair.network.cut([pair.b], [pair.a]) for _ in range(2)]
        near.transport.write(b"x")
        for heal in (heals[0], heals[0]):
            heal()
            await seconds(10)
            assert far.data == b""
        heals[1]()
        await seconds(20)
        assert far.data == b"x"

    played(scenario)


def test_without_acknowledgements_the_window_closes() -> None:
    """A cut the other way: bytes get through until the window is full, then the writer is stopped."""

    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        heal = pair.network.cut([pair.a], [pair.b])
        for _ in range(300):
            near.transport.write(b"x" * 1000)
            await seconds(0.01)
        assert len(far.data) == 10_000
        assert "pause" in near.events
        heal()
        await seconds(20)
        assert len(far.data) == 300_000

    played(scenario, Pair(weather=Weather(window_bytes=10_000)))


def test_bandwidth_bounds_what_passes() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        near.transport.write(bytes(1_000_000))
        await seconds(0.5)
        assert 400_000 < len(far.data) < 600_000
        await seconds(0.6)
        assert len(far.data) == 1_000_000

    played(scenario, Pair(weather=Weather(bytes_per_s=1_000_000, split_share=0, window_bytes=20_000)))


def test_pieces_are_cut_anywhere() -> None:
    """The same ten bytes arrive in pieces of every length."""
    lengths: set[int] = set()

    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        received = far.data_received

        def measured(data: bytes) -> None:
            lengths.add(len(data))
            received(data)

        far.data_received = measured  # type: ignore[method-assign]
        for _ in range(50):
            near.transport.write(b"0123456789")
            await seconds(1)
        assert far.data == b"0123456789" * 50

    played(scenario, Pair(weather=Weather(split_share=0.8, jitter_ns=10_000_000)))
    assert lengths >= set(range(1, 11))


# -- connections that end badly ------------------------------------------------------------------------


def test_a_reset_reaches_the_two_ends_at_different_times() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        pair.network.reset(pair.b, 0, (0, NS_PER_S))
        near.transport.write(b"on the way")
        await seconds(0.5)
        assert near.events == ["made", "ConnectionResetError"]
        assert far.events == ["made"]
        assert far.data == b"on the way"  # it was on the wire when its writer was reset
        await seconds(1)
        assert far.events == ["made", "ConnectionResetError"]
        assert not pair.a.sockets
        assert not pair.b.sockets

    played(scenario)


def test_what_was_sent_before_an_abort_can_arrive_after_it() -> None:
    """The late twin of a request: the client has given up and dialled again, and then it arrives."""

    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        near.transport.write(b"late")
        near.transport.abort()
        await seconds(0)
        assert far.data == b""
        await seconds(0.1)
        assert far.data == b"late"
        assert far.events == ["made", "eof", "lost"]

    played(scenario)


@pytest.mark.parametrize("wait_s", [0, 1])
def test_bytes_in_a_cut_link_die_with_their_writer(wait_s: float) -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        heal = pair.network.cut([pair.b], [pair.a])
        near.transport.write(b"never")
        await seconds(wait_s)
        pair.b.power_off()
        await seconds(1)
        heal()
        await seconds(100)
        assert far.data == b""
        assert far.events == ["made"]  # half-open: nobody tells it

    played(scenario)


def test_a_host_that_lost_power_is_noticed_when_it_is_back() -> None:
    async def scenario(pair: Pair) -> None:
        near, _ = await pair.pair()
        pair.a.power_off()
        near.transport.write(b"anybody there?")
        await seconds(1000)
        assert near.events == ["made"]
        pair.a.start()
        await seconds(1)
        near.transport.write(b"and now?")
        await seconds(1)
        assert near.events == ["made", "ConnectionResetError"]
        assert (await pair.pair())[1].events == ["made"]

    played(scenario)


def test_a_killed_process_has_its_connections_closed() -> None:
    async def scenario(pair: Pair) -> None:
        near, far = await pair.pair()
        pair.a.kill()
        await seconds(1)
        assert near.events == ["made", "eof", "lost"]
        assert far.events == ["made"]  # it is dead and hears of nothing
        assert not pair.a.sockets

    played(scenario)


def test_a_handshake_whose_last_packet_is_lost_leaves_one_end_open() -> None:
    async def scenario(pair: Pair) -> None:
        near = await pair.dial()
        heal = pair.network.cut([pair.b], [pair.a])
        await seconds(1)
        assert near.events == ["made"]
        assert not pair.accepted
        pair.a.kill()
        heal()
        await seconds(10)
        assert near.events[-1] in ("ConnectionResetError", "lost")

    played(scenario)


def test_a_listener_that_closes_during_a_handshake_resets_it() -> None:
    async def scenario(pair: Pair) -> None:
        near = await pair.dial()
        pair.a.listeners[0].close()
        await seconds(1)
        assert near.events == ["made", "ConnectionResetError"]
        assert not pair.a.sockets

    played(scenario)


def test_a_paused_process_is_connected_to_and_answers_later() -> None:
    async def scenario(pair: Pair) -> None:
        pair.is_echo = True
        pair.a.pause()
        near = await pair.dial()
        near.transport.write(b"hello")
        await seconds(100)
        assert near.data == b""
        assert not pair.accepted
        pair.a.resume()
        await seconds(0.1)
        assert near.data == b"hello"

    played(scenario)


def test_a_restarted_host_runs_its_program_and_has_forgotten_the_rest() -> None:
    async def scenario(pair: Pair) -> None:
        forgotten: list[float] = []
        pair.a.on_down.append(lambda: forgotten.append(pair.now_s))
        first = pair.a.process, pair.a.randomness().bytes(8)
        pair.a.pause()
        pair.a.kill()
        with pytest.raises(ConnectionRefusedError):
            await pair.dial()
        pair.a.start()
        await seconds(0.1)
        await pair.pair()
        assert len(forgotten) == 1
        assert (pair.a.process, pair.a.randomness().bytes(8)) != first
        assert pair.a.process.name == "a.1"

    played(scenario)


def test_a_dial_of_a_process_that_died_is_forgotten() -> None:
    async def scenario(pair: Pair) -> None:
        dialling = pair.b.spawn("dial", VirtualLinks().dial(pair.a.address, PORT, Keeper))
        await seconds(0)
        pair.b.kill()
        await seconds(10)
        assert not dialling.done()
        assert not pair.accepted
        assert not pair.a.sockets

    played(scenario)
