"""What services say of their dead letters, put together for a page."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.console.answers import Answer
from twinlog.console.services import Services
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

PAGE = 50
"""How many events a page has, of each service."""
_SHOWN_ERRORS = 3
_READ_AGAIN = {"UnknownEventType", "UndecodableEvent", "UpcasterFailed", "StreamUnreadable"}


@dataclass
class Group:
    """The dead letters of one consumer with one kind of error, whatever its words."""

    service: str
    consumer: str
    error_type: str
    count: int = 0
    behind: int = 0
    """How many others wait behind them."""
    errors: list[tuple[str, int]] = field(default_factory=list)
    """What the errors say, and how often; the most frequent first."""
    trend: list[int] = field(default_factory=list)
    oldest: Timestamp = field(default_factory=Timestamp)
    newest: Timestamp = field(default_factory=Timestamp)

    @property
    def id(self) -> str:
        return f"{self.consumer}-{self.error_type}"

    @property
    def shown_errors(self) -> Sequence[tuple[str, int]]:
        return self.errors[:_SHOWN_ERRORS]

    @property
    def other_errors(self) -> int:
        """How many different errors there are besides."""
        return max(0, len(self.errors) - _SHOWN_ERRORS)

    @property
    def bars(self) -> Sequence[float]:
        """The trend as shares of its highest part; a part that has any is at least to be seen."""
        most = max(self.trend, default=0)
        return [max(0.08, part / most) if part else 0.0 for part in self.trend]

    def add(self, group: pb.DeadLetterGroup) -> None:
        """Takes in those with one wording of the error."""
        self.count += group.count
        self.behind += group.behind
        error = group.error or "others, of more texts than are told"
        self.errors = sorted([*self.errors, (error, group.count)], key=lambda pair: -pair[1])
        self.trend = [a + b for a, b in zip(self.trend or [0] * len(group.trend), group.trend, strict=True)]
        if group.oldest_parked_at.seconds:
            oldest, newest = group.oldest_parked_at, group.newest_parked_at
            self.oldest = oldest if not self.oldest.seconds else min(self.oldest, oldest, key=_moment)
            self.newest = max(self.newest, newest, key=_moment)


@dataclass(frozen=True)
class Found:
    """The groups of all services, the largest first, and the replays under way."""

    groups: Sequence[Group]
    replays: Sequence[tuple[str, pb.DeadLetterReplay]]
    """With the service that does it."""
    silent: Sequence[Answer[Any]]

    @property
    def failed(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def behind(self) -> int:
        """How many wait behind those."""
        return sum(group.behind for group in self.groups)

    def owner(self, consumer: str) -> str:
        """The service of a consumer that has any; empty where none has."""
        return next((group.service for group in self.groups if group.consumer == consumer), "")


async def found(services: Services, trend_seconds: int) -> Found:
    request = pb.GroupDeadLettersRequest(trend_seconds=trend_seconds)
    answers = await services.ask_all(lambda c: DeadLetterServiceStub(c).GroupDeadLetters, request)
    groups: dict[tuple[str, str, str], Group] = {}
    replays: list[tuple[str, pb.DeadLetterReplay]] = []
    for service, answer in answers.items():
        if not answer.message:
            continue
        replays += [(service, each) for each in answer.message.replays]
        for each in answer.message.groups:
            key = service, each.consumer, each.error_type
            if each.error_type:  # the others wait behind these
                groups.setdefault(key, Group(*key)).add(each)
    largest = sorted(groups.values(), key=lambda group: (-group.count, group.consumer, group.error_type))
    return Found(largest, replays, [each for each in answers.values() if not each.ok])


async def listed(
    services: Services, pages: Mapping[str, str], request: pb.ListDeadLettersRequest
) -> tuple[list[tuple[str, pb.DeadLetter]], Mapping[str, str]]:
    """A page of each service, the newest last, and by service the token of the next page where there is one.

    ``pages``: by the service to ask, the token of the page; empty: the first one.
    """

    async def page(service: str, token: str) -> Answer[pb.ListDeadLettersResponse]:
        made = pb.ListDeadLettersRequest()
        made.CopyFrom(request)
        made.page_token = token
        return await services.ask(service, lambda c: DeadLetterServiceStub(c).ListDeadLetters, made)

    answers = await asyncio.gather(*map(page, pages.keys(), pages.values()))
    letters, tokens = [], {}
    for service, answer in zip(pages, answers, strict=True):
        if answer.message:
            letters += [(service, each) for each in answer.message.dead_letters]
            if answer.message.next_page_token:
                tokens[service] = answer.message.next_page_token
    return letters, tokens


def page_of(tokens: Mapping[str, str]) -> str:
    """The tokens of the next page of several services, as a URL has them."""
    return urlsafe_b64encode(json.dumps(tokens).encode()).decode()


def tokens_in(page: str) -> Mapping[str, str]:
    """The tokens by service; none where the text has none, or is nonsense."""
    try:
        tokens = json.loads(urlsafe_b64decode(page.encode())) if page else {}
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(token) for name, token in tokens.items()} if isinstance(tokens, dict) else {}


async def one(services: Services, owners: Sequence[str], request: pb.GetDeadLetterRequest) -> Answer[Any]:
    """One dead letter, of whichever service has it."""
    answers = await services.ask_all(
        lambda c: DeadLetterServiceStub(c).GetDeadLetter, request, services=owners
    )
    for answer in answers.values():
        if answer.ok:
            return answer
    parted = [each for each in answers.values() if each.reason not in ("NOT_PARKED", "INVALID_ARGUMENT")]
    return next(iter([*parted, *answers.values()]), Answer("", None))


def advice(error_type: str) -> str:
    """What such an error takes."""
    if not error_type:
        return "Nothing is wrong with this event: it keeps its place behind an earlier one of its key."
    if error_type in _READ_AGAIN:
        return (
            "This version of the service cannot read it. Deploy one that can: then it is replayed by itself, "
            "within about half a minute."
        )
    return (
        "The consumer's own code failed on it. Mend that and deploy, then replay: each event has its effects exactly "
        "once, those of a key in their order."
    )


def _moment(at: Timestamp) -> tuple[int, int]:
    return (at.seconds, at.nanos)
