"""What a saga waits for, who owes it, and what is wrong with them, as far as anybody here knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from twinlog.console.looks import Look, Said
from twinlog.console.saga_words import State
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import saga_service_pb2 as pb


@dataclass(frozen=True)
class Owed:
    """An answer that is awaited."""

    answer: pb.AwaitedAnswer
    state: State
    because: Sequence[str]
    """What is known of why it has not come, in sentences."""
    said: Said | None
    """What its owner said last; None: the owner is not known here."""


def owed(look: Look, answer: pb.AwaitedAnswer) -> Owed:
    """Puts together what the saga's service found out with what the owner itself said last."""
    said = look.services.get(answer.owner)
    if said and said.silent_since:
        return Owed(answer, State("silent", "does not answer"), [*_silent(look, said, answer)], said)
    answer = _completed(said, answer)
    because = [answer.problem] if answer.problem else []
    match answer.progress:
        case pb.COMMAND_PROGRESS_DEAD_LETTER:
            return Owed(answer, State("bad", "set aside as a dead letter"), because, said)
        case pb.COMMAND_PROGRESS_QUEUED:
            events = _events(answer.lag) if answer.lag_known else "some events"
            because.append(f"{answer.consumer} is {events} behind, this command among them.")
            return Owed(answer, State("bad" if answer.problem else "warn", "behind"), because, said)
        case pb.COMMAND_PROGRESS_HANDLED:
            because.append(
                f"{answer.owner} has handled the command; its answer is on its way, or never comes."
            )
            return Owed(answer, State("run", "handled"), because, said)
        case pb.COMMAND_PROGRESS_RECORDED:
            because.append("The command is in the log, and not yet in the stream that its participant reads.")
            return Owed(answer, State("warn", "not sent yet"), because, said)
    if answer.unknown_because:
        return Owed(answer, State("warn", "not known"), [answer.unknown_because], said)
    return Owed(answer, State("run", _waits_for(answer)), because, said)


def _completed(said: Said | None, answer: pb.AwaitedAnswer) -> pb.AwaitedAnswer:
    """What the saga's service could not find out, such as without TWINLOG_SERVICES, from what the owner said here."""
    consumer = _consumer(said, answer)
    if answer.progress or not answer.address or consumer is None:
        return answer
    told = pb.AwaitedAnswer()
    told.CopyFrom(answer)
    told.lag, told.lag_known, told.dead_letters = consumer.lag, consumer.lag_known, consumer.dead_letters
    told.problem = answer.problem or consumer.problem
    position = int(answer.address.rpartition("/")[2])
    handled = consumer.position >= position
    told.progress = pb.COMMAND_PROGRESS_HANDLED if handled else pb.COMMAND_PROGRESS_QUEUED
    return told


def _consumer(said: Said | None, answer: pb.AwaitedAnswer) -> inspection.ConsumerDescription | None:
    consumers = said.consumers if said else ()
    return next((each for each in consumers if each.consumer == answer.consumer), None)


def _silent(look: Look, said: Said, answer: pb.AwaitedAnswer) -> Iterator[str]:
    yield f"{said.service} is paused, hangs or is gone: {said.problem}."
    if consumer := _consumer(said, answer):
        head = look.head(consumer.log) or 0
        behind = f", so up to {_events(head - consumer.position)} behind" if head > consumer.position else ""
        yield f"When it last answered, {consumer.consumer} stood at {consumer.log}/{consumer.position}{behind}."


def _waits_for(answer: pb.AwaitedAnswer) -> str:
    match answer.kind:
        case pb.AWAITED_KIND_SIGNAL:
            return "waits for a person"
        case pb.AWAITED_KIND_TIME:
            return "waits for a time"
    return "awaited"


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}".replace(",", "\u202f")
