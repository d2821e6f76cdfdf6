"""Gateways on virtual time: no address is ever without one, and nobody is cut off by a move."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv6Address, IPv6Network
from itertools import permutations
from typing import Any

from ssastore.control.memory import MemoryControlStore
from ssastore.core.cluster import NodeRecord
from ssastore.core.clusterview import ClusterView
from ssastore.core.front import FRONT_KEY, FrontRecord, GateRecord, gate_key
from ssastore.core.frontkeeper import FrontKeeper, Hands
from ssastore.core.frontlease import GateLease
from ssastore.core.frontview import FrontView, accepted_by_gate, announced_gates
from ssastore.core.routekeeper import RouteKeeper
from ssastore.env import Route, Write, spawn
from ssastore.errors import RouteRefused, Unavailable
from ssastore.keyspace import iid_of
from ssastore.limits import LEASE_MS
from ssastore.rebalance import form_cluster
from ssastore.routes.announced import AnnouncedRoutes
from ssastore.routes.memory import MemoryRoutes
from tests.registermodel import Seeded, run_virtually

SERVICE = IPv6Network("2001:db8:5a:1::/64")
PLACES = [IPv6Address(int(SERVICE.network_address) + iid_of(at << 48, 15)) for at in range(8, 4096, 64)]
"Addresses all over the front plane."


HOSTS = IPv6Network("fd00::/64")
network_of = cache(IPv6Network)


@dataclass
class Gate:
    """A gateway and its host: what it accepts, sends on, and who is connected to it."""

    name: str
    address: str
    keeper: FrontKeeper
    routes: MemoryRoutes
    announced: MemoryRoutes
    jobs: list[asyncio.Task[None]]
    view: FrontView
    sent_on: dict[IPv6Network, str] = field(default_factory=dict)
    connected: list[IPv6Address] = field(default_factory=list)
    ending: set[IPv6Address] = field(default_factory=set)

    def accepts(self, address: IPv6Address) -> bool:
        return any(address in network_of(route.prefix) for route in self.routes.installed())

    def die(self) -> None:
        for job in self.jobs:
            job.cancel()


class Site:
    """A control store, a router, and gateways."""

    announces = False
    "The router hears of the parts from gateways themselves."

    def __init__(self) -> None:
        self.control = MemoryControlStore()
        self.router = MemoryRoutes(HOSTS)
        self.gates: dict[str, Gate] = {}
        self.dead: set[str] = set()
        "Gateways that do not answer."
        self.overlaps: list[tuple[IPv6Network, ...]] = []
        "Prefixes that were sent on together."

    async def begin(self) -> None:
        await form_cluster(
            self.control, SERVICE, 1, [NodeRecord("n1", "fd00::1")], now_ms=1, random_bytes=Seeded(1).bytes
        )
        view, jobs = await self._view()
        keeper = RouteKeeper(view, self.router, announced_gates(view))
        keeper.begin()
        self.jobs = [*jobs, spawn("router", keeper.run())]

    async def _view(self) -> tuple[FrontView, list[asyncio.Task[None]]]:
        cluster = ClusterView(self.control)
        await cluster.load()
        view = FrontView(self.control, cluster)
        await view.load()
        return view, [spawn("cluster", cluster.run()), spawn("front", view.run())]

    async def join(self, number: int, routes: MemoryRoutes | None = None) -> Gate:
        view, jobs = await self._view()
        name, routes, announced = f"g{number}", routes or MemoryRoutes(HOSTS), MemoryRoutes(HOSTS)
        wanted = accepted_by_gate(view, name, announces=self.announces)
        both = AnnouncedRoutes(routes, announced) if self.announces else routes
        keeping = RouteKeeper(view, both, wanted, linger_ms=500)
        keeping.begin()

        async def send_on(wanted: Mapping[IPv6Network, str]) -> bool:
            # As nft has it: it takes no prefixes of which one is inside another.
            self.overlaps += [pair for pair in permutations(wanted, 2) if pair[0].overlaps(pair[1])]
            gate.sent_on = dict(wanted)
            return True

        async def retire(networks: Collection[IPv6Network]) -> Collection[IPv6Network]:
            gate.ending = {own for own in gate.connected if any(own in network for network in networks)}
            return [network for network in networks if any(own in network for own in gate.connected)]

        async def answers(address: str) -> bool:
            await asyncio.sleep(0.01)
            return any(gate.address == address and gate.name not in self.dead for gate in self.gates.values())

        record = GateRecord(name, f"fd00::1:{number}")
        leased = GateLease(self.control, record, lambda: True)
        await leased.claim()
        hands = Hands(lambda: keeping.has_all, send_on, retire, answers)
        keeper = FrontKeeper(self.control, view, record, leased, hands)
        jobs += [spawn("routes", keeping.run()), spawn("keeper", keeper.run())]
        gate = self.gates[name] = Gate(name, f"fd00::1:{number}", keeper, routes, announced, jobs, view)
        return gate

    @property
    def record(self) -> FrontRecord:
        return next(iter(self.gates.values())).view.front

    def led(self, address: IPv6Address) -> list[str]:
        """Addresses of the gateways to which the router may send a packet."""
        heard = [(route, route.via) for route in self.router.installed()]
        if self.announces:
            gates = self.gates.values()
            heard = [(route, gate.address) for gate in gates for route in gate.announced.installed()]
        around = [(network_of(route.prefix), via) for route, via in heard]
        around = [(network, via) for network, via in around if address in network]
        longest = max((network.prefixlen for network, _ in around), default=0)
        return [via for network, via in around if via and network.prefixlen == longest]

    def reached(self, address: IPv6Address) -> Gate | None:
        """The gateway that gets a new connection, by router, by what it sends on, and by what it accepts;
        None where somebody gets it who does not accept it."""
        by_address = {gate.address: gate for gate in self.gates.values()}
        found = None
        for hop in self.led(address):
            found = by_address[hop]
            for network, target in found.sent_on.items():
                if address in network:
                    found = by_address[target]
            if not found.accepts(address):
                return None
        return found

    async def until(self, claim: Callable[[], bool], within_s: float = 30) -> None:
        """Wait, and see all the while that every address has a gateway."""
        async with asyncio.timeout(within_s):
            while True:
                assert [place for place in PLACES if self.reached(place) is None] == []
                assert not self.overlaps
                if claim():
                    return
                await asyncio.sleep(0.1)

    def is_settled(self, *names: str) -> bool:
        return self.record.names() == set(names) and not any(arc.target for arc in self.record.arcs)

    async def started(self, count: int) -> None:
        await self.begin()
        for number in range(1, count + 1):
            await self.join(number)
        await asyncio.sleep(3)
        assert self.is_settled(*self.gates), self.record


class Announcing(Site):
    """Where each gateway announces its own part."""

    announces = True


class Away:
    """A control store that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            raise Unavailable("it is away")

        return call


class Counting:
    """The control store, and how often it was asked to change something."""

    def __init__(self, control: MemoryControlStore) -> None:
        self._control = control
        self.changes = 0

    async def transact(self, *arguments: Any) -> int | None:
        self.changes += 1
        return await self._control.transact(*arguments)


def at_site(work: Callable[[Site], Any], kind: type[Site] = Site) -> None:
    async def run() -> None:
        await work(kind())

    run_virtually(run)


def test_gateways_that_start_together_are_planned_at_once() -> None:
    async def work(site: Site) -> None:
        await site.started(4)
        assert site.record.epoch == 1
        assert {site.reached(place).name for place in PLACES} == set(site.gates)  # type: ignore[union-attr]

    at_site(work)


def test_one_more_takes_its_part_and_nobody_misses_an_address() -> None:
    async def work(site: Site) -> None:
        await site.started(2)
        await site.join(3)
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))
        await site.until(lambda: not any(gate.ending for gate in site.gates.values()))
        assert sum(gate.name == "g3" for place in PLACES if (gate := site.reached(place))) > len(PLACES) / 4

    at_site(work)


class Refusing(MemoryRoutes):
    """Of a host whose kernel does not let it accept anything, as without CAP_NET_ADMIN."""

    def add(self, route: Route) -> None:
        raise RouteRefused(f"{route}: not permitted")


def test_who_cannot_accept_its_addresses_is_sent_nothing() -> None:
    async def work(site: Site) -> None:
        await site.started(1)
        await site.join(2, Refusing(IPv6Network("fd00::/64")))
        await asyncio.sleep(20)
        await site.until(lambda: True)
        assert {gate.name for place in PLACES if (gate := site.reached(place))} == {"g1"}

    at_site(work)


def test_what_is_open_is_served_by_the_former_owner_and_what_is_new_by_the_next() -> None:
    async def work(site: Site) -> None:
        await site.started(1)
        former = site.gates["g1"]
        former.connected = list(PLACES)
        await site.join(2)
        await asyncio.sleep(20)
        assert not site.is_settled("g1", "g2"), "the router goes on sending what is open to the former owner"
        moving = [place for place in PLACES if site.reached(place) is site.gates["g2"]]
        assert len(PLACES) / 3 < len(moving) < len(PLACES) * 2 / 3
        assert former.ending == set(moving), "and those end with their next answer"
        former.connected = [place for place in former.connected if place not in former.ending]
        await site.until(lambda: site.is_settled("g1", "g2"))
        assert former.ending == set()
        await asyncio.sleep(40)
        assert former.sent_on == {}, "until the last router knows, and no longer"

    at_site(work)


def test_each_announces_its_own_part_and_none_that_it_only_accepts() -> None:
    """The router hears of what moves when it has moved, and nobody misses an address."""

    async def work(site: Site) -> None:
        await site.started(1)
        former = site.gates["g1"]
        former.connected = list(PLACES)
        joined = await site.join(2)
        await site.until(lambda: all(place in former.ending for place in PLACES if joined.accepts(place)))
        await asyncio.sleep(5)
        assert joined.routes.installed() and not joined.announced.installed()
        former.connected = []
        await site.until(lambda: site.is_settled("g1", "g2"))
        await asyncio.sleep(2)
        for gate in site.gates.values():
            assert gate.announced.installed() == gate.routes.installed()
        await site.join(3)
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))
        left = spawn("leave", former.keeper.leave())
        await site.until(left.done)
        assert former.announced.installed() == set()

    at_site(work, Announcing)


def test_one_that_joins_during_a_drain_takes_nothing_that_another_has_begun_to_serve() -> None:
    async def work(site: Site) -> None:
        await site.started(1)
        site.gates["g1"].connected = list(PLACES)
        await site.join(2)
        await asyncio.sleep(10)
        begun = {place for place in PLACES if site.reached(place) is site.gates["g2"]}
        assert begun
        await site.join(3)
        await asyncio.sleep(20)
        assert {place for place in PLACES if site.reached(place) is site.gates["g2"]} >= begun
        site.gates["g1"].connected = []
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))
        shares = Counter(gate.name for place in PLACES if (gate := site.reached(place)))
        assert len(shares) == 3 and min(shares.values()) > len(PLACES) / 4, "when it is done"

    at_site(work)


def test_gateways_that_come_and_go_in_a_row_send_on_each_address_once() -> None:
    """What was given away twice within half a minute overlaps."""

    async def work(site: Site) -> None:
        await site.started(2)

        async def leave(name: str) -> None:
            gate = site.gates[name]
            await gate.keeper.leave()
            site.gates.pop(name).die()

        await site.join(3)
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))
        await leave("g3")
        await site.until(lambda: site.is_settled("g1", "g2"))
        await site.join(3)
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))
        await leave("g2")
        await site.until(lambda: site.is_settled("g1", "g3"))
        await site.join(2)
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))

    at_site(work)


def test_a_gateway_that_knows_more_keeps_its_part() -> None:
    async def work(site: Site) -> None:
        await site.started(2)
        before = site.record
        await site.control.transact([], [Write(gate_key("g2"), b"from the future")])
        await asyncio.sleep(20)
        assert site.record == before
        await site.gates["g1"].view.load()
        assert site.gates["g1"].view.gates.keys() == {"g1", "g2"}, "also after a gap in what it follows"

    at_site(work)


def test_who_never_ends_does_not_keep_its_part_for_ever() -> None:
    async def work(site: Site) -> None:
        await site.started(1)
        site.gates["g1"].connected = list(PLACES)
        await site.join(2)
        await asyncio.sleep(590)
        assert not site.is_settled("g1", "g2")
        await site.until(lambda: site.is_settled("g1", "g2"))

    at_site(work)


def test_who_dies_is_replaced_when_its_lease_is_over() -> None:
    async def work(site: Site) -> None:
        await site.started(3)
        site.gates.pop("g1").die()
        await asyncio.sleep(LEASE_MS / 1000 + 3)
        assert site.is_settled("g2", "g3"), "nobody answers any more"
        await site.until(lambda: True)

    at_site(work)


def test_who_lost_its_lease_and_answers_keeps_its_part_and_what_is_open() -> None:
    """Cut off from the control store it takes no part in what is planned; it is missed when it dies."""

    async def work(site: Site) -> None:
        await site.started(3)
        before, cut = site.record, site.gates["g2"]
        cut.connected = list(PLACES)
        cut.keeper._leased._control = Away()
        await asyncio.sleep(LEASE_MS / 1000 + 2)
        assert "g2" not in site.gates["g1"].view.gates
        await asyncio.sleep(30)
        assert site.record == before and cut.ending == set()
        await site.until(lambda: True)
        cut.keeper._leased._control = site.control
        await asyncio.sleep(5)
        assert site.record == before and "g2" in site.gates["g1"].view.gates
        cut.keeper._leased._control = Away()
        await asyncio.sleep(LEASE_MS / 1000 + 10)
        assert site.record == before
        cut.die()
        site.dead.add("g2")
        await asyncio.sleep(3)
        assert site.is_settled("g1", "g3")

    at_site(work)


def test_who_answers_without_a_lease_keeps_its_part_for_a_while() -> None:
    """It may be another program by now."""

    async def work(site: Site) -> None:
        await site.started(2)
        site.gates["g2"].die()
        await asyncio.sleep(LEASE_MS / 1000 + 590)
        assert site.is_settled("g1", "g2")
        await asyncio.sleep(15)
        assert site.is_settled("g1")

    at_site(work)


def test_a_target_that_dies_leaves_everything_as_it_was() -> None:
    async def work(site: Site) -> None:
        await site.started(1)
        former = site.gates["g1"]
        former.connected = list(PLACES)
        target = await site.join(2)
        await asyncio.sleep(5)
        assert former.sent_on
        target.die()
        site.dead.add("g2")
        await asyncio.sleep(LEASE_MS / 1000 + 3)
        assert site.is_settled("g1") and former.sent_on == {} and former.ending == set()

    at_site(work)


def test_who_is_asked_to_end_ends_when_others_have_everything() -> None:
    async def work(site: Site) -> None:
        await site.started(3)
        leaving = site.gates["g2"]
        leaving.connected = list(PLACES)
        left = spawn("leave", leaving.keeper.leave())
        await asyncio.sleep(10)
        assert not left.done() and leaving.ending
        leaving.connected = []
        await site.until(left.done)
        assert site.is_settled("g1", "g3")
        await asyncio.sleep(1)
        assert "g2" not in site.gates["g1"].view.gates, "without waiting for its lease"

    at_site(work)


def test_all_may_end_at_once() -> None:
    async def work(site: Site) -> None:
        await site.started(2)
        async with asyncio.timeout(2):
            await asyncio.gather(*[gate.keeper.leave() for gate in site.gates.values()])

    at_site(work)


def test_a_plan_that_could_not_be_written_is_made_again() -> None:
    async def work(site: Site) -> None:
        await site.started(2)
        keeper = site.gates["g1"].keeper
        keeper._control = Away()
        await site.join(3)
        await asyncio.sleep(5)
        assert site.is_settled("g1", "g2")
        keeper._control = site.control
        await site.until(lambda: site.is_settled("g1", "g2", "g3"))

    at_site(work)


def test_a_record_that_was_lost_is_made_anew() -> None:
    async def work(site: Site) -> None:
        await site.started(2)
        await site.control.transact([], [Write(FRONT_KEY, None)])
        await asyncio.sleep(3)
        assert site.is_settled("g1", "g2")

    at_site(work)


def test_a_record_that_is_not_understood_changes_nothing() -> None:
    """Nobody plans, or writes it over, and it is said why; who ends does not wait for what cannot be."""

    async def work(site: Site) -> None:
        await site.started(2)
        before, future = site.record, b'{"format": 2, "epoch": 7}'
        await site.control.transact([], [Write(FRONT_KEY, future)])
        await site.join(3)
        counting = site.gates["g1"].keeper._control = Counting(site.control)  # type: ignore[assignment]
        await asyncio.sleep(30)
        assert site.record == before and counting.changes == 0
        assert site.gates["g1"].view.strange == {
            FRONT_KEY: "front record: format 2, this version reads up to 1"
        }
        item = await site.control.get(FRONT_KEY)
        assert item is not None and item.value == future
        await site.until(lambda: True)
        async with asyncio.timeout(2):
            await site.gates["g2"].keeper.leave()
        await site.control.transact([], [Write(FRONT_KEY, before.encode())])
        site.gates.pop("g2").die()
        await asyncio.sleep(5)
        assert site.is_settled("g1", "g3") and site.gates["g1"].view.strange == {}

    at_site(work)


def test_a_gateway_that_was_never_understood_loses_nothing() -> None:
    """An older version that comes later knows nothing of it, and does not share out what it has."""

    async def work(site: Site) -> None:
        await site.started(2)
        before = site.record
        await site.control.transact([], [Write(gate_key("g2"), b"from the future")])
        site.gates.pop("g1").die()
        again = await site.join(1)
        await asyncio.sleep(20)
        assert again.view.front == before and again.view.strange.keys() == {gate_key("g2")}

    at_site(work)
