"""Slices, covers and the prefix table of keyspace.py, against ipaddress and against brute force."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Network, collapse_addresses, summarize_address_range

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore import keyspace as ks
from ssastore.keyspace import PrefixTable, Slice

SERVICE = IPv6Network("2001:db8:5a:1::/64")
IID_MAX = 2**64 - 1
WHOLE = Slice(0, 0)

# The algebra knows nothing of scale: 8 bits somewhere are a universe small enough for brute force.
SMALL_BITS = 8
SMALL_BASES = (0, 0x1A3F << 48, 2**64 - 2**SMALL_BITS)


def slice_around(iid: int, depth: int) -> Slice:
    """The slice of ``depth`` that holds ``iid``."""
    return Slice(iid >> (64 - depth) << (64 - depth), depth)


iids = st.one_of(
    st.integers(0, IID_MAX), st.sampled_from([0, 1, 2**48, 2**60, 2**63 - 1, 2**63, IID_MAX - 1, IID_MAX])
)
slices = st.builds(slice_around, iids, st.integers(0, 64))
# Few different identifiers, so that slices nest, touch and repeat; also at both ends of the /64.
crowded_slices = st.builds(
    slice_around,
    st.one_of(st.integers(0, 40), st.integers(IID_MAX - 40, IID_MAX), st.integers(2**48 - 20, 2**48 + 20)),
    st.one_of(st.integers(58, 64), st.integers(0, 64)),
)
slice_lists = st.lists(st.one_of(crowded_slices, slices), max_size=30)
small_slice_lists = st.lists(
    st.builds(slice_around, st.integers(0, 2**SMALL_BITS - 1), st.integers(64 - SMALL_BITS, 64)), max_size=40
)
small_bases = st.sampled_from(SMALL_BASES)


def members_of(pieces: Iterable[Slice]) -> set[int]:
    return {iid for piece in pieces for iid in range(piece.first, piece.end)}


def brute_force_cover(wanted: set[int], base: int) -> list[Slice]:
    """The largest aligned blocks of the small universe at ``base`` whose members are all wanted."""
    cover: list[Slice] = []
    held: set[int] = set()
    for depth in range(64 - SMALL_BITS, 65):
        size = 2 ** (64 - depth)
        for first in range(base, base + 2**SMALL_BITS, size):
            block = set(range(first, first + size))
            if block <= wanted and not block & held:
                cover.append(Slice(first, depth))
                held |= block
    return sorted(cover)


# -- algebra ----------------------------------------------------------------------------------------


@given(slices, iids)
def test_contains_what_the_network_contains(piece: Slice, iid: int) -> None:
    for probe in (iid, piece.first, piece.end - 1):
        assert (probe in piece) == (ks.address_of(SERVICE, probe) in piece.network(SERVICE))
    assert piece.first in piece and piece.end - 1 in piece
    assert piece.first - 1 not in piece and piece.end not in piece


@given(st.one_of(slices, crowded_slices), st.one_of(slices, crowded_slices))
def test_covers_is_subnet_of(one: Slice, other: Slice) -> None:
    assert one.covers(other) == other.network(SERVICE).subnet_of(one.network(SERVICE))
    assert one.covers(one)


@given(slices)
def test_network_and_slice_are_one_to_one(piece: Slice) -> None:
    network = piece.network(SERVICE)
    assert network.subnet_of(SERVICE) and network.prefixlen == 64 + piece.depth
    assert network.num_addresses == piece.size
    assert ks.slice_from_network(SERVICE, network) == piece


@given(slices.filter(lambda piece: piece.depth < 64))
def test_split_halves_exactly_and_merges_back(piece: Slice) -> None:
    low, high = piece.split()
    assert (low.first, low.end, high.end) == (piece.first, high.first, piece.end)
    assert low.size == high.size
    assert low.parent() == high.parent() == piece
    assert low.sibling() == high and high.sibling() == low
    assert low.merge(high) == high.merge(low) == piece
    assert [half.network(SERVICE) for half in (low, high)] == list(piece.network(SERVICE).subnets())


@given(slices.filter(lambda piece: piece.depth > 0))
def test_parent_and_sibling(piece: Slice) -> None:
    sibling, parent = piece.sibling(), piece.parent()
    assert sibling != piece and sibling.sibling() == piece and sibling.parent() == parent
    assert not sibling.covers(piece) and not piece.covers(sibling)
    assert parent.covers(piece) and parent.covers(sibling)
    assert parent.size == piece.size * 2
    assert sorted((piece, sibling)) == list(parent.split())
    assert parent.network(SERVICE) == piece.network(SERVICE).supernet()


@given(st.one_of(slices, crowded_slices), st.one_of(slices, crowded_slices))
def test_only_siblings_merge(one: Slice, other: Slice) -> None:
    if one.depth and one.sibling() == other:
        assert one.merge(other) == one.parent()
    else:
        with pytest.raises(ValueError, match="are not siblings"):
            one.merge(other)


@given(slice_lists)
def test_order_is_address_order_with_the_covering_one_first(pieces: list[Slice]) -> None:
    networks = [piece.network(SERVICE) for piece in sorted(pieces)]
    assert networks == sorted(networks, key=lambda network: (int(network.network_address), network.prefixlen))


@given(st.integers(0, 15), st.integers(0, 4095), st.integers(0, 2**48 - 1), st.integers(16, 64))
def test_digits_of_a_slice_are_plane_group_and_lane(plane: int, group: int, below: int, depth: int) -> None:
    whole = ks.slice_of(plane, group)
    assert (whole.depth, whole.first) == (ks.SLICE_DEPTH_MIN, int(f"{plane:x}{group:03x}", 16) << 48)
    part = slice_around(whole.first | below, depth)
    assert (part.plane, part.group, part.lane) == (plane, group, group % 16)
    assert whole.covers(part)


# -- text form --------------------------------------------------------------------------------------


def slice_from_text(text: str) -> Slice:
    """What a reader of logs does with the short form."""
    if "/" not in text:
        assert re.fullmatch("[0-9a-f]{4}", text)
        return Slice(int(text, 16) << 48, 16)
    match = re.fullmatch("([0-9a-f]{0,16})/([0-9]+)", text)
    assert match
    return Slice(int(match[1].ljust(16, "0"), 16), int(match[2]) - 64)


@given(slices)
def test_text_form_names_one_slice(piece: Slice) -> None:
    assert slice_from_text(str(piece)) == piece
    assert len(str(piece).partition("/")[0]) == (piece.depth + 3) // 4, "no digit that is not fixed"


@given(st.integers(0, 15), st.integers(0, 4095))
def test_text_form_of_a_slice_is_the_fifth_hextet(plane: int, group: int) -> None:
    piece = ks.slice_of(plane, group)
    assert str(piece) == piece.network(SERVICE).exploded.split(":")[4]


# -- covers -----------------------------------------------------------------------------------------


@given(slice_lists)
def test_minimal_cover_is_what_ipaddress_collapses_to(pieces: list[Slice]) -> None:
    cover = ks.minimal_cover(pieces)
    expected = list(collapse_addresses(piece.network(SERVICE) for piece in pieces))
    assert [piece.network(SERVICE) for piece in cover] == expected
    assert ks.minimal_cover(reversed(cover)) == cover


@given(small_slice_lists, small_bases)
def test_minimal_cover_is_brute_force_s(pieces: list[Slice], base: int) -> None:
    moved = [Slice(base + piece.first, piece.depth) for piece in pieces]
    cover = ks.minimal_cover(moved)
    assert cover == brute_force_cover(members_of(moved), base)


@given(st.lists(slices, max_size=12), st.integers(0, 5), st.randoms(use_true_random=False))
def test_minimal_cover_undoes_splitting(pieces: list[Slice], rounds: int, random: object) -> None:
    """However finely the parts are cut, and in whatever order they come, the cover is the same."""
    cover = ks.minimal_cover(pieces)
    parts = list(cover)
    for _ in range(rounds):
        parts = [half for part in parts for half in (part.split() if part.depth < 64 else (part,))]
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert ks.minimal_cover(parts) == cover


def test_minimal_cover_of_every_slice_of_a_plane_is_its_68() -> None:
    plane = [ks.slice_of(3, group) for group in range(ks.GROUPS)]
    assert ks.minimal_cover(plane) == [Slice(0x3 << 60, 4)]
    assert len(ks.minimal_cover(plane[1:])) == 12, "one slice missing leaves one prefix for each depth"
    assert ks.minimal_cover([]) == []


@given(iids, iids)
def test_range_cover_is_what_ipaddress_summarizes_to(one: int, other: int) -> None:
    first, last = sorted((one, other))
    cover = ks.range_cover(first, last + 1)
    expected = summarize_address_range(ks.address_of(SERVICE, first), ks.address_of(SERVICE, last))
    assert [piece.network(SERVICE) for piece in cover] == list(expected)
    assert ks.minimal_cover(cover) == cover


@pytest.mark.parametrize("base", SMALL_BASES)
def test_range_cover_is_brute_force_s(base: int) -> None:
    """Every range with an odd step of ends, so that all alignments are met."""
    for first in range(0, 2**SMALL_BITS, 7):
        for end in range(first, 2**SMALL_BITS + 1, 5):
            cover = ks.range_cover(base + first, base + end)
            assert cover == brute_force_cover(set(range(base + first, base + end)), base)


def test_range_cover_at_the_ends() -> None:
    assert ks.range_cover(0, 2**64) == [WHOLE]
    assert ks.range_cover(IID_MAX, 2**64) == [Slice(IID_MAX, 64)]
    assert ks.range_cover(0, 0) == ks.range_cover(2**64, 2**64) == []
    assert len(ks.range_cover(1, 2**64)) == 64


# -- prefix table -----------------------------------------------------------------------------------


def naive_match(entries: dict[Slice, int], iid: int) -> tuple[Slice, int] | None:
    holding = [(prefix, value) for prefix, value in entries.items() if iid in prefix]
    return max(holding, key=lambda entry: entry[0].depth, default=None)


def probes_of(entries: Iterable[Slice]) -> set[int]:
    """Both sides of every edge: nothing can change anywhere else."""
    edges = {edge for prefix in entries for edge in (prefix.first, prefix.end)}
    probes = {probe for edge in edges for probe in (edge - 1, edge, edge + 1)}
    return {probe for probe in probes | {0, IID_MAX} if 0 <= probe <= IID_MAX}


@given(st.dictionaries(st.one_of(crowded_slices, slices), st.integers(0, 9), max_size=25), iids)
def test_match_is_longest_prefix_match(entries: dict[Slice, int], iid: int) -> None:
    table = PrefixTable(entries.items())
    for probe in probes_of(entries) | {iid}:
        expected = naive_match(entries, probe)
        assert table.match(probe) == expected
        assert table.lookup(probe) == (expected[1] if expected else None)
    assert len(table) == len(entries)
    assert list(table.items()) == sorted(entries.items(), key=lambda entry: entry[0])


@given(st.lists(st.tuples(crowded_slices, st.one_of(st.none(), st.integers(0, 9))), max_size=15), iids)
def test_match_follows_every_change(changes: list[tuple[Slice, int | None]], iid: int) -> None:
    """A look-up between any two changes sees exactly what was set and deleted before it."""
    table: PrefixTable[int] = PrefixTable()
    entries: dict[Slice, int] = {}
    assert table.match(iid) is None
    for prefix, value in changes:
        if value is not None:
            table[prefix] = entries[prefix] = value
        elif prefix in entries:
            del table[prefix]
            del entries[prefix]
        for probe in probes_of([prefix]) | {iid}:
            assert table.match(probe) == naive_match(entries, probe)


def test_match_where_nested_prefixes_end_together_and_another_begins() -> None:
    low, high = WHOLE.split()
    inner = low.split()[1]
    innermost = Slice(low.end - 1, 64)
    table = PrefixTable([(high, "high"), (innermost, "innermost"), (low, "low"), (inner, "inner")])
    assert [table.lookup(iid) for iid in (0, inner.first - 1, inner.first, low.end - 2)] == [
        "low",
        "low",
        "inner",
        "inner",
    ]
    assert table.lookup(low.end - 1) == "innermost"
    assert table.lookup(low.end) == table.lookup(IID_MAX) == "high"
    del table[high]
    assert table.lookup(low.end) is None
    table[WHOLE] = "whole"
    assert table.lookup(low.end) == table.lookup(IID_MAX) == "whole"
    assert table.lookup(0) == "low"


def test_match_at_the_last_addresses() -> None:
    last, before = Slice(IID_MAX, 64), Slice(IID_MAX - 1, 64)
    table = PrefixTable([(last, "last"), (before, "before")])
    assert [table.lookup(iid) for iid in (IID_MAX - 2, IID_MAX - 1, IID_MAX)] == [None, "before", "last"]
    assert table.match(-1) is None and table.match(2**64) is None


def test_copies_of_a_table_change_on_their_own() -> None:
    low, high = WHOLE.split()
    table = PrefixTable([(low, "low")])
    copy = table.copy()
    copy[high] = "high"
    del table[low]
    assert [table.lookup(iid) for iid in (0, IID_MAX)] == [None, None]
    assert [copy.lookup(iid) for iid in (0, IID_MAX)] == ["low", "high"]


def test_deleting_an_unknown_prefix_is_an_error() -> None:
    with pytest.raises(KeyError):
        del PrefixTable([(WHOLE, 1)])[Slice(0, 1)]


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "depth"), [(0, -1), (0, 65), (-1, 64), (2**64, 64), (1, 63), (1, 0), (2**63 + 1, 1)]
)
def test_slice_that_is_not_aligned_or_not_in_the_64_is_refused(first: int, depth: int) -> None:
    with pytest.raises(ValueError):
        Slice(first, depth)


def test_tree_ends_at_the_64_and_at_one_address() -> None:
    with pytest.raises(ValueError, match="no parent"):
        WHOLE.parent()
    with pytest.raises(ValueError, match="no sibling"):
        WHOLE.sibling()
    with pytest.raises(ValueError, match="cannot be split"):
        Slice(5, 64).split()


@pytest.mark.parametrize(("plane", "group"), [(-1, 0), (16, 0), (0, -1), (0, 4096)])
def test_no_such_plane_or_group(plane: int, group: int) -> None:
    with pytest.raises(ValueError, match="no such slice"):
        ks.slice_of(plane, group)


@pytest.mark.parametrize(("first", "end"), [(-1, 5), (5, 4), (0, 2**64 + 1)])
def test_no_such_range(first: int, end: int) -> None:
    with pytest.raises(ValueError, match="no such range"):
        ks.range_cover(first, end)


@pytest.mark.parametrize("prefix", ["2001:db8:5a:2::/64", "2001:db8:5a::/48", "2001:db8:5a:2::1/128"])
def test_prefix_outside_the_service_is_no_slice(prefix: str) -> None:
    with pytest.raises(ValueError, match="is not in"):
        ks.slice_from_network(SERVICE, IPv6Network(prefix))
