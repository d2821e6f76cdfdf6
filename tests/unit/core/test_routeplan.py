"""The order of route changes, against a model that matches the longest prefix."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.routeplan import Action, Change, diff, parse, take
from ssastore.env import Route
from ssastore.errors import RouteRefused

SERVICE = IPv6Network("fd5a:0:0:1::/64")
DEPTH_MAX = 5
"The model's /64 has 2**5 addresses that differ; every nesting of prefixes occurs in it."

prefixes = st.integers(0, DEPTH_MAX).flatmap(
    lambda depth: st.integers(0, (1 << depth) - 1).map(
        lambda bits: str(IPv6Network((int(SERVICE.network_address) | bits << (64 - depth), 64 + depth)))
    )
)
vias = st.sampled_from([None, "fd5a::11", "fd5a::12", "fd5a::13"])
tables = st.dictionaries(prefixes, vias, max_size=20).map(
    lambda table: {Route(prefix, via) for prefix, via in table.items()}
)


class Model:
    """A routing table: one route for a prefix, the longest prefix wins."""

    def __init__(self, routes: set[Route]) -> None:
        self.routes = {route.prefix: route for route in routes}

    def installed(self) -> set[Route]:
        return set(self.routes.values())

    def add(self, route: Route) -> None:
        self.routes[route.prefix] = route

    def remove(self, route: Route) -> None:
        assert self.routes.pop(route.prefix) == route

    def answers(self) -> list[str | None]:
        """For each address where it leads to; None when nothing covers it."""
        parsed = sorted(
            ((IPv6Network(route.prefix), route.via or "local") for route in self.routes.values()),
            key=lambda entry: -entry[0].prefixlen,
        )
        step = 1 << (64 - DEPTH_MAX)
        return [
            next((answer for network, answer in parsed if SERVICE[number * step] in network), None)
            for number in range(1 << DEPTH_MAX)
        ]


@given(installed=tables, wanted=tables)
def test_plan_ends_at_the_wanted_routes(installed: set[Route], wanted: set[Route]) -> None:
    model = Model(installed)
    for change in diff(wanted, installed):
        change.apply(model)
    assert model.installed() == wanted


@given(installed=tables, wanted=tables)
def test_address_covered_before_and_after_is_covered_all_along(
    installed: set[Route], wanted: set[Route]
) -> None:
    model = Model(installed)
    before, after = model.answers(), Model(wanted).answers()
    for change in diff(wanted, installed):
        change.apply(model)
        for first, final, now in zip(before, after, model.answers(), strict=True):
            assert now is not None or first is None or final is None


@given(installed=tables, wanted=tables)
def test_address_switches_once_and_straight_to_its_new_route(
    installed: set[Route], wanted: set[Route]
) -> None:
    """No detour over a route that holds the address neither before nor after."""
    model = Model(installed)
    before, after = model.answers(), Model(wanted).answers()
    switched = [False] * len(before)
    for change in diff(wanted, installed):
        change.apply(model)
        for number, now in enumerate(model.answers()):
            assert now == (after if switched[number] else before)[number] or now == after[number]
            switched[number] |= now != before[number]


@given(installed=tables, wanted=tables)
def test_order_does_not_depend_on_the_order_of_the_sets(installed: set[Route], wanted: set[Route]) -> None:
    def turned(routes: set[Route]) -> set[Route]:
        return set().union(sorted(routes, reverse=True))

    assert diff(wanted, installed) == diff(turned(wanted), turned(installed))


def test_new_next_hop_takes_the_place_of_the_old_one() -> None:
    old, new = Route("fd5a:0:0:1::/80", "fd5a::11"), Route("fd5a:0:0:1::/80", "fd5a::12")
    assert diff({new}, {old}) == [Change(Action.ADD, new)]


def test_longest_goes_in_first_and_out_last() -> None:
    short, middle, long = (Route(f"fd5a:0:0:1::/{length}") for length in (64, 72, 80))
    assert [change.route for change in diff({short, middle, long}, set())] == [long, middle, short]
    assert [change.route for change in diff(set(), {short, middle, long})] == [short, middle, long]


def test_equal_lengths_are_ordered_by_number_not_by_text() -> None:
    low, high = Route("fd5a:0:0:1:9::/80"), Route("fd5a:0:0:1:10::/80")
    assert [change.route for change in diff(set(), {low, high})] == [low, high]


def test_nothing_to_do_for_equal_sets() -> None:
    assert diff({Route("fd5a::/64")}, {Route("fd5a::/64")}) == []


def test_two_wanted_routes_for_one_prefix_are_refused() -> None:
    with pytest.raises(ValueError, match="one prefix"):
        diff({Route("fd5a::/64"), Route("fd5a::/64", "fd5a::11")}, set())


@pytest.mark.parametrize(
    "route",
    [
        Route("10.0.0.0/8"),
        Route("fd5a::1/64"),
        Route("FD5A::/64"),
        Route("fd5a:0::/64"),
        Route("fd5a::"),
        Route("fd5a::/64", "fd5a:0:0::1"),
        Route("fd5a::/64", "10.0.0.1"),
        Route("fd5a::/64", ""),
    ],
    ids=str,
)
def test_route_that_would_read_back_differently_is_refused(route: Route) -> None:
    with pytest.raises(ValueError):
        parse(route)
    with pytest.raises(ValueError):
        diff({route}, set())


def test_change_reads_as_a_command() -> None:
    assert str(Change(Action.ADD, Route("fd5a::/64", "fd5a::11"))) == "add fd5a::/64 via fd5a::11"
    assert str(Change(Action.REMOVE, Route("fd5a::/64"))) == "remove fd5a::/64 local"


class Grudging(Model):
    """Somebody else holds some prefixes."""

    def __init__(self, routes: set[Route], held: set[str]) -> None:
        super().__init__(routes)
        self.held = held

    def add(self, route: Route) -> None:
        if route.prefix in self.held:
            raise RouteRefused("File exists")
        super().add(route)


@given(installed=tables, wanted=tables, held=st.sets(prefixes, max_size=3))
def test_refused_change_stops_no_other_and_takes_no_route_away(
    installed: set[Route], wanted: set[Route], held: set[str]
) -> None:
    model, changes = Grudging(installed, held), diff(wanted, installed)
    before, after = Model(installed).answers(), Model(wanted).answers()
    taken, refused = take(changes, model)
    missing = [IPv6Network(change.route.prefix) for change in refused]
    assert {change.route.prefix for change in refused} <= held
    left = [change for change in changes if change not in taken and change not in refused]
    assert all(
        change.action is Action.REMOVE
        and any(IPv6Network(change.route.prefix).overlaps(network) for network in missing)
        for change in left
    )
    for first, final, now in zip(before, after, model.answers(), strict=True):
        assert now is not None or first is None or final is None
    model.held = set()
    for change in diff(wanted, model.installed()):
        change.apply(model)
    assert model.installed() == wanted
