"""Dead letters as given / when / then on values."""

from __future__ import annotations

from hypothesis import given as for_all
from hypothesis import strategies as st

from tests.dead_letters.journal import CONSUMER, event, positions
from twinlog import TwinlogError
from twinlog.consume.dead_letters import (
    AddDeadLetter,
    DeadLetter,
    DeadLetterId,
    DeadLetters,
    Discard,
    FailReplay,
    Failure,
    NotFirst,
    NotParked,
    Replay,
)
from twinlog.testing import given
from twinlog.testing.internals import DEAD_LETTERS, StateCodec, from_wire, to_wire
from twinlog.v1 import dead_letters_pb2 as pb

POISON, BEHIND, OTHER = event(3, "a:1"), event(5, "a:2"), event(6, "b:1")
CODEC = StateCodec(DEAD_LETTERS)
FAILURE = Failure("Broken", "no", 6)


def named(position: int, key: str = "a") -> DeadLetterId:
    return DeadLetterId(CONSUMER, "source", position, key)


def parked(position: int, key: str = "a") -> pb.EventParked:
    return pb.EventParked(**named(position, key)._asdict())


def test_parks_an_event_once_with_its_bytes_and_error() -> None:
    expected = pb.EventParked(
        **named(3)._asdict(), event=to_wire(POISON), error_type="Broken", error="no", attempts=6
    )
    assert from_wire("source", expected.event) == POISON
    given(DEAD_LETTERS).when(AddDeadLetter(CONSUMER, POISON, FAILURE)).then(expected)


def test_replays_the_first_of_a_key_only() -> None:
    both = given(DEAD_LETTERS, parked(3), parked(5))
    both.when(Replay(named(5))).then_refused(NotFirst, first="source/3", address="source/5")
    after = both.when(Replay(named(3))).then(pb.EventReplayed(**named(3)._asdict()))
    assert positions(after.state) == {"a": [5]}
    free = after.when(Replay(named(5))).then(pb.EventReplayed(**named(5)._asdict()))
    assert (free.state.parked, free.state.count) == (DeadLetters().parked, 0)


def test_those_that_go_in_order_cost_the_same_however_many_are_behind_them() -> None:
    looks = 0

    class Looked(DeadLetter):
        @property
        def position(self) -> int:
            nonlocal looks
            looks += 1
            return self[0]

    many = 500
    letters = tuple(Looked(at, at, "", "", 0) for at in range(1, many + 1))
    dead = DeadLetters(DeadLetters().parked.insert("a", letters), many, many)
    for at in range(1, many + 1):
        command = Replay(named(at)) if at % 2 else Discard(named(at), "typo")
        dead = DEAD_LETTERS.fold(DEAD_LETTERS.decide(dead, command), dead)
    assert (dead.parked, dead.count) == (DeadLetters().parked, 0)
    assert looks <= 5 * many, "all those behind each made it 125,000"


def test_a_discarded_event_sets_those_behind_it_free() -> None:
    both = given(DEAD_LETTERS, parked(3), parked(5))
    after = both.when(Discard(named(3), "typo")).then(pb.EventDiscarded(**named(3)._asdict(), reason="typo"))
    after.when(Replay(named(5))).then(pb.EventReplayed(**named(5)._asdict()))


def test_refuses_what_is_not_parked() -> None:
    one = given(DEAD_LETTERS, parked(3))
    for command in (Replay(named(4)), Discard(named(4), "x"), FailReplay(named(3, "b"), FAILURE)):
        one.when(command).then_refused(NotParked)


def test_a_replay_in_vain_leaves_the_event_with_its_new_error() -> None:
    failed = pb.EventReplayFailed(**named(3)._asdict(), error_type="Other", error="still no")
    after = given(DEAD_LETTERS, parked(3)).when(FailReplay(named(3), Failure("Other", "still no", 1)))
    first = after.then(failed).state.first("a")
    assert first and (first.error_type, first.error, first.position) == ("Other", "still no", 3)


COMMANDS = [
    *(AddDeadLetter(CONSUMER, one) for one in (POISON, BEHIND, OTHER)),
    *(Replay(named(*of)) for of in ((3,), (5,), (6, "b"))),
    *(Discard(named(*of), "x") for of in ((3,), (5,), (6, "b"))),
    FailReplay(named(3), FAILURE),
]


@for_all(st.lists(st.sampled_from(COMMANDS), max_size=20))
def test_whatever_is_decided_the_count_is_right_and_a_snapshot_gives_the_same(
    commands: list[object],
) -> None:
    dead = DeadLetters()
    for command in commands:
        try:
            events = DEAD_LETTERS.decide(dead, command)  # type: ignore[arg-type]
        except TwinlogError:
            continue
        dead = DEAD_LETTERS.fold(events, dead)
    assert dead.count == sum(map(len, dead.parked.values()))
    assert all(dead.parked.values())
    assert CODEC.decode(CODEC.encode(dead)) == dead
