from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.control import frames
from ssastore.control.frames import Request
from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import (
    BadFrame,
    Conflict,
    DataDirError,
    EnvironmentProblem,
    NotFound,
    OutcomeUnknown,
    RequestError,
    SsaStoreError,
    StoreFull,
    Unavailable,
)
from ssastore.limits import CONTROL_FRAME_BYTES_MAX, CONTROL_PAGE_BYTES


def test_frame_on_the_wire() -> None:
    assert frames.encode(7, "get", "a").hex() == "00000008" + "93" + "07" + "a3676574" + "a161"


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ((1, "get", "a"), Request(1, "get", ("a",))),
        ((2, "list", ""), Request(2, "list", ("",))),
        ((3, "watch", "a", 9), Request(3, "watch", ("a", 9))),
        ((4, "more"), Request(4, "more", ())),
        (
            (5, "transact", [("a", 3)], [("a", b"v", None), ("b", None, 4)]),
            Request(5, "transact", ([Compare("a", 3)], [Write("a", b"v"), Write("b", None, 4)])),
        ),
        ((6, "transact", [], []), Request(6, "transact", ([], []))),
    ],
)
def test_request_comes_back(fields: tuple[Any, ...], request_: Request) -> None:
    frame = frames.encode(*fields)
    assert frames.frame_length(frame[: frames.LENGTH_BYTES]) == len(frame) - frames.LENGTH_BYTES
    assert frames.decode_request(frame[frames.LENGTH_BYTES :]) == request_


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [1],
        {"a": 1},
        "get",
        ["get", "a"],
        [1, "steal", "a"],
        [1, ["get"], "a"],
        [1, "get"],
        [1, "get", "a", "b"],
        [1, "get", b"a"],
        [1, "grant", "10"],
        [1, "grant", True],
        [1, "watch", "a", None],
        [1, "more", 1],
        [1, "transact", [], None],
        [1, "transact", [["a"]], []],
        [1, "transact", [["a", "1"]], []],
        [1, "transact", ["ab"], []],
        [1, "transact", [], [["a", b"v"]]],
        [1, "transact", [], [["a", "v", None]]],
        [1, "transact", [], [[b"a", b"v", None]]],
    ],
)
def test_what_is_no_request_is_refused(fields: Any) -> None:
    with pytest.raises(BadFrame):
        frames.decode_request(msgpack.packb(fields))


@given(st.binary())
def test_any_bytes_are_a_request_or_a_bad_frame(packed: bytes) -> None:
    try:
        request = frames.decode_request(packed)
    except BadFrame:
        return
    assert isinstance(request, Request)


def test_deep_nesting_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame):
        frames.decode(b"\x91" * 10_000)


def test_cut_frame_is_a_bad_frame() -> None:
    packed = frames.encode(1, "watch", "prefix", 3)[frames.LENGTH_BYTES :]
    for end in range(len(packed)):
        with pytest.raises(BadFrame):
            frames.decode_request(packed[:end])


def test_length_above_the_bound_is_refused_before_it_is_read() -> None:
    assert frames.frame_length(CONTROL_FRAME_BYTES_MAX.to_bytes(4, "big")) == CONTROL_FRAME_BYTES_MAX
    with pytest.raises(BadFrame):
        frames.frame_length((CONTROL_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("value", [bytes(CONTROL_FRAME_BYTES_MAX), 1 << 64, "\ud800"])
def test_values_that_no_frame_can_carry_are_the_callers_mistake(value: object) -> None:
    with pytest.raises(RequestError):
        frames.encode(1, "get", value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WatchCompacted("m"), WatchCompacted),
        (RequestError("m"), RequestError),
        (Conflict("m"), Conflict),
        (StoreFull("m"), StoreFull),
        (DataDirError("m"), EnvironmentProblem),
        (Unavailable("m"), Unavailable),
    ],
)
def test_error_comes_back_as_the_nearest_kind(error: Exception, kind: type[Exception]) -> None:
    _, code, name, message = frames.decode(frames.encode_error(3, error)[frames.LENGTH_BYTES :])
    assert code == frames.ERROR
    received = frames.decode_error(name, message)
    assert type(received) is kind
    assert str(received) == "m"


@pytest.mark.parametrize("error", [NotFound("m"), OutcomeUnknown("m")])
def test_error_without_a_name_of_its_own_keeps_its_name_in_the_message(error: SsaStoreError) -> None:
    _, _, name, message = frames.decode(frames.encode_error(3, error)[frames.LENGTH_BYTES :])
    assert type(frames.decode_error(name, message)) is EnvironmentProblem
    assert type(error).__name__ in message


def test_unknown_error_name_is_an_error_all_the_same() -> None:
    assert type(frames.decode_error("Surprise", "m")) is SsaStoreError


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from([0, 1, 300_000, 700_000, 1_000_000]))))
def test_pages_fit_frames_and_lose_nothing(sizes: list[tuple[str, int]]) -> None:
    items = [Item(key, bytes(size), 1 << 60) for key, size in sizes]
    pages = list(frames.pages(items))
    assert [item for page in pages for item in page] == items
    assert len(pages) <= 1 + sum(size for _, size in sizes) // CONTROL_PAGE_BYTES + len(items)
    for page in pages:
        frames.encode(1, frames.PART, frames.pack_records(page))


def test_a_page_of_events_ends_with_a_revision() -> None:
    """Who watches goes on after the last revision that was seen, wherever the connection was lost."""
    events = [Event(f"k{at}", bytes(1000), at // 100) for at in range(4000)]
    pages = list(frames.pages(events))
    assert len(pages) > 3 and [event for page in pages for event in page] == events
    ends = [page[-1].revision for page in pages]
    assert ends == sorted(set(ends)) and all(len(page) % 100 == 0 for page in pages)


def test_page_of_tiny_items_fits_a_frame() -> None:
    pages = list(frames.pages([Event("k", None, 1 << 60)] * 300_000))
    assert len(pages) > 1
    for page in pages:
        frames.encode(1, frames.PART, frames.pack_records(page))
