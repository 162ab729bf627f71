"""What holds of any domain: its sagas end all done or all undone, and nothing stays past its deadline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from twinlog.audit.domain import Domain, Round
from twinlog.audit.history import Change
from twinlog.audit.report import Findings
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.event import StreamId
from twinlog.model.saga import SagaInstance, SagaStatus, StepState
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_shown import AwaitedAnswer, AwaitedKind, awaited_answers
from twinlog.v1.saga_pb2 import SagaCompensated, SagaCompleted

TERMINAL = "terminal saga is all done or all undone"
DEADLINES = "nothing past its deadline"

_OPEN = (StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING)
_CLOSED = (StepState.DONE, StepState.SKIPPED, StepState.LEFT_OUT)
"""An operator who skips a step answers for it."""
_ENDED = (SagaStatus.NONE, SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
_PATIENT = (AwaitedKind.SIGNAL, AwaitedKind.TIME)
"""What may take its time: a person, and time itself."""


class Sagas(Domain):
    """Knows the sagas of a system, and when its aggregates are due."""

    def __init__(
        self, aggregates: Iterable[AnyAggregate], grace: timedelta, owners: Mapping[str, str] | None = None
    ) -> None:
        """``aggregates``: all. ``grace``: how long anything may be overdue before that is a violation. ``owners``: the
        service that has an aggregate, by the aggregate's name.
        """
        self._sagas = {each.name: each for each in aggregates if isinstance(each, SagaAggregate)}
        self._grace = grace
        self._owners = owners or {}
        self._counts: Counter[str] = Counter()
        self._running: dict[StreamId, SagaInstance] = {}

    def take(self, change: Change, findings: Findings) -> str:
        sagas = self._sagas.get(change.event.stream.type)
        if sagas is None or change.after is None:
            return str(change.event.stream)
        self._count(change)
        if isinstance(change.message, SagaCompleted | SagaCompensated):
            self._judge_end(sagas, change, findings)
        return str(change.event.stream)

    def judge(self, round: Round, findings: Findings) -> None:
        round.checked["sagas"] += len(self._running)
        if not round.at_rest:
            self._judge_deadlines(round, findings)
        if round.busy:
            return
        for stream, instance in self._running.items():
            for answer in self._expected(stream, instance):
                if _is_owed(answer) and not _ends(answer) and stream not in round.unreadable:
                    findings.note(
                        f"saga {stream.id} waits for {answer.name} without a deadline, and no event is on its way"
                    )

    def on_their_way(self, now: datetime) -> Iterator[str]:
        running = sum(
            any(_is_owed(answer) and _ends(answer) for answer in self._expected(stream, instance))
            for stream, instance in self._running.items()
            if not instance.needs_attention
        )
        if running:
            yield f"{running} running sagas"

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        counts = {status: count for status, count in self._counts.items() if count}
        return {"sagas": counts} if counts else {}

    def _count(self, change: Change) -> None:
        before, after, stream = change.before, change.after, change.event.stream
        if before.status is not SagaStatus.NONE:
            self._counts[before.status.value] -= 1
        self._counts[after.status.value] += 1
        if after.status in _ENDED:
            self._running.pop(stream, None)
        else:
            self._running[stream] = after

    def _judge_end(self, sagas: SagaAggregate, change: Change, findings: Findings) -> None:
        table, instance, id = sagas.versions.get(change.after.version), change.after, change.event.stream.id
        undone = instance.status is SagaStatus.COMPENSATED
        for step, state in zip(table.steps if table else (), instance.steps, strict=False):
            if state in _OPEN and step.undo if undone else state not in _CLOSED:
                findings.add(
                    TERMINAL,
                    f"saga {id} is {instance.status}, and its step '{step.name}' is {state}",
                    ids=[id],
                    events=[change.event.address],
                    remedy=f"append what settles step '{step.name}'; find what wrote {change.event.address}",
                )

    def _judge_deadlines(self, round: Round, findings: Findings) -> None:
        for stream, due in round.due.items():
            if due + self._grace < round.now:
                owner = self._owners.get(stream.type, "its service")
                findings.add(
                    DEADLINES,
                    f"{stream} was due at {due:%Y-%m-%d %H:%M:%S}, {round.now - due} ago",
                    ids=[str(stream)],
                    remedy=f"start {owner}, or restart it: its timers see to it; see also the timers' check",
                )

    def _expected(self, stream: StreamId, instance: SagaInstance) -> Sequence[AwaitedAnswer]:
        """What an instance waits for; nothing where its table is unknown."""
        table = self._sagas[stream.type].versions.get(instance.version)
        return awaited_answers(table, instance) if table else ()


def _is_owed(answer: AwaitedAnswer) -> bool:
    """Whether a participant is to answer a command."""
    return answer.kind not in _PATIENT


def _ends(answer: AwaitedAnswer) -> bool:
    """Whether something happens by itself, if the answer does not come."""
    return answer.next_retry is not None or answer.deadline is not None
