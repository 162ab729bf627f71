"""Sagas: how many stand where, those under way from the oldest on, and what may be done with many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration

from twinlog.console import saga_orders
from twinlog.console.looks import Look
from twinlog.console.page import Gone, Page, Query, missing
from twinlog.console.saga_words import BY_WORD, SAGAS, State
from twinlog.console.services import Services
from twinlog.v1 import saga_service_pb2 as pb
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub

_PAGE_SIZE, _LATELY = 50, 10
_ENDED = (pb.SAGA_STATUS_COMPLETED, pb.SAGA_STATUS_COMPENSATED)
ALL = "all"
AGES = {10: "10 s", 60: "1 min", 300: "5 min", 3_600: "1 h", 86_400: "1 d", 604_800: "7 d"}


@dataclass(frozen=True)
class Sagas:
    service: str = ""
    """The service whose sagas are shown; empty: none is known to have any."""
    services: Sequence[str] = ()
    names: Sequence[str] = ()
    """Of the tables of its sagas."""
    counts: Sequence[tuple[State, int]] = ()
    """How many sagas stand where."""
    open: int | None = None
    """How many have not ended, where that is known."""
    sagas: Sequence[pb.Saga] = ()
    lately: Sequence[pb.Saga] = ()
    """Those that ended last, where only those under way are listed, and all of these."""
    state: str = ""
    """The state that is listed; empty: those under way."""
    oldest_first: bool = True
    next_page: str = ""
    problem: str = ""
    filtered: bool = False
    ages: Mapping[int, str] = field(default_factory=lambda: AGES)

    @property
    def states(self) -> Mapping[str, str]:
        """What may be listed, by its word in the URL."""
        return {
            "": "under way",
            **{state.in_url: state.word for state in SAGAS.values()},
            ALL: "all",
        }

    @property
    def orders(self) -> Sequence[saga_orders.Order]:
        """What may be done with all that the filter finds; nothing with those that have ended."""
        ended = self.state == ALL or BY_WORD.get(self.state) in _ENDED
        return [] if ended else [*saga_orders.ORDERS.values()]


async def load(services: Services, query: Query) -> Sagas:
    """The sagas of one service. Raises Gone, Unanswered."""
    look = await services.look()
    owners = owners_of_sagas(look)
    if not owners:
        if any(said.described is None for said in look.services.values()):
            raise missing(look, "No sagas are known yet.")
        return Sagas()
    service = _service(look, owners, query)
    described = look.services[service].described
    request = _request(query)
    counted, listed, ended = await asyncio.gather(
        services.ask(
            service,
            lambda c: SagaServiceStub(c).CountSagas,
            pb.CountSagasRequest(filter=_filter(query, status=False)),
        ),
        services.ask(service, _list, request),
        _ended(services, service, query),
    )
    counts = {each.status: each.count for each in counted.message.counts} if counted.message else {}
    return Sagas(
        service=service,
        services=owners,
        names=[*dict.fromkeys(table.saga for table in described.saga_tables)] if described else [],
        counts=[(state, counts.get(status, 0)) for status, state in SAGAS.items()] if counts else [],
        open=sum(count for status, count in counts.items() if status not in _ENDED) if counts else None,
        sagas=listed.message.sagas if listed.message else [],
        lately=ended,
        state=query.get("state"),
        oldest_first=request.oldest_first,
        next_page=listed.message.next_page_token if listed.message else "",
        problem=f"{service}: {listed.problem}" if listed.message is None else "",
        filtered=any(query.get(name) for name in ("saga", "age", "subject")),
    )


def owners_of_sagas(look: Look) -> list[str]:
    return [said.service for said in look.services.values() if said.described and said.described.sagas]


async def _ended(services: Services, service: str, query: Query) -> Sequence[pb.Saga]:
    if query.get("state") or query.get("page"):
        return []
    answers = await asyncio.gather(
        *(
            services.ask(
                service,
                _list,
                pb.ListSagasRequest(filter=_filter(query, status=False, of=status), page_size=_LATELY),
            )
            for status in _ENDED
        )
    )
    found = [saga for answer in answers if answer.message for saga in answer.message.sagas]
    return sorted(found, key=lambda saga: -saga.updated_at.ToNanoseconds())[:_LATELY]


def _service(look: Look, owners: Sequence[str], query: Query) -> str:
    """The service that the URL names, or else the first; never another in its place. Raises Gone, Unanswered."""
    asked = query.get("service", owners[0])
    if asked in owners:
        return asked
    what = f"{asked:.40} has no sagas here. There are some in {', '.join(owners)}."
    raise missing(look, what) if asked in look.services else Gone(what)


def _status(query: Query) -> int:
    """The status that the URL names; 0: several. Raises Gone, lest all sagas are taken for those of no state."""
    state = query.get("state")
    if state in ("", ALL):
        return 0
    if state not in BY_WORD:
        raise Gone(f"There is no state {state:.40}; there is {', '.join((*BY_WORD, ALL))}.")
    return BY_WORD[state]


def _request(query: Query) -> pb.ListSagasRequest:
    state = query.get("state")
    ended = state == ALL or _status(query) in _ENDED
    return pb.ListSagasRequest(
        filter=_filter(query),
        page_size=_PAGE_SIZE,
        page_token=query.get("page"),
        oldest_first=query.get("order", "newest" if ended else "oldest") == "oldest",
        not_ended=not state,
    )


def _filter(query: Query, *, status: bool = True, of: int = 0) -> pb.SagaFilter:
    made = pb.SagaFilter(
        saga=query.get("saga"),
        status=pb.SagaStatus.ValueType(of or (_status(query) if status else 0)),
        subject=query.get("subject"),
    )
    if age := query.number("age"):
        made.older_than.CopyFrom(Duration(seconds=age))
    return made


async def _all(services: Services, query: Query) -> tuple[str, pb.SagaSelection]:
    """All sagas that the page's filter finds, not only those of one page."""
    look = await services.look()
    owners = owners_of_sagas(look)
    service = _service(look, owners, query) if owners else ""
    return service, pb.SagaSelection(filter=_filter(query))


def _list(channel: Any) -> Any:
    return SagaServiceStub(channel).ListSagas


PAGES = [
    Page(
        "/sagas",
        "Sagas",
        "sagas.html",
        load,
        navigation="Sagas",
        key="s",
        icon="sagas",
        actions=saga_orders.actions(_all),
    )
]
