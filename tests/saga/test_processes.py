"""What each word of a table means, one at a time: replies, groups, conditions, signals, times, failures, no return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests.saga.tables import after, kind, makes, message, names, step, table
from twinlog import (
    Abort,
    Aggregate,
    Backoff,
    Begin,
    ConfigurationError,
    Parallel,
    Reply,
    Retry,
    SagaInstance,
    SagaStatus,
    Skip,
    Step,
    saga_aggregate,
)
from twinlog.model.messages import pack
from twinlog.model.saga import Command, Wake
from twinlog.model.saga_decider import NothingToSend, PastNoReturn, SeveralAwaited, StepNotAwaited
from twinlog.model.saga_shown import AwaitedKind, awaited_answers, remaining_steps
from twinlog.testing.internals import StepState
from twinlog.v1 import saga_pb2 as pb

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BEGIN = Begin(message("Trigger"), NOW)
INTERRUPT = Reply(message("Interrupt"), NOW)
Sagas = Aggregate[SagaInstance, Command]


def of(*steps: Step, **more: Any) -> Sagas:
    return saga_aggregate(table(steps, **more))


def reply(word: str, number: int | str = "") -> Reply:
    return Reply(message(word, number), NOW)


def decided(sagas: Sagas, *past: Command) -> list[str]:
    """What the last of these commands decides."""
    return names(sagas.decide(after(sagas, *past[:-1]), past[-1]))


def wake(seconds: float) -> Wake:
    return Wake(NOW + seconds * SECOND)


# --- replies ---


def paid(**more: Any) -> Step:
    """A step that is answered with a number, which is undone by its number."""
    undo = {"undo": lambda saga: Int64Value(value=-saga.replies["pay"].value), "undone": kind("Undone", 0)}
    return Step("pay", send=makes("Send", 0), done=Int64Value, **{**undo, **more})


def book(**more: Any) -> Step:
    return Step(
        "book",
        send=lambda saga: StringValue(value=f"paid {saga.replies['pay'].value}"),
        done=kind("Done", 1),
        refused=kind("Refused", 1),
        **more,
    )


def test_a_command_sees_earlier_replies_and_so_does_a_compensation() -> None:
    sagas = of(paid(), book())
    answered = Reply(Int64Value(value=7), NOW)
    assert sagas.decide(after(sagas, BEGIN), answered)[-1] == StringValue(value="paid 7")
    past = after(sagas, BEGIN, answered)
    assert sagas.decide(past, reply("Refused", 1))[-1] == Int64Value(value=-7)


def test_the_last_reply_is_there_when_what_is_completed_is_undone() -> None:
    sagas = of(paid())
    assert decided(sagas, BEGIN, Reply(Int64Value(value=7), NOW)) == ["SagaCompleted"]
    done = after(sagas, BEGIN, Reply(Int64Value(value=7), NOW))
    assert sagas.decide(done, INTERRUPT)[-1] == Int64Value(value=-7)


def test_an_instance_of_0_1_0_is_read_and_has_no_replies() -> None:
    sagas = of(step(0), step(1))
    instance = sagas.fold(
        [
            pb.SagaStarted(saga="table", version=1, trigger=pack(message("Trigger"))),
            pb.SagaStepSucceeded(step=0),
        ]
    )
    assert (instance.current, instance.steps) == (1, (StepState.DONE, StepState.RUNNING))
    with pytest.raises(KeyError, match='no reply of step "step 0" is kept; there are: none'):
        instance.context.replies["step 0"]
    assert sagas.decide(instance, reply("Refused", 1))[-1] == message("Undo", 0)
    assert sagas.fold([pb.SagaCompleted()], instance).status is SagaStatus.COMPLETED


# --- groups ---

GROUP = of(Parallel(step(0, deadline=5 * SECOND), step(1), step(2)), step(3))


def test_a_group_is_begun_together_and_goes_on_when_all_are_done() -> None:
    assert decided(GROUP, BEGIN) == ["SagaStarted", "Send0", "Send1", "Send2"]
    assert decided(GROUP, BEGIN, reply("Done", 2)) == ["SagaStepSucceeded"]
    assert decided(GROUP, BEGIN, reply("Done", 2), reply("Done", 0)) == ["SagaStepSucceeded"]
    past = (BEGIN, reply("Done", 2), reply("Done", 0), reply("Done", 1))
    assert decided(GROUP, *past) == ["SagaStepSucceeded", "Send3"]
    assert not decided(GROUP, *past, reply("Done", 1)), "a repeat"


def test_the_first_refusal_undoes_what_is_under_way_and_then_what_happened_last_first() -> None:
    past: list[Command] = [BEGIN, reply("Done", 2), reply("Done", 1), reply("Refused", 0)]
    assert decided(GROUP, *past) == ["SagaStepFailed", "Undo1"]
    assert decided(GROUP, *past, reply("Undone", 1)) == ["SagaStepCompensated", "Undo2"]
    assert decided(GROUP, BEGIN, reply("Done", 0), reply("Refused", 1)) == ["SagaStepFailed", "Undo2"]
    under_way = (BEGIN, reply("Done", 0), reply("Refused", 1), reply("Undone", 2))
    assert decided(GROUP, *under_way) == ["SagaStepCompensated", "Undo0"]


def test_each_of_a_group_has_its_own_deadline() -> None:
    sagas = of(Parallel(step(0, deadline=5 * SECOND), step(1, deadline=3 * SECOND, retries=1)))
    instance = after(sagas, BEGIN)
    assert [each.deadline for each in instance.awaited] == [NOW + 5 * SECOND, NOW + 3 * SECOND]
    assert instance.deadline == NOW + 3 * SECOND
    assert decided(sagas, BEGIN, wake(3)) == ["SagaCommandRetried", "Send1"]
    assert after(sagas, BEGIN, wake(3)).deadline == NOW + 5 * SECOND
    assert decided(sagas, BEGIN, wake(3), wake(5)) == ["SagaStepFailed", "Undo1"]


def test_steps_that_have_answers_of_one_type_pick_their_own() -> None:
    def leg(number: int, name: str) -> Step:
        return Step(
            name, send=makes("Send", number), done=Int64Value, matches=lambda event: event.value == number
        )

    def booked(number: int) -> Reply:
        return Reply(Int64Value(value=number), NOW)

    sagas = of(Parallel(leg(0, "out"), leg(1, "back")), leg(2, "on"))
    assert after(sagas, BEGIN, booked(1)).steps[:2] == (StepState.RUNNING, StepState.DONE)
    assert decided(sagas, BEGIN, booked(1), booked(1)) == []
    past = (BEGIN, booked(1), booked(0))
    assert decided(sagas, *past) == ["SagaStepSucceeded", "Send2"]
    assert decided(sagas, *past, booked(0)) == [], "a repeat answers no later step"
    assert decided(sagas, *past, booked(2)) == ["SagaCompleted"]


# --- conditions, signals, times ---


@pytest.mark.parametrize("needed", [True, False])
def test_a_condition_is_asked_once_and_its_answer_is_in_the_log(needed: bool) -> None:
    asked = []

    def when(context: Any) -> bool:
        asked.append(context.attempt)
        return needed

    sagas = of(step(0), step(1, when=when), step(2))
    events = sagas.decide(after(sagas, BEGIN), reply("Done", 0))
    assert names(events) == ["SagaStepSucceeded", "Send1" if needed else "Send2"]
    instance = sagas.fold(events, after(sagas, BEGIN))
    assert asked == [1], "the fold asks nobody"
    assert instance.steps[1] is (StepState.RUNNING if needed else StepState.LEFT_OUT)


def test_what_is_left_out_at_the_end_or_throughout_is_no_obstacle() -> None:
    never: dict[str, Any] = {"when": lambda _context: False}
    assert decided(of(step(0), step(1, **never)), BEGIN, reply("Done", 0)) == [
        "SagaStepSucceeded",
        "SagaCompleted",
    ]
    sagas = of(step(0, **never), Parallel(step(1, **never), step(2, **never)))
    assert decided(sagas, BEGIN) == ["SagaStarted", "SagaCompleted"]


def test_an_answer_of_a_person_that_comes_early_waits_for_its_step() -> None:
    signal = replace(step(1, deadline=timedelta(days=3)), send=None)
    sagas = of(step(0), signal, step(2))
    early = (BEGIN, reply("Done", 1))
    assert decided(sagas, *early) == ["SagaAnswerKept"]
    assert decided(sagas, *early, reply("Refused", 1)) == []  # the first counts
    assert decided(sagas, *early, reply("Done", 0)) == ["SagaStepSucceeded", "SagaStepSucceeded", "Send2"]
    refused = (BEGIN, reply("Refused", 1), reply("Done", 0))
    assert decided(sagas, *refused) == ["SagaStepSucceeded", "SagaStepFailed", "Undo0"]
    assert decided(sagas, *early, reply("Refused", 0)) == ["SagaStepFailed", "SagaCompensated"]
    last = of(step(0), signal)
    assert decided(last, *early, reply("Done", 0)) == ["SagaStepSucceeded", "SagaCompleted"]
    needless = of(step(0), replace(signal, when=lambda _context: False), step(2))
    assert decided(needless, BEGIN, reply("Refused", 1), reply("Done", 0)) == ["SagaStepSucceeded", "Send2"]
    assert decided(sagas, BEGIN, reply("Done", 2)) == []  # nobody has been asked for it


def test_a_step_without_a_command_waits_for_a_person() -> None:
    signal = replace(step(1, deadline=timedelta(days=3)), send=None)
    sagas = of(step(0), signal, step(2))
    assert decided(sagas, BEGIN, reply("Done", 0)) == ["SagaStepSucceeded"]
    waits = (BEGIN, reply("Done", 0))
    assert decided(sagas, *waits, reply("Done", 1)) == ["SagaStepSucceeded", "Send2"]
    assert decided(sagas, *waits, reply("Refused", 1)) == ["SagaStepFailed", "Undo0"]
    assert decided(sagas, *waits, Wake(NOW + timedelta(days=3)))[0] == "SagaStepFailed"
    assert decided(sagas, *waits, Skip("she is away", NOW)) == ["SagaStepSkipped", "Send2"]
    with pytest.raises(NothingToSend, match="step 1"):
        decided(sagas, *waits, Retry("x", NOW))


def test_a_step_that_lasts_is_done_when_its_time_has_passed() -> None:
    sagas = of(step(0), Step("pause", lasts=10 * SECOND), step(1))
    assert decided(sagas, BEGIN, reply("Done", 0)) == ["SagaStepSucceeded"]
    waits = (BEGIN, reply("Done", 0))
    assert after(sagas, *waits).deadline == NOW + 10 * SECOND
    assert decided(sagas, *waits, wake(9)) == []
    assert decided(sagas, *waits, wake(10)) == ["SagaStepSucceeded", "Send1"]
    assert decided(sagas, *waits, INTERRUPT) == ["SagaInterrupted", "Undo0"]
    assert decided(of(step(0), Step("pause", lasts=lambda _trigger: NOW)), *waits, wake(0)) == [
        "SagaCompleted"
    ]


# --- failures that pass, and failures that do not ---

BACKOFF = Backoff(first=SECOND, most=4 * SECOND, attention_after=2)


@pytest.mark.parametrize(
    ("transient", "failure"),
    [(kind("Busy", 1), message("Busy", 1)), (lambda _refusal: True, message("Refused", 1))],
    ids=["an event of its own", "a function of the refusal"],
)
def test_a_transient_failure_is_tried_again_later_and_counts_in_the_end(
    transient: Any, failure: Message
) -> None:
    sagas = of(step(0), step(1, transient=transient, retries=2, backoff=BACKOFF))
    busy = Reply(failure, NOW)
    waits: list[Command] = [BEGIN, reply("Done", 0)]
    for seconds in (1, 2):
        assert decided(sagas, *waits, busy) == ["SagaStepDeferred"]
        waits.append(busy)
        assert decided(sagas, *waits, busy) == [], "a repeat"
        assert after(sagas, *waits).deadline == NOW + seconds * SECOND
        assert decided(sagas, *waits, wake(seconds)) == ["SagaCommandRetried", "Send1"]
        waits.append(wake(seconds))
    assert decided(sagas, *waits, busy) == ["SagaStepFailed", "Undo1"], (
        "an earlier attempt may yet come through"
    )
    assert after(sagas, *waits, busy).reason == failure.DESCRIPTOR.name


def test_each_failure_counts_once_however_late_it_is_heard_again() -> None:
    sagas = of(step(0, transient=kind("Busy", 0), retries=5, backoff=BACKOFF))
    first, second = (Reply(message("Busy", 0), NOW, uuid4()) for _ in range(2))
    twice = (BEGIN, first, wake(1), second, wake(3))
    assert decided(sagas, *twice) == ["SagaCommandRetried", "Send0"]
    assert decided(sagas, *twice, first) == decided(sagas, *twice, second) == []
    assert decided(sagas, *twice, Reply(message("Busy", 0), NOW, uuid4())) == ["SagaStepDeferred"]


def test_of_answers_that_are_overdue_the_first_decides() -> None:
    late, early = step(0, deadline=3 * SECOND), step(1, deadline=2 * SECOND)
    failed, *_ = (sagas := of(Parallel(late, early))).decide(after(sagas, BEGIN), wake(5))
    assert isinstance(failed, pb.SagaStepFailed)
    assert failed.step == 1


def test_a_business_refusal_is_final_at_once() -> None:
    sagas = of(step(0), step(1, transient=kind("Busy", 1), retries=5))
    assert decided(sagas, BEGIN, reply("Done", 0), reply("Refused", 1)) == ["SagaStepFailed", "Undo0"]
    resting = (BEGIN, reply("Done", 0), reply("Busy", 1))
    assert decided(sagas, *resting, reply("Done", 1)) == ["SagaCompleted"], "an earlier attempt came through"
    assert decided(sagas, *resting, Retry("it is up", NOW)) == ["SagaRetryRequested", "Send1"]


def test_there_is_no_attempt_after_the_deadline_of_the_whole_step() -> None:
    due = NOW + SECOND
    sagas = of(step(0, transient=kind("Busy", 0), retries=5, deadline=lambda _trigger: due))
    assert after(sagas, BEGIN, reply("Busy", 0)).deadline == due
    assert decided(sagas, BEGIN, reply("Busy", 0), wake(1)) == ["SagaStepFailed", "Undo0"]


# --- the point of no return ---

FORWARD = of(
    step(0),
    step(1, undo=False, no_return=True, deadline=SECOND),
    step(2, undo=False, deadline=SECOND),
    closes=True,
    backoff=BACKOFF,
)
AT_IT: tuple[Command, ...] = (BEGIN, reply("Done", 0))
PAST_IT: tuple[Command, ...] = (*AT_IT, reply("Done", 1))


def test_a_refusal_of_the_point_of_no_return_undoes_and_a_silence_does_not() -> None:
    assert decided(FORWARD, *AT_IT, reply("Refused", 1)) == ["SagaStepFailed", "Undo0"]
    assert decided(FORWARD, *AT_IT, wake(1)) == ["SagaCommandRetried", "Send1"]
    assert decided(FORWARD, *AT_IT, wake(1), wake(2)) == ["SagaNeedsAttention", "SagaCommandRetried", "Send1"]


def test_behind_it_a_refusal_is_tried_again_without_limit() -> None:
    refused = reply("Refused", 2)
    waits: list[Command] = [*PAST_IT]
    for attempt in range(1, 7):
        expected = ["SagaStepDeferred"] if attempt != 2 else ["SagaNeedsAttention", "SagaStepDeferred"]
        assert decided(FORWARD, *waits, refused) == expected
        waits.append(refused)
        due = after(FORWARD, *waits).deadline
        assert due
        assert decided(FORWARD, *waits, Wake(due)) == ["SagaCommandRetried", "Send2"]
        waits.append(Wake(due))
    assert after(FORWARD, *waits).needs_attention
    ended = after(FORWARD, *waits, reply("Done", 2))
    assert (ended.status, ended.needs_attention) == (SagaStatus.COMPLETED, False)


def test_behind_it_interruptions_and_aborts_come_too_late() -> None:
    assert decided(FORWARD, *PAST_IT, INTERRUPT) == []
    assert decided(FORWARD, *PAST_IT, reply("Done", 2), INTERRUPT) == []
    for past in (AT_IT, PAST_IT):
        with pytest.raises(PastNoReturn, match="step 1"):
            decided(FORWARD, *past, Abort("x", NOW))


def test_an_interruption_while_it_is_awaited_is_decided_by_its_answer() -> None:
    assert decided(FORWARD, *AT_IT, INTERRUPT) == ["SagaInterrupted"]
    back = (*AT_IT, INTERRUPT, reply("Refused", 1))
    assert decided(FORWARD, *back) == ["SagaStepFailed", "Undo0"]
    assert decided(FORWARD, *back, reply("Undone", 0)) == ["SagaStepCompensated", "SagaCompensated"]
    assert after(FORWARD, *back).reason == "interrupted"
    forward = after(FORWARD, *AT_IT, INTERRUPT, reply("Done", 1))
    assert (forward.status, forward.interrupted, forward.reason) == (SagaStatus.RUNNING, False, "")


# --- orders ---


def test_an_order_names_the_step_where_several_are_awaited() -> None:
    with pytest.raises(SeveralAwaited, match='"step 0", "step 1", "step 2"; say which'):
        decided(GROUP, BEGIN, Skip("x", NOW))
    assert decided(GROUP, BEGIN, Skip("x", NOW, "step 1")) == ["SagaStepSkipped"]
    assert decided(GROUP, BEGIN, Retry("x", NOW, "step 1")) == ["SagaRetryRequested", "Send1"]
    assert decided(GROUP, BEGIN, Retry("x", NOW)) == [
        name for number in range(3) for name in ("SagaRetryRequested", f"Send{number}")
    ]
    with pytest.raises(StepNotAwaited, match='"step 3"'):
        decided(GROUP, BEGIN, Skip("x", NOW, "step 3"))


# --- what is wrong in a table ---


def wrong(what: str, *steps: Step) -> Any:
    return pytest.param(steps, what, id=what)


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        wrong("it has no steps"),
        wrong('two steps are called "step 0"', step(0), step(0)),
        wrong("needs done=", Step("x", send=makes("Send", 0))),
        wrong("needs undo= and undone= together", replace(step(0), undone=None)),
        wrong("only lasts for a time", replace(step(0), lasts=SECOND)),
        wrong("nothing can be sent again", replace(step(0, retries=1), send=None)),
        wrong("say how often its command is sent again", step(0, transient=kind("Busy", 0))),
        wrong("needs refused=", step(0, refused=False, transient=lambda _: True, retries=1)),
        wrong("is a Parallel inside a Parallel", Parallel(step(0), Parallel(step(1), step(2)))),
        wrong("Done0 answers both", Parallel(step(0), replace(step(1), done=kind("Done", 0)))),
        wrong(
            "answers both; say by matches=",
            Parallel(step(0, matches=lambda _: True), replace(step(1), done=kind("Done", 0))),
        ),
        wrong(
            "several points of no return",
            step(0, undo=False, no_return=True),
            step(1, undo=False, no_return=True),
        ),
        wrong("let it stand alone", Parallel(step(0, undo=False, no_return=True), step(1))),
        wrong("is never undone", step(0, undo=False, no_return=True), step(1)),
    ],
)
def test_what_is_wrong_in_a_table_is_said(steps: Sequence[Step], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        table(steps)


def test_tables_that_are_no_versions_of_one_saga_are_refused() -> None:
    one = table([step(0)])
    with pytest.raises(ConfigurationError, match="two tables have this version"):
        saga_aggregate(one, one)
    with pytest.raises(ConfigurationError, match="make one saga_aggregate of each"):
        saga_aggregate(one, replace(one, name="other", version=2))


# --- what operators see ---


def test_what_is_awaited_is_told_with_who_owes_it_and_since_when() -> None:
    sources = {"rooms": [kind("Done", 0)], "payments": [kind("Done", 1), kind("Undone", 0)]}
    saga = table(
        [
            Parallel(step(0, deadline=SECOND, retries=1), replace(step(1), send=None)),
            Step("pause", lasts=SECOND),
        ],
        sources=sources,
        closes=True,
    )
    sagas = saga_aggregate(saga)
    begun = after(sagas, BEGIN)
    first, second = awaited_answers(saga, begun)
    assert (first.kind, first.logs, first.attempts) == (AwaitedKind.REPLY, ["rooms"], 1)
    assert (first.next_retry, first.deadline) == (NOW + SECOND, None)
    assert (second.name, second.kind, second.logs, second.attempts) == (
        "step 1",
        AwaitedKind.SIGNAL,
        ["payments"],
        0,
    )
    assert remaining_steps(saga, begun) == ["step 0", "step 1", "pause"]
    pausing = after(sagas, BEGIN, reply("Done", 0), reply("Done", 1))
    (pause,) = awaited_answers(saga, pausing)
    assert (pause.kind, pause.deadline, pause.next_retry) == (AwaitedKind.TIME, NOW + SECOND, None)
    undoing = after(sagas, BEGIN, reply("Done", 0), Skip("x", NOW, "step 1"), Abort("x", NOW))
    (undo,) = awaited_answers(saga, undoing)
    assert (undo.kind, undo.answers[0]) == (AwaitedKind.UNDOING, kind("Undone", 1))
    assert remaining_steps(saga, undoing) == ["undo: step 1", "undo: step 0", "close"]
