"""Dead letters: events that could not be handled, and what is to become of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any
from urllib.parse import quote

from twinlog.console import dead_letters
from twinlog.console.answers import Answer
from twinlog.console.dead_letters import Found, Group
from twinlog.console.page import Form, Outcome, Page, Query, refused
from twinlog.console.services import Services, by_console
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

TRENDS = {"hour": 3600, "day": 24 * 3600, "week": 7 * 24 * 3600}
_ACTION_SECONDS = 3600.0
"""As long as a slow replay may take; the page shows how far it is meanwhile."""
_SHOWN_FAILURES = 10


@dataclass(frozen=True)
class All:
    """The page with all of them, or those of a group or a consumer."""

    found: Found
    chosen: Group | None
    """The group that is looked at."""
    letters: Sequence[tuple[str, pb.DeadLetter]]
    more: str
    """The URL of the next page; empty where there is none."""
    first: str
    """The URL of the first page; empty on it."""
    trend: str
    trends: Sequence[str] = tuple(TRENDS)

    @staticmethod
    def link(letter: pb.DeadLetter) -> str:
        """The URL of the page of one."""
        return link(letter.consumer, letter.address)


@dataclass(frozen=True)
class One:
    service: str
    address: str
    """Of the service."""
    letter: pb.GetDeadLetterResponse
    behind: Sequence[tuple[str, pb.DeadLetter]]
    """Those of its key after it."""
    more_behind: bool
    link = staticmethod(lambda letter: link(letter.consumer, letter.address))

    @property
    def first_link(self) -> str:
        """The URL of the one that holds it up."""
        return link(self.letter.dead_letter.consumer, self.letter.dead_letter.behind)


@dataclass(frozen=True)
class Settled:
    """The page of an event that is no dead letter."""

    consumer: str
    address: str
    letter: None = None


def link(consumer: str, address: str) -> str:
    """The URL of the page of one event."""
    return f"/dead-letters/{quote(consumer, safe='')}/{address}"


async def load_all(services: Services, query: Query) -> All:
    """All, or those that the query names by consumer, error_type and key."""
    trend = query.get("trend") if query.get("trend") in TRENDS else "day"
    found = await dead_letters.found(services, TRENDS[trend])
    if len(found.silent) == len(services.names) and all(each.silent for each in found.silent):
        raise refused("No service here tells of dead letters.", *found.silent)
    consumer, error_type = query.get("consumer"), query.get("error_type")
    chosen = [group for group in found.groups if (group.consumer, group.error_type) == (consumer, error_type)]
    owner = found.owner(consumer)
    owners = ([owner] if owner else []) if consumer else list(dict.fromkeys(g.service for g in found.groups))
    page = dead_letters.tokens_in(query.get("page"))
    letters, tokens = await dead_letters.listed(
        services,
        {name: page.get(name, "") for name in owners if not page or name in page},
        pb.ListDeadLettersRequest(
            consumer=consumer, error_type=error_type, key=query.get("key"), page_size=dead_letters.PAGE
        ),
    )
    return All(
        found,
        chosen[0] if chosen else None,
        letters,
        query.url(page=dead_letters.page_of(tokens)) if tokens else "",
        query.url(page=None) if page else "",
        trend,
    )


async def load_one(services: Services, query: Query) -> One | Settled:
    """One event, with those behind it; or that it is no dead letter, as after a replay."""
    consumer, address = query.get("consumer"), f"{query.get('log')}/{query.get('position')}"
    owners = await _owners(services, consumer)
    answer = await dead_letters.one(
        services, owners, pb.GetDeadLetterRequest(consumer=consumer, address=address)
    )
    if answer.message is None:
        settled = answer.reason in ("NOT_PARKED", "INVALID_ARGUMENT", "")
        if not settled:
            raise refused(f"{answer.service} cannot say: {answer.problem}.", answer)
        return Settled(consumer, address)
    key = answer.message.dead_letter.key
    letters, tokens = await dead_letters.listed(
        services,
        {answer.service: ""},
        pb.ListDeadLettersRequest(consumer=consumer, key=key, page_size=dead_letters.PAGE),
    )
    here = next((at for at, (_, each) in enumerate(letters) if each.address == address), len(letters))
    return One(
        answer.service, services.addresses[answer.service], answer.message, letters[here + 1 :], bool(tokens)
    )


async def _owners(services: Services, consumer: str) -> list[str]:
    """The services to ask for a consumer: the one that has it, or all while that is unknown."""
    look = await services.look()
    known = [
        name
        for name, said in look.services.items()
        if any(each.consumer == consumer for each in said.consumers)
    ]
    return known or services.names


async def replay(services: Services, query: Query, form: Form) -> Outcome:
    """Replays what the form selects, or only counts it."""
    per_second = _rate(form.get("per_second"))
    if per_second is None:
        return Outcome(
            "How many a second? A number such as 20, or nothing for as fast as they are handled.", ok=False
        )
    dry_run = form.get("how") == "count"
    request = pb.ReplayDeadLettersRequest(selection=_selection(form), dry_run=dry_run, per_second=per_second)
    answers = await services.collect_all(
        by_console(DeadLetterServiceStub, "ReplayDeadLetters"),
        request,
        services=await _asked(services, form),
        seconds=_ACTION_SECONDS,
    )
    ends = [answer.message[-1] for answer in answers.values() if answer.message]
    selected, replayed, failed = (
        sum(getattr(end, name) for end in ends) for name in ("selected", "replayed", "failed")
    )
    problems = _problems(answers)
    if not ends:
        return _refused("replayed", problems)
    if dry_run:
        return _counted(selected, "would be replayed, those that wait behind included", problems)
    failures = [step for answer in answers.values() for step in answer.message or () if step.error_type]
    model = {
        "selected": selected,
        "replayed": replayed,
        "failed": failed,
        "left": selected - replayed - failed,
        "failures": failures[:_SHOWN_FAILURES],
        "problems": problems,
    }
    return Outcome(ok=not failed and not problems, template="dead_letters_replayed.html", model=model)


async def discard(services: Services, query: Query, form: Form) -> Outcome:
    """Gives up what the form selects, or only counts it."""
    dry_run, reason = form.get("how") == "count", form.get("reason")
    if not dry_run and not reason:
        return Outcome("Why? The reason is kept in the log, for whoever reads it later.", ok=False)
    request = pb.DiscardDeadLettersRequest(
        selection=_selection(form), reason=reason or "to count them", dry_run=dry_run
    )
    answers = await services.ask_all(
        by_console(DeadLetterServiceStub, "DiscardDeadLetters"),
        request,
        services=await _asked(services, form),
        seconds=_ACTION_SECONDS,
    )
    problems = _problems(answers)
    done = [answer.message for answer in answers.values() if answer.message]
    if not done:
        return _refused("given up", problems)
    if dry_run:
        return _counted(sum(each.selected for each in done), "would be given up", problems)
    count = sum(each.discarded for each in done)
    text = f"{_events(count)} given up: “{reason}”. What waited behind can be replayed now."
    return Outcome(" ".join([text, *problems]), ok=not problems)


async def _asked(services: Services, form: Form) -> list[str]:
    """The services whose dead letters a form is about."""
    consumer = form.get("consumer")
    if consumer:
        return await _owners(services, consumer)
    return services.names


def _selection(form: Form) -> pb.DeadLetterSelection:
    selection = pb.DeadLetterSelection(consumer=form.get("consumer"))
    for name in ("address", "error_type", "key"):
        if value := form.get(name):
            setattr(selection, name, value)
            return selection
    selection.all = True
    return selection


def _rate(text: str) -> float | None:
    try:
        rate = float(text or 0)
    except ValueError:
        return None
    return rate if 0 <= rate < inf else None


def _problems(answers: Mapping[str, Answer[Any]]) -> list[str]:
    return [f"{service}: {answer.problem}." for service, answer in answers.items() if not answer.ok]


def _refused(what: str, problems: Sequence[str]) -> Outcome:
    """Where nobody did anything."""
    return Outcome(" ".join([f"Nothing was {what}.", *problems]), ok=False)


def _counted(count: int, what: str, problems: Sequence[str]) -> Outcome:
    said = f"{_events(count)} {what}. Nothing was done yet."
    return Outcome(" ".join([said, *problems]), ok=not problems, only_said=True)


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


_ACTIONS = {"replay": replay, "discard": discard}
PAGES = [
    Page(
        "/dead-letters",
        "Dead letters",
        "dead_letters.html",
        load_all,
        navigation="Dead letters",
        key="d",
        icon="dead_letters",
        actions=_ACTIONS,
        # A replay tells how far it is only to those who ask.
        moves=lambda model: bool(model.found.replays),
    ),
    Page(
        "/dead-letters/{consumer}/{log}/{position}",
        "{log}/{position}",
        "dead_letter.html",
        load_one,
        actions=_ACTIONS,
    ),
]
