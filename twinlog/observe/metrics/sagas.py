"""The sagas of a process: how many have not ended, by status, and since when the oldest runs; and how many have ended.

How many start, compensate and need attention is in ``twinlog_log_events_total``, by type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from twinlog.log.saga_list import SagaCensus, SagaCount, SagaList
from twinlog.model.clock import Clock
from twinlog.model.saga_list import NOT_ENDED, ChosenSagas
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.v1 import saga_pb2
from twinlog.v1.saga_service_pb2 import SagaStatus

SAGAS = Metric(
    "twinlog_sagas",
    "gauge",
    "Sagas that have not ended, by status: RUNNING, COMPENSATING or NEEDS_ATTENTION.",
    ("saga", "status"),
)
OLDEST = Metric(
    "twinlog_saga_oldest_seconds",
    "gauge",
    "Since when the oldest saga of that status has been running, from its start; 0: there is none.",
    ("saga", "status"),
)
ENDED = Metric(
    "twinlog_sagas_ended_total",
    "counter",
    "Sagas that this process has ended, by status: COMPLETED or COMPENSATED. Ended ones of the past are not counted: "
    "there may be millions.",
    ("saga", "status"),
)
_ENDS = {
    saga_pb2.SagaCompleted.DESCRIPTOR.full_name: "COMPLETED",
    saga_pb2.SagaCompensated.DESCRIPTOR.full_name: "COMPENSATED",
}
_PREFIX = "SAGA_STATUS_"
EVENTS = [
    message.full_name
    for name, message in saga_pb2.DESCRIPTOR.message_types_by_name.items()
    if name != "SagaAwaited"  # a part of others
]
"""The types of events of any saga."""


@dataclass(frozen=True)
class Sagas:
    """Looks at the list of sagas."""

    name = "sagas"

    listed: Callable[[], SagaList | None]
    """Where sagas are listed, once that is known."""
    names: Sequence[str]
    """Those of the process's tables."""
    clock: Clock
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How many were appended, by aggregate and type."""

    async def samples(self) -> Sequence[Sample]:
        ended = [
            Sample(ENDED, self.events.get((f"{saga}_saga", type), 0), (saga, status))
            for saga in self.names
            for type, status in _ENDS.items()
        ]
        sagas = self.listed()
        return ended if sagas is None else [*ended, *await self._not_ended(sagas)]

    async def _not_ended(self, sagas: SagaList) -> Sequence[Sample]:
        now = self.clock.now()
        counts = {(each.saga, each.status): each for each in await self._counted(sagas, now)}
        samples: list[Sample] = []
        for saga in sorted({*self.names, *(saga for saga, _ in counts)}):
            for status in sorted(NOT_ENDED):
                found = counts.get((saga, status))
                of = (saga, SagaStatus.Name(status).removeprefix(_PREFIX))
                age = (now - found.oldest).total_seconds() if found and found.oldest else 0.0
                samples += [
                    Sample(SAGAS, found.number if found else 0, of),
                    Sample(OLDEST, max(0.0, age), of),
                ]
        return samples

    async def _counted(self, sagas: SagaList, now: datetime) -> Sequence[SagaCount]:
        if isinstance(sagas, SagaCensus):
            return await sagas.census()
        return [  # a list of somebody's own, which tells no more
            SagaCount(
                saga, status, (await sagas.select(ChosenSagas(frozenset({status}), now, saga), 1)).total
            )
            for saga in self.names
            for status in NOT_ENDED
        ]
