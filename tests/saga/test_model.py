"""Sagas of any table, under any replies, refusals, timeouts, repeats and operators: all is done, or all is undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.saga.tables import STEPS, message, step, table
from twinlog import (
    Abort,
    Begin,
    FailedPrecondition,
    Reply,
    Retry,
    Saga,
    SagaStatus,
    Skip,
    saga_aggregate,
)
from twinlog.model.saga import Command, Wake
from twinlog.model.saga_step import Backoff
from twinlog.testing.internals import StateCodec, StepState
from twinlog.v1 import saga_pb2 as pb

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ENDED = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)


@st.composite
def tables(draw: st.DrawFn) -> Saga:
    steps = [
        step(
            number,
            undo=draw(st.booleans()),
            refused=draw(st.booleans()),
            deadline=draw(st.sampled_from([None, timedelta(seconds=5), lambda _trigger: NOW])),
            retries=draw(st.integers(0, 2)),
        )
        for number in range(draw(st.integers(1, STEPS)))
    ]
    return table(steps, closes=draw(st.booleans()), backoff=Backoff(attention_after=2))


ACTIONS = st.one_of(
    st.tuples(st.just("deliver"), st.integers(0, 5)),
    st.tuples(st.just("hear"), st.integers(0, 5)),
    st.sampled_from(
        [(word, 0) for word in ("overdue", "early", "retry", "skip", "abort", "interrupt", "begin")]
    ),
)


@dataclass
class Participant:
    """Who takes a step's commands: the same answer to each repeat, and none to what was undone before it began."""

    accepts: bool
    state: str = "new"

    def handle(self, word: str) -> str:
        if word == "Send" and self.state == "new":
            self.state = "done" if self.accepts else "refused"
        elif word == "Undo" and self.state != "refused":
            self.state = "undone"
        if word == "Undo":
            return "Undone"
        return {"done": "Done", "refused": "Refused"}.get(self.state, "")


@dataclass
class World:
    """One instance, its participants, and all that is on its way between them."""

    saga: Saga
    accepts: tuple[bool, ...]
    now: datetime = NOW
    commands: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)
    """Steps whose undoing an operator left out."""

    def __post_init__(self) -> None:
        self.sagas = saga_aggregate(self.saga)
        self.instance = self.sagas.initial
        self.participants = [
            Participant(accepts or step.refused is None)
            for step, accepts in zip(self.saga.steps, self.accepts, strict=False)
        ]

    def give(self, command: Command) -> None:
        """Gives the instance a command; checks what must hold after each."""
        try:
            events = self.sagas.decide(self.instance, command)
        except FailedPrecondition:
            return
        compensating = self.instance.status is SagaStatus.COMPENSATING
        if isinstance(command, Skip) and compensating and self.instance.current is not None:
            self.skipped.add(self.instance.current)
        self.instance = self.sagas.fold(events, self.instance)
        if isinstance(command, Begin | Reply):
            assert not self.sagas.decide(self.instance, command), "once more, and it decides again"
        self.events += events
        self.commands += [
            event for event in events if event.DESCRIPTOR.name.startswith(("Send", "Undo", "Close"))
        ]
        self.check()

    def check(self) -> None:
        instance = self.instance
        assert (instance.status in (*ENDED, SagaStatus.NONE)) == (instance.current is None)
        for under_way in (StepState.RUNNING, StepState.COMPENSATING):
            assert instance.steps.count(under_way) <= 1
        if instance.status in ENDED:
            assert (instance.deadline, instance.needs_attention) == (None, False)

    def act(self, action: str, at: int) -> None:
        match action:
            case "deliver" if self.commands:
                self.deliver(self.commands[at % len(self.commands)])
            case "hear" if self.answers:
                self.give(Reply(self.answers[at % len(self.answers)], self.now))
            case "overdue" if self.instance.deadline:
                self.now = max(self.now, self.instance.deadline)
                self.give(Wake(self.now))
            case "early" if self.instance.deadline:
                before = len(self.events)
                self.give(Wake(self.instance.deadline - timedelta(microseconds=1)))
                assert len(self.events) == before
            case "retry":
                self.give(Retry("x", self.now))
            case "skip":
                self.give(Skip("x", self.now))
            case "abort":
                self.give(Abort("x", self.now))
            case "interrupt":
                self.give(Reply(message("Interrupt"), self.now))
            case "begin":
                self.give(Begin(message("Trigger"), self.now))

    def deliver(self, command: Message) -> None:
        word, number = command.DESCRIPTOR.name[:4], command.DESCRIPTOR.name[4:]
        if word == "Clos":
            self.answers.append(message("Closed"))
        elif answer := self.participants[int(number)].handle(word):
            self.answers.append(message(answer, number))

    def finish(self) -> None:
        """Whatever is on its way arrives, in the order in which it was sent, until nothing moves any more."""
        for _ in range(3 * STEPS):
            for command in list(self.commands):
                self.deliver(command)
            for answer in list(self.answers):
                self.give(Reply(answer, self.now))
        for command in list(self.commands):
            self.deliver(command)


@settings(max_examples=200, deadline=None)
@given(
    saga=tables(),
    accepts=st.tuples(*[st.booleans()] * STEPS),
    actions=st.lists(ACTIONS, max_size=30),
)
def test_in_the_end_all_is_done_or_all_is_undone(
    saga: Saga, accepts: tuple[bool, ...], actions: list[tuple[str, int]]
) -> None:
    world = World(saga, accepts)
    world.give(Begin(message("Trigger"), NOW))
    for action, at in actions:
        world.act(action, at)
    world.finish()
    instance, codec = world.instance, StateCodec(world.sagas)
    assert instance.status in ENDED
    assert world.sagas.fold(world.events) == codec.decode(codec.encode(instance)) == instance
    if instance.status is SagaStatus.COMPLETED:
        assert set(instance.steps) <= {StepState.DONE, StepState.SKIPPED}
        for state, participant in zip(instance.steps, world.participants, strict=True):
            assert state is StepState.SKIPPED or participant.state == "done"
    else:
        for number, (step, participant) in enumerate(zip(saga.steps, world.participants, strict=True)):
            assert participant.state != "done" or not step.undo or number in world.skipped
    in_order(world)


def in_order(world: World) -> None:
    """Steps are begun in their order and undone in the reverse of it; the first reason is the one that stays."""
    sent = [event.DESCRIPTOR.name for event in world.events]
    begun = [int(name[4:]) for name in sent if name.startswith("Send")]
    undone = [int(name[4:]) for name in sent if name.startswith("Undo")]
    assert begun == sorted(begun)
    assert undone == sorted(undone, reverse=True)
    assert set(undone) <= set(begun)
    last_begun = max((at for at, name in enumerate(sent) if name.startswith("Send")), default=0)
    first_undone = min((at for at, name in enumerate(sent) if name.startswith("Undo")), default=len(sent))
    assert last_begun < first_undone
    reasons = [
        e.reason
        for e in world.events
        if isinstance(e, pb.SagaStepFailed | pb.SagaInterrupted | pb.SagaAborted)
    ]
    assert world.instance.reason == (reasons[0] if reasons else "")
