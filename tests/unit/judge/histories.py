"""Histories made without a store: of a register that works, and of one that is broken in a known way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ssastore.judge.history import Condition, Kind, Op, Outcome, apply
from ssastore.sim.seeds import Stream

UNKNOWN_SHARE = 0.02


def working(seed: int, ops: int = 100, clients: int = 5, unknown: float = UNKNOWN_SHARE) -> list[Op]:
    """What ``clients`` are told by a register that works.

    Every operation has an instant at which it takes effect; one of unknown outcome may have it long
    after its client has given up, or never.  Versions are those that a store would tell.
    """
    draw = Stream(seed, "history")
    calls = sorted(_calls(draw, ops, clients, unknown), key=lambda call: call[1])
    state: str | None = None
    written: list[str] = [""]
    version = 0
    history: list[Op] = []
    for op, _, is_lost, is_dropped in calls:
        if op.condition is Condition.IF_VALUE:
            op = replace(op, expected=draw.choice(written[-3:]))
        outcome, after = (Outcome.UNKNOWN, state) if is_dropped else apply(op, state)
        if after != state and after is not None:
            written.append(after)
        value = (state or "") if op.kind is Kind.GET else op.value
        if op.kind is not Kind.GET and outcome is Outcome.DONE:
            version += 1
        state = after
        answer = Outcome.UNKNOWN if is_lost else outcome
        history.append(replace(op, outcome=answer, value=value, version=0 if is_lost else version))
    return history


def _calls(draw: Stream, ops: int, clients: int, unknown: float) -> list[tuple[Op, int, bool, bool]]:
    """(call, its instant, whether its answer is lost, whether it never takes effect)."""
    calls = []
    now_ns = [draw.randrange(1000) for _ in range(clients)]
    for number in range(1, ops + 1):
        client = min(range(clients), key=now_ns.__getitem__)
        called_ns = now_ns[client] + draw.randrange(1, 300)
        answered_ns = called_ns + draw.randrange(1, 1000)
        kind = draw.choices((Kind.GET, Kind.PUT, Kind.DELETE), (5, 5, 1))[0]
        condition = Condition.NONE
        if kind is not Kind.GET:
            condition = draw.choices(tuple(Condition), (4, 1, 1, 2))[0]
        if kind is Kind.DELETE and condition is Condition.IF_ABSENT:
            condition = Condition.NONE
        value = f"v{number}" if kind is Kind.PUT else ""
        op = Op(client, kind, called_ns, answered_ns, Outcome.DONE, value, condition)
        is_lost = draw.chance(unknown)
        instant_ns = draw.randint(called_ns, answered_ns)
        if is_lost and draw.chance(0.3):
            instant_ns += draw.randrange(20_000)
        calls.append((op, instant_ns, is_lost, is_lost and draw.chance(0.5)))
        # Times are unique but for touching ends, which count as concurrent.
        now_ns[client] = answered_ns
    return calls


# -- broken in a known way -----------------------------------------------------------------------------

Breaking = Callable[[list[Op], Stream], list[Op] | None]
"None: this history has no place for it."


def stale_read(history: list[Op], draw: Stream) -> list[Op] | None:
    """A get returns what was overwritten before it began."""
    return _replace_one(history, draw, Kind.GET, lambda op: _overwritten_before(history, op))


def _overwritten_before(history: list[Op], get: Op) -> Op | None:
    writes = [op for op in history if op.kind is Kind.PUT and op.outcome is Outcome.DONE]
    for old in writes:
        for new in writes:
            if old.answered_ns < new.called_ns and new.answered_ns < get.called_ns and old.value != get.value:
                return replace(get, outcome=Outcome.DONE, value=old.value)
    return None


def lost_write(history: list[Op], draw: Stream) -> list[Op] | None:
    """A get finds nothing although something was there all the time, and nobody deleted."""

    def broken(get: Op) -> Op | None:
        if any(op.kind is Kind.DELETE and op.called_ns < get.answered_ns for op in history):
            return None
        for op in history:
            is_put = op.kind is Kind.PUT and op.outcome is Outcome.DONE
            if is_put and op.answered_ns < get.called_ns and get.value:
                return replace(get, outcome=Outcome.ABSENT, value="")
        return None

    return _replace_one(history, draw, Kind.GET, broken)


def invented_value(history: list[Op], draw: Stream) -> list[Op] | None:
    """A get returns what nobody wrote, or only later."""
    return _replace_one(
        history, draw, Kind.GET, lambda get: replace(get, outcome=Outcome.DONE, value="nobody's")
    )


def second_winner(history: list[Op], draw: Stream) -> list[Op] | None:
    """Of two conditional writes that expected the same state both were applied."""

    def broken(put: Op) -> Op | None:
        if put.condition is not Condition.IF_VALUE or put.outcome is not Outcome.FAILED:
            return None
        for new in history:
            is_write = new.kind is Kind.PUT and new.outcome is Outcome.DONE and new.value != put.expected
            writer = next((op for op in history if op.value == put.expected and op.kind is Kind.PUT), None)
            if not is_write or writer is None or writer.outcome is not Outcome.DONE:
                continue
            if writer.answered_ns < new.called_ns and new.answered_ns < put.called_ns:
                return replace(put, outcome=Outcome.DONE)
        return None

    return _replace_one(history, draw, Kind.PUT, broken)


def groundless_refusal(history: list[Op], draw: Stream) -> list[Op] | None:
    """ "If absent" was refused although nobody had written yet."""
    first = min(op.called_ns for op in history)
    begun = Op(99, Kind.PUT, first - 20, first - 10, Outcome.FAILED, "v0", Condition.IF_ABSENT)
    return [begun, *history]


def _replace_one(
    history: list[Op], draw: Stream, kind: Kind, broken: Callable[[Op], Op | None]
) -> list[Op] | None:
    places = [i for i, op in enumerate(history) if op.kind is kind and op.outcome is not Outcome.UNKNOWN]
    draw.shuffle(places)
    for place in places:
        op = broken(history[place])
        if op is not None:
            return [*history[:place], op, *history[place + 1 :]]
    return None


BREAKINGS: dict[str, Breaking] = {
    breaking.__name__: breaking
    for breaking in (stale_read, lost_write, invented_value, second_winner, groundless_refusal)
}


def broken(seed: int, breaking: Breaking) -> list[Op]:
    """A history that no order explains: the first from ``seed`` on that has a place for the fault."""
    while True:
        history = breaking(working(seed), Stream(seed, "breaking"))
        if history is not None:
            return history
        seed += 100_000
