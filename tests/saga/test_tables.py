"""What tables that the shop does not have say: several steps to undo, retries, versions, reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests.saga.tables import after, kind, message, names, step, table
from twinlog import (
    Abort,
    Aggregate,
    Begin,
    ConfigurationError,
    Parallel,
    Reply,
    SagaInstance,
    SagaStatus,
    Skip,
    saga_aggregate,
)
from twinlog.model import saga_table
from twinlog.model.saga import TIMED_OUT, Command, Retry, Wake
from twinlog.model.saga_decider import NotUndoable
from twinlog.model.saga_step import Backoff
from twinlog.testing.internals import StepState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BEGIN = Begin(message("Trigger"), NOW)
INTERRUPT = Reply(message("Interrupt"), NOW)


def reply(word: str, number: int | str = "") -> Reply:
    return Reply(message(word, number), NOW)


def overdue(
    sagas: Aggregate[SagaInstance, Command], instance: SagaInstance
) -> tuple[list[str], SagaInstance]:
    """What an instance does when its answer is overdue, and not a moment before."""
    assert instance.deadline is not None
    assert not sagas.decide(instance, Wake(instance.deadline - timedelta(microseconds=1)))
    events = sagas.decide(instance, Wake(instance.deadline))
    return names(events), sagas.fold(events, instance)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_steps_are_undone_in_the_reverse_of_the_order_that_they_were_done_in(steps: int) -> None:
    sagas = saga_aggregate(table([step(number) for number in range(steps)]))
    done = [reply("Done", number) for number in range(steps)]
    instance, sent = after(sagas, BEGIN, *done), []
    assert instance.status is SagaStatus.COMPLETED
    events = sagas.decide(instance, INTERRUPT)
    for number in reversed(range(steps)):
        sent.append(events[-1])
        instance = sagas.fold(events, instance)
        assert instance.current == number
        events = sagas.decide(instance, reply("Undone", number))
    assert sent == [message("Undo", number) for number in reversed(range(steps))]
    assert names(events) == ["SagaStepCompensated", "SagaCompensated"]


def test_what_is_refused_undoes_what_was_done_before_it_and_nothing_after() -> None:
    sagas = saga_aggregate(table([step(0), step(1, undo=False), step(2), step(3)]))
    past: list[Command] = [BEGIN, reply("Done", 0), reply("Done", 1)]
    events = sagas.decide(after(sagas, *past), reply("Refused", 2))
    assert events[-1] == message("Undo", 0)
    assert after(sagas, *past, reply("Refused", 2)).steps == (
        StepState.COMPENSATING,
        StepState.DONE,
        StepState.REFUSED,
        StepState.WAITING,
    )


def test_an_instance_is_decided_and_folded_by_the_table_that_it_began_with() -> None:
    first = table([step(0), step(1)])
    second = table([step(2, undo=False), step(0, undo=False), step(1)], version=2, closes=True)
    both, alone = saga_aggregate(second, first), saga_aggregate(first)
    inputs: list[Command] = [BEGIN, reply("Done", 0), reply("Refused", 1), reply("Undone", 0)]
    events: list[Message] = []
    instance = alone.initial
    for command in inputs:
        decided = alone.decide(instance, command)
        instance = alone.fold(decided, instance)
        events += decided
        if len(events) == len(decided):
            continue  # a new one begins with the newest table
        before = both.fold(events[: -len(decided)])
        assert list(both.decide(before, command)) == list(decided)
        assert both.fold(events) == instance
    assert instance.status is SagaStatus.COMPENSATED
    assert (both.fold(events).version, both.fold(both.decide(both.initial, BEGIN)).version) == (1, 2)


def test_new_instances_begin_with_the_version_that_is_asked_for() -> None:
    tables = table([step(0)]), table([step(0), step(1)], version=2)
    known, begun = saga_aggregate(*tables, begin_with=1), saga_aggregate(*tables)
    assert known.fold(known.decide(known.initial, BEGIN)).version == known.current.version == 1
    newer = known.fold(begun.decide(begun.initial, BEGIN))
    assert newer.version == 2, "what the next deployment begins is read, and goes on"
    assert known.decide(newer, reply("Done", 0)) == begun.decide(newer, reply("Done", 0))
    with pytest.raises(ConfigurationError, match=r"version 3: .* has no table; put it beside"):
        saga_aggregate(tables[0], begin_with=3)


def test_the_step_after_a_skipped_one_may_have_happened() -> None:
    sagas = saga_aggregate(table([step(0), step(1, undo=False)]))
    skipped = after(sagas, BEGIN, Skip("x", NOW))
    assert skipped.steps == (StepState.SKIPPED, StepState.RUNNING)
    with pytest.raises(NotUndoable, match="step 1"):
        sagas.decide(skipped, Abort("x", NOW))


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_overdue_command_is_sent_again_as_often_as_its_step_says(retries: int) -> None:
    sagas = saga_aggregate(table([step(0, deadline=5 * SECOND, retries=retries)]))
    instance = after(sagas, BEGIN)
    for attempt in range(1, retries + 1):
        assert (instance.attempts, instance.deadline) == (attempt, NOW + attempt * 5 * SECOND)
        said, instance = overdue(sagas, instance)
        assert said == ["SagaCommandRetried", "Send0"]
    said, instance = overdue(sagas, instance)
    assert (said, instance.reason) == (["SagaStepFailed", "Undo0"], TIMED_OUT)
    assert instance.steps == (StepState.COMPENSATING,)


def test_a_retry_that_was_ordered_begins_the_count_anew() -> None:
    sagas = saga_aggregate(table([step(0, deadline=5 * SECOND, retries=1)]))
    _, instance = overdue(sagas, after(sagas, BEGIN))
    assert instance.attempts == 2
    instance = sagas.fold(sagas.decide(instance, Retry("x", NOW)), instance)
    assert instance.attempts == 1
    said, instance = overdue(sagas, instance)
    assert said == ["SagaCommandRetried", "Send0"]


def test_the_wait_doubles_from_the_first_to_the_most() -> None:
    backoff = Backoff(first=SECOND, most=10 * SECOND)
    assert [backoff.delay(attempt) / SECOND for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff.delay(10**9) == 10 * SECOND
    assert [Backoff().delay(attempt) / SECOND for attempt in (1, 2, 6, 7)] == [5, 10, 160, 300]


def test_a_compensation_waits_as_its_table_says_and_then_asks_for_attention() -> None:
    backoff = Backoff(first=SECOND, most=4 * SECOND, attention_after=3)
    sagas = saga_aggregate(table([step(0)], backoff=backoff))
    instance, waits, said = after(sagas, BEGIN, INTERRUPT), [], []
    at = NOW
    for _ in range(5):
        assert instance.deadline is not None
        waits.append((instance.deadline - at) / SECOND)
        at = instance.deadline
        events, instance = overdue(sagas, instance)
        said.append(events[0])
        assert events[-2:] == ["SagaCommandRetried", "Undo0"]
    assert waits == [1, 2, 4, 4, 4]
    retried = "SagaCommandRetried"
    assert said == [retried, retried, "SagaNeedsAttention", retried, retried]
    assert instance.attempts == 6


def test_the_first_reason_stays() -> None:
    sagas = saga_aggregate(table([step(0), step(1)], closes=True))
    refused = after(sagas, BEGIN, reply("Done", 0), reply("Refused", 1))
    assert refused.reason == "Refused1"
    interrupted = sagas.fold(sagas.decide(refused, INTERRUPT), refused)
    assert (interrupted.interrupted, interrupted.reason) == (True, "Refused1")
    [_, ended] = sagas.decide(interrupted, reply("Undone", 0))
    assert (names([ended]), ended.reason) == (["SagaCompensated"], "Refused1")  # type: ignore[attr-defined]
    aborted = after(sagas, BEGIN, Abort("a typo", NOW), INTERRUPT)
    assert aborted.reason == "a typo"
    assert after(sagas, BEGIN, INTERRUPT).reason == "interrupted"


def test_a_compensation_is_not_disturbed_by_an_interruption() -> None:
    sagas = saga_aggregate(table([step(0), step(1)], closes=True))
    undoing = after(sagas, BEGIN, reply("Done", 0), reply("Refused", 1))
    events = sagas.decide(undoing, INTERRUPT)
    assert names(events) == ["SagaInterrupted"], "the command is on its way already"
    after_it = sagas.fold(events, undoing)
    assert (after_it.current, after_it.deadline, after_it.attempts) == (0, undoing.deadline, 1)
    assert names(sagas.decide(after_it, reply("Undone", 0))) == ["SagaStepCompensated", "SagaCompensated"]
    assert names(sagas.decide(undoing, reply("Undone", 0))) == ["SagaStepCompensated", "Close"]


# --- mistakes that only an instance would notice ---


async def later(*_arguments: Any) -> Any:
    """What ought to be a plain function."""


WRONG: Mapping[str, tuple[Callable[[], object], str]] = {
    "one event says that two steps are done": (
        lambda: table([step(0), replace(step(1), done=kind("Done", 0))]),
        '"step 0" and "step 1" are both done by Done0.*say by matches=',
    ),
    "one event says that two steps are undone": (
        lambda: table([Parallel(step(0), replace(step(1), undone=kind("Undone", 0)))]),
        '"step 0" and "step 1" are both undone by Undone0.*let each step have events of its own',
    ),
    "one event says that two steps are refused": (
        lambda: table([step(0), replace(step(1), refused=kind("Refused", 0))]),
        '"step 0" and "step 1" are both refused by Refused0.*again or late.*say by matches=',
    ),
    "one event puts two steps off": (
        lambda: table([step(n, transient=kind("Busy", 0), retries=1) for n in (0, 1)]),
        '"step 0" and "step 1" are both put off by Busy0',
    ),
    "one event undoes a step and does another": (
        lambda: table([step(0), replace(step(1), done=kind("Undone", 0))]),
        '"step 0" and "step 1" are undone and done by Undone0',
    ),
    "a step and the closing command have one answer": (
        lambda: table([replace(step(0), undone=kind("Closed"))], closes=True),
        '"step 0" and "close" are undone and done by Closed',
    ),
    "a version that stands for none": (
        lambda: table([step(0)], version=0),
        "versions count from 1, and 0 would stand for an instance that has not begun; renumber it",
    ),
    "success and refusal are one": (
        lambda: table([replace(step(0), refused=kind("Done", 0))]),
        '"step 0" has Done0 for success and for something else; let each have an event',
    ),
    "success and compensation are one": (
        lambda: table([replace(step(0), undone=kind("Done", 0))]),
        '"step 0" has Done0 for success and for something else',
    ),
    "success and a transient failure are one": (
        lambda: table([step(0, transient=kind("Done", 0), retries=1)]),
        '"step 0" has Done0 for success and for something else',
    ),
    "an interruption is an answer": (
        lambda: table([replace(step(0), done=kind("Interrupt"))]),
        'Interrupt interrupts it, so that the step "step 0" would never succeed; leave it out',
    ),
    "an async condition": (
        lambda: table([step(0, when=later)]),
        '"step 0" has an async when.*plain function',
    ),
    "an async command": (
        lambda: table([replace(step(0), send=later)]),  # type: ignore[arg-type]
        '"step 0" has an async send.*plain function',
    ),
    "retries below none": (lambda: table([step(0, retries=-1)]), "has retries=-1; give 0 or more"),
    "a deadline that is over": (
        lambda: table([step(0, deadline=-SECOND)]),
        "has deadline=.*over at once; give it more than 0",
    ),
    "a backoff without a pause": (
        lambda: table([step(0)], backoff=Backoff(first=0 * SECOND)),
        "its backoff goes from 0:00:00.*without a pause; let first be more than 0",
    ),
    "a step without a name": (lambda: table([replace(step(0), name="")]), "has no name; give it one"),
    "a saga with a slash": (
        lambda: replace(table([step(0)]), name="a/b"),
        "'a/b' is empty or has a slash.*rename it",
    ),
    "no table": (saga_aggregate, "saga_aggregate needs the tables of a saga: give it at least one"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_that_only_an_instance_would_notice_is_refused(mistake: str) -> None:
    made, said = WRONG[mistake]
    with pytest.raises(ConfigurationError, match=said):
        made()


def test_steps_that_pick_their_answers_may_share_them() -> None:
    both = [
        replace(step(0), matches=lambda _: True),
        replace(step(1), done=kind("Done", 0), matches=lambda _: False),
    ]
    assert table(both)


def test_sources_are_events_by_the_names_of_logs() -> None:
    form = saga_table._FORMS["sources"]
    right = [{}, {"rooms": [Int64Value]}, {"rooms": [Int64Value], "payments": [StringValue]}]
    wrong = [
        None,
        [Int64Value],
        {"rooms": "held"},
        {"rooms": [1]},
        {7: [Int64Value]},
        {"rooms": [Int64Value], 7: [1]},
    ]
    assert [given for given in right if not form.holds(given)] == []
    assert [given for given in wrong if form.holds(given)] == []
