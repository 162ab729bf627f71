"""The ports through which the sagas of a process are listed and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from twinlog.log.view_store import ViewStore
from twinlog.model.saga_list import ChosenSagas, SagaRow
from twinlog.v1.saga_service_pb2 import SagaStatus

NEWEST = 2**63 - 1
"""A position beyond all."""


class SagaKey(NamedTuple):
    """Names one saga."""

    saga: str
    """The name of its table."""
    saga_id: str


class SelectedSagas(NamedTuple):
    """Sagas that were chosen."""

    keys: Sequence[SagaKey]
    """Up to the limit, the oldest first."""
    total: int
    """How many there are, beyond the limit too."""


class SagaCount(NamedTuple):
    """How many sagas of one table have one status."""

    saga: str
    """The name of their table."""
    status: SagaStatus.ValueType
    number: int
    oldest: datetime | None = None
    """When the oldest of them started; None: not known."""


@runtime_checkable
class SagaCensus(Protocol):
    """A list of sagas that also counts them."""

    async def census(self) -> Sequence[SagaCount]:
        """How many sagas are under way, by table and status; a pair that has none may be left out."""


class SagaList(Protocol):
    """Knows where every saga stands."""

    async def page(self, chosen: ChosenSagas, before: int, limit: int) -> Sequence[SagaRow]:
        """Up to ``limit`` sagas that started before a position, newest first."""

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        """Up to ``limit`` sagas, oldest first, and how many there are."""


@runtime_checkable
class SagasFromTheOldest(Protocol):
    """A list that can be read from its other end, too."""

    async def oldest(self, chosen: ChosenSagas, after: int, limit: int) -> Sequence[SagaRow]:
        """Up to ``limit`` sagas that started after a position, oldest first."""


class SagaListStore(SagaList, ViewStore, Protocol):
    """The list of sagas where a projection keeps it."""
