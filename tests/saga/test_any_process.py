"""Sagas of any table: groups, conditions, signals, delays, transient failures and a point of no return.

Whatever replies, refusals, silences, crashes, repeats and orders come, in whatever order: in the end all is done, or
all is undone. Bugs are planted to show that the model would see them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.saga.tables import STEPS, counted, kind, message, step, table
from twinlog import (
    Abort,
    Backoff,
    Begin,
    FailedPrecondition,
    Parallel,
    Reply,
    Retry,
    Saga,
    SagaInstance,
    SagaStatus,
    Skip,
    Step,
    saga_aggregate,
)
from twinlog.model.saga import Command, Wake
from twinlog.model.saga_decider import SagaDecider
from twinlog.model.saga_evolution import SagaEvolution
from twinlog.testing.internals import StateCodec, StepState
from twinlog.v1 import saga_pb2 as pb

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LASTS: Sequence[timedelta | Callable[[Any], datetime]] = (SECOND, lambda _trigger: NOW)
ENDED = (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
WORDS = ("speak", "overdue", "retry", "skip", "abort", "interrupt", "begin", "crash")
ACTIONS = st.lists(
    st.tuples(st.sampled_from((*["deliver", "hear"] * 4, *WORDS)), st.integers(0, 9)), max_size=40
)


ANYTHING = (("command",) * 4 + ("signal", "delay"), (None, 5 * SECOND, lambda _trigger: NOW + SECOND))
PEOPLE = (("command", "signal", "signal"), (None,))
COMMANDS = (("command",), (None,))
"""The forms that steps have and their deadlines: in sagas of any kind, of people mostly, and of commands."""

EARLY_ACTIONS = st.lists(
    st.tuples(st.sampled_from(("speak", "speak", "deliver", "hear", "crash")), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)
HEARD_AGAIN_ACTIONS = st.lists(
    st.tuples(st.sampled_from(("deliver", "hear", "overdue")), st.integers(0, 9)), min_size=4, max_size=12
)


@st.composite
def steps(draw: st.DrawFn, number: int, pivot: int, kinds: Any, *, grouped: bool) -> Step:
    """A step of any kind; from the point of no return on, one that is never undone."""
    forms, deadlines = kinds
    when = draw(st.sampled_from([None, None, lambda _context: True, lambda _context: False]))
    form = draw(st.sampled_from(forms))
    if form == "delay" and number != pivot:
        return Step(f"step {number}", lasts=draw(st.sampled_from(LASTS)), when=when)
    more: dict[str, Any] = {}
    if form == "command" and draw(st.booleans()):
        more = {"transient": kind("Busy", number), "retries": draw(st.integers(1, 2))}
    elif form == "command":
        more = {"retries": draw(st.integers(0, 2))}
    made = step(
        number,
        undo=number < pivot and draw(st.booleans()),
        refused=draw(st.booleans()),
        deadline=draw(st.sampled_from(deadlines)),
        when=when,
        no_return=number == pivot and not grouped,
        **more,
    )
    send = None if form == "signal" and number != pivot else counted("Send", number)
    return Step(**{**vars(made), "send": send, "undo": made.undo and counted("Undo", number)})


@st.composite
def tables(draw: st.DrawFn, kinds: Any) -> Saga:
    count = draw(st.integers(1, STEPS))
    pivot = draw(st.sampled_from([STEPS, STEPS, *range(count)]))
    entries: list[Step] = []
    number = 0
    while number < count:
        most = count - number if number > pivot else max(1, min(pivot, count) - number)
        size = draw(st.integers(1, most))
        members = [draw(steps(n, pivot, kinds, grouped=size > 1)) for n in range(number, number + size)]
        entries.append(Parallel(*members) if size > 1 else members[0])
        number += size
    return table(entries, closes=draw(st.booleans()), backoff=Backoff(attention_after=2))


class Broken(Exception):
    """A promise that was not kept: what planted bugs have to come to, as a mistake of the model itself does not."""


def promise(kept: bool, otherwise: str) -> None:
    """Raises Broken unless it is kept."""
    if not kept:
        raise Broken(otherwise)


@dataclass
class Participant:
    """Who takes a step's commands: the same answer to each repeat, and none to what was undone before it began.

    What failed for now is tried anew for another attempt, and not for one that is heard again.
    """

    accepts: bool
    busy: int
    """How often it fails for now."""
    relents: bool
    """Whether it accepts in the end what it refused: who comes after the point of no return has to."""
    state: str = "new"
    sent: int = 0
    """The last attempt that it has heard of."""
    refused: bool = False

    def handle(self, word: str, attempt: int) -> str:
        if word == "Undo":
            if self.state != "refused":
                self.state = "undone"
            return "Undone"
        tried, self.sent = self.sent, max(self.sent, attempt)
        return "" if self.state == "new" and attempt <= tried else self.answer()

    def answer(self) -> str:
        if self.state == "new" and self.busy:
            self.busy -= 1
            return "Busy"
        if self.state == "new" or (self.state == "refused" and self.relents):
            self.state = "done" if self.accepts or self.state == "refused" else "refused"
        return {"done": "Done", "refused": "Refused"}.get(self.state, "")


@dataclass
class World:
    """One instance, its participants, and all that is on its way between them."""

    saga: Saga
    accepts: Sequence[bool]
    busy: Sequence[int]
    now: datetime = NOW
    commands: list[Any] = field(default_factory=list)
    answers: dict[UUID, Message] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    undo_skipped: set[int] = field(default_factory=set)
    spoken: set[int] = field(default_factory=set)
    """The steps that a person has decided."""

    def __post_init__(self) -> None:
        self.sagas = saga_aggregate(self.saga)
        self.instance = self.sagas.initial
        pivot = STEPS if self.saga.pivot is None else self.saga.pivot
        self.participants = [
            Participant(accepts or each.refused is None, busy if each.transient else 0, number > pivot)
            for number, (each, accepts, busy) in enumerate(
                zip(self.saga.steps, self.accepts, self.busy, strict=False)
            )
        ]

    def give(self, command: Command) -> None:
        """Gives the instance a command; what is repeated decides nothing."""
        try:
            events = self.sagas.decide(self.instance, command)
        except FailedPrecondition:
            return
        if isinstance(command, Skip) and self.instance.status is SagaStatus.COMPENSATING:
            self.undo_skipped |= {each.step for each in self.instance.awaited}
        self.instance = self.sagas.fold(events, self.instance)
        if isinstance(command, Begin | Reply):
            promise(not self.sagas.decide(self.instance, command), "once more, and it decides again")
        self.events += events
        self.commands += [event for event in events if _word(event) in ("Send", "Undo", "Clos")]
        for event in events:
            if isinstance(event, pb.SagaStarted | pb.SagaStepSucceeded | pb.SagaStepSkipped):
                sent = {number for number, each in enumerate(self.participants) if each.sent}
                promise(not set(event.left_out) & sent, "what was sent is left out")
        over = self.instance.status in (*ENDED, SagaStatus.NONE)
        promise(over == (not self.instance.awaited), "it has ended and awaits something, or neither")

    def act(self, action: str, at: int) -> None:
        match action:
            case "deliver" if self.commands:
                self.deliver(self.commands[at % len(self.commands)])
            case "hear" if self.answers:
                self.hear([*self.answers][at % len(self.answers)])
            case "speak":
                self.speak(at % len(self.saga.steps))
            case "overdue" if self.instance.deadline:
                self.now = max(self.now, self.instance.deadline)
                self.give(Wake(self.now))
            case "retry" | "skip":
                name = self.saga.steps[at % len(self.saga.steps)].name if at % 2 else ""
                self.give((Retry if action == "retry" else Skip)("x", self.now, name))
            case "abort":
                self.give(Abort("x", self.now))
            case "interrupt":
                self.give(Reply(message("Interrupt"), self.now))
            case "begin":
                self.give(Begin(message("Trigger"), self.now))
            case "crash":
                self.crash()

    def crash(self) -> None:
        """Nothing is left but the log, or a snapshot."""
        codec = StateCodec(self.sagas)
        rebuilt = self.sagas.fold(self.events)
        kept = codec.decode(codec.encode(self.instance))
        promise(rebuilt == kept == self.instance, "its events or its snapshot lead to another state")
        self.instance = rebuilt

    def deliver(self, command: Any) -> None:
        word, number = _word(command), command.DESCRIPTOR.name[4:]
        if word == "Clos":
            self.answers[_id("Closed")] = message("Closed")
        elif answer := self.participants[int(number)].handle(word, command.attempt):
            attempt = self.participants[int(number)].sent if answer == "Busy" else ""
            self.answers[_id(f"{answer}{number}/{attempt}")] = message(answer, number)

    def hear(self, answer: UUID) -> None:
        """An answer comes, for the first time or once more."""
        self.give(Reply(self.answers[answer], self.now, answer))

    def speak(self, number: int) -> None:
        """A person decides, whether it is the step's turn or not, and says it to the instance.

        Nobody decides what was undone already.
        """
        step = self.saga.steps[number]
        if step.send is None and step.done and (answer := self.participants[number].answer()):
            self.spoken.add(number)
            self.give(Reply(message(answer, number), self.now))

    def signal(self) -> None:
        """People decide what waits for them, once."""
        for each in self.instance.awaited if self.instance.status is SagaStatus.RUNNING else ():
            if each.step not in self.spoken or self.participants[each.step].relents:
                self.speak(each.step)

    def finish(self) -> None:
        """Whatever is on its way arrives, people decide and time passes, until nothing moves any more."""
        for _ in range(12 * STEPS):
            self.signal()
            for command in list(self.commands):
                self.deliver(command)
            for answer in self.answers:
                self.hear(answer)
            self.answers.clear()
            if self.instance.deadline:
                self.act("overdue", 0)
        for command in list(self.commands):
            self.deliver(command)


def _word(event: Message) -> str:
    return event.DESCRIPTOR.name[:4]


def _id(answer: str) -> UUID:
    """The same answer is the same event, however often it is heard."""
    return UUID(bytes=answer.encode().ljust(16))


def play(
    saga: Saga, accepts: Sequence[bool], busy: Sequence[int], actions: Sequence[tuple[str, int]]
) -> None:
    world = World(saga, accepts, busy)
    world.give(Begin(message("Trigger"), NOW))
    for action, at in actions:
        world.act(action, at)
    world.finish()
    world.crash()
    promise(world.instance.status in ENDED, "it never ends")
    all_done(world) if world.instance.status is SagaStatus.COMPLETED else all_undone(world)
    in_order(world)
    sent_again_only_on_record(world)
    put_off_once(world)


def all_done(world: World) -> None:
    for state, participant, each in zip(
        world.instance.steps, world.participants, world.saga.steps, strict=True
    ):
        over = state in (StepState.DONE, StepState.SKIPPED, StepState.LEFT_OUT)
        promise(over, f"{each.name} is not done")
        promise(state is not StepState.LEFT_OUT or not participant.sent, f"{each.name} was not left out")
        really = bool(each.lasts) or participant.state == "done"
        promise(state is not StepState.DONE or really, f"{each.name} is only said to be done")


def all_undone(world: World) -> None:
    pivot = world.saga.pivot
    passed = pivot is not None and world.participants[pivot].state == "done"
    promise(not passed, "it went back over the point of no return")
    for number, (each, participant) in enumerate(zip(world.saga.steps, world.participants, strict=True)):
        undone = participant.state != "done" or number in world.undo_skipped
        promise(undone or not each.undo or each.send is None, f"{each.name} is left")


def in_order(world: World) -> None:
    """Groups are begun in their order; what may yet happen is undone first, then what happened last."""
    happened: list[int] = []
    undone: list[int] = []
    begun: list[int] = []
    for event in world.events:
        if isinstance(event, pb.SagaStepSucceeded | pb.SagaStepSkipped) and not undone:
            happened.append(event.step)
        if _word(event) == "Send":
            promise(not undone, "it goes forward on its way back")
            begun.append(int(event.DESCRIPTOR.name[4:]))
        if _word(event) == "Undo":
            undone.append(int(event.DESCRIPTOR.name[4:]))
    groups = [next(i for i, group in enumerate(world.saga.groups) if number in group) for number in begun]
    promise(groups == sorted(groups), "groups begin in another order")
    first = list(dict.fromkeys(undone))
    unanswered = [number for number in first if number not in happened]
    if world.instance.status is SagaStatus.COMPENSATED and not _completed_before(world):
        last_first = unanswered + [number for number in reversed(happened) if number in first]
        promise(first == last_first, "it is undone in another order")


def _completed_before(world: World) -> bool:
    return any(isinstance(event, pb.SagaCompleted) for event in world.events)


def sent_again_only_on_record(world: World) -> None:
    """A command is sent once, and once more for each event that says so."""
    sent = Counter(event.DESCRIPTOR.name for event in world.events if _word(event) == "Send")
    again = _again(world)
    for name, times in sent.items():
        promise(times <= 1 + again[int(name[4:])], f"{name} is sent again without a word")
    attempts: dict[str, list[int]] = defaultdict(list)
    for event in world.events:
        if _word(event) in ("Send", "Undo"):
            attempts[event.DESCRIPTOR.name].append(event.attempt)
    for name, numbers in attempts.items():
        promise(numbers == [*range(1, 1 + len(numbers))], f"the attempts of {name} do not count up")


def put_off_once(world: World) -> None:
    """A step is put off once an attempt, and once an answer."""
    deferred = [event for event in world.events if isinstance(event, pb.SagaStepDeferred)]
    by = [event.event_id for event in deferred if event.event_id]
    promise(len(by) == len(set(by)), "an answer that is heard again counts again")
    again = _again(world)
    for number, times in Counter(event.step for event in deferred).items():
        promise(times <= 1 + again[number], f"step {number} is put off more often than it was tried")


def _again(world: World) -> Counter[int]:
    """By step, how often it was tried again."""
    orders = (pb.SagaCommandRetried, pb.SagaRetryRequested)
    return Counter(event.step for event in world.events if isinstance(event, orders))


Given = Callable[[Callable[..., None]], Callable[..., None]]


def played(kinds: Any, actions: Any) -> Given:
    """Gives a test sagas of these kinds, and what happens to them."""
    made: Given = given(
        saga=tables(kinds),
        accepts=st.tuples(*[st.booleans()] * STEPS),
        busy=st.tuples(*[st.integers(0, 3)] * STEPS),
        actions=actions,
    )
    return made


PLAYED = played(ANYTHING, ACTIONS)
DECIDED_EARLY = played(PEOPLE, EARLY_ACTIONS)
HEARD_AGAIN = played(COMMANDS, HEARD_AGAIN_ACTIONS)


@settings(max_examples=300, deadline=None)
@PLAYED
def test_in_the_end_all_is_done_or_all_is_undone(
    saga: Saga, accepts: Sequence[bool], busy: Sequence[int], actions: Sequence[tuple[str, int]]
) -> None:
    play(saga, accepts, busy, actions)


@settings(max_examples=100, deadline=None)
@DECIDED_EARLY
def test_also_where_people_decide_before_it_is_their_turn(
    saga: Saga, accepts: Sequence[bool], busy: Sequence[int], actions: Sequence[tuple[str, int]]
) -> None:
    play(saga, accepts, busy, actions)


# --- planted bugs ---

_to_undo = SagaEvolution.to_undo
_following = SagaEvolution.following
_defer = SagaDecider._defer
_reply = SagaDecider._reply
_context_of = SagaInstance.context_of


class Bug(NamedTuple):
    """A method that is put in the place of another, and the sagas that show it."""

    owner: Any
    method: str
    broken: Callable[..., Any]
    where: Given = PLAYED
    near: int = 0
    """The seed, the same in each run, so that none fails for want of luck; this one shows it soon."""


BUGS = {
    "undoes what happened first": Bug(
        SagaEvolution,
        "to_undo",
        lambda self, instance: list(reversed(_to_undo(self, instance))),
        near=2,
    ),
    "forgets what is under way": Bug(
        SagaEvolution,
        "to_undo",
        lambda self, instance: [
            n for n in _to_undo(self, instance) if instance.steps[n] is not StepState.RUNNING
        ],
    ),
    "goes back over the point of no return": Bug(
        SagaDecider, "_has_to_happen", lambda _self, _instance: False
    ),
    "counts a repeated failure twice": Bug(
        SagaDecider,
        "_defer",
        lambda self, instance, awaited, event, now: _defer(
            self, instance, awaited._replace(resting=False), event, now
        ),
    ),
    "counts what it hears again": Bug(
        SagaDecider,
        "_reply",
        lambda self, instance, *reply: _reply(self, _forgetful(instance), *reply),
        HEARD_AGAIN,
    ),
    "counts attempts anew after an order": Bug(
        SagaInstance,
        "context_of",
        lambda self, _sent: replace(_context_of(self, 1), attempt=self.attempts),
        near=1,
    ),
    "goes on after the first of a group": Bug(
        SagaEvolution,
        "following",
        lambda self, instance: _following(
            self, instance if len(instance.awaited) > 1 else _without_awaited(instance)
        ),
    ),
    "forgets what a person said before it was asked": Bug(
        SagaDecider, "_keep", lambda _self, _instance, _event: [], DECIDED_EARLY
    ),
}


def _forgetful(instance: Any) -> Any:
    return replace(instance, awaited=tuple(each._replace(heard=()) for each in instance.awaited))


def _without_awaited(instance: Any) -> Any:
    return replace(instance, awaited=())


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    monkeypatch.setattr(bug.owner, bug.method, bug.broken)

    @seed(bug.near)
    @settings(
        max_examples=3000,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @bug.where
    def plays(
        saga: Saga, accepts: Sequence[bool], busy: Sequence[int], actions: Sequence[tuple[str, int]]
    ) -> None:
        play(saga, accepts, busy, actions)

    with pytest.raises(Broken):
        plays()
