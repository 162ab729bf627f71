"""The tables of sagas that a log's instances run on: kept with the log, and compared at start.

An edited table under its old version would have instances in flight ignore replies, skip steps or end early; a version
that was let go too early would leave them unreadable. Both are refused before anything is handled. A version above all
that the program has is one of a newer program, which was rolled back or runs beside it: its instances wait for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from twinlog.log.declarations import Garbled, key
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import ConfigurationError
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_fingerprint import (
    Shape,
    differences,
    fingerprint_of,
    is_shape,
    shape_of,
    with_types_of_today,
)
from twinlog.model.schema import Schema

_NAMED = 5
"""How many instances an error names."""


class SagaTableChanged(ConfigurationError):
    """Saga {saga}, version {version}, has changed: {what}. Make it version {next}, and give the old one beside it.

    Instances may have begun with the old one, and would ignore replies, skip steps or end early.
    """

    reason = "SAGA_TABLE_CHANGED"


class SagaVersionNeeded(ConfigurationError):
    """Saga {saga}, version {version}, is gone; {count} instances are not over: {instances}. Give it until they are.

    The table is in the history of the source.
    """

    reason = "SAGA_VERSION_NEEDED"


class KeptTable(NamedTuple):
    """A version's table, as it was first used."""

    shape: Shape
    fingerprint: str
    retired: bool = False
    """Whether it was found that no instance needs it any more."""


class LiveInstance(NamedTuple):
    """An instance that is not over."""

    id: str
    version: int


class SagaTables(Protocol):
    """Where tables are kept."""

    async def keep(self, saga: str, tables: Mapping[int, KeptTable]) -> Mapping[int, KeptTable]:
        """Keeps the tables of versions that have none yet, and gives all that are kept, by version.

        One that is given is not retired any more.
        """

    async def retire(self, saga: str, versions: Sequence[int]) -> None:
        """Notes that no instance needs these versions."""

    async def live_instances(self, aggregate: str) -> Sequence[LiveInstance]:
        """The instances that are not over, of a saga by the name of its aggregate."""


Keep = Callable[[], Awaitable[None]]
"""Keeps what was compared."""


async def check_saga_tables(tables: SagaTables, aggregates: Sequence[AnyAggregate], schema: Schema) -> Keep:
    """Compares the tables of sagas with those that are kept; what it gives keeps them. ``schema`` knows renamed
    message types.

    Raises SagaTableChanged and SagaVersionNeeded, each a ConfigurationError, as what it gives does where another
    replica was first.
    """
    checked = [await _check(tables, one, schema) for one in aggregates if isinstance(one, SagaAggregate)]

    async def keep() -> None:
        for each in checked:
            await each()

    return keep


async def _check(tables: SagaTables, sagas: SagaAggregate, schema: Schema) -> Keep:
    name = sagas.current.name
    given = {
        version: KeptTable(shape_of(saga), fingerprint_of(saga)) for version, saga in sagas.versions.items()
    }
    before = await tables.keep(name, {})
    _compare(name, before, given, schema)

    def is_gone(version: int) -> bool:
        return version not in given and version < max(given)

    # Before any is kept, instances of an earlier release may need a version that is gone.
    gone = [version for version, kept in before.items() if is_gone(version) and not kept.retired]
    if gone or not before:
        needed = [live for live in await tables.live_instances(sagas.name) if is_gone(live.version)]
        if needed:
            raise _needed(name, needed)

    async def keep() -> None:
        if gone:
            await tables.retire(name, gone)
        _compare(name, await tables.keep(name, given), given, schema)  # another replica may have been first

    return keep


def _compare(
    saga: str, kept: Mapping[int, KeptTable], given: Mapping[int, KeptTable], schema: Schema
) -> None:
    for version in sorted(given.keys() & kept.keys()):
        if kept[version].fingerprint == given[version].fingerprint:
            continue
        if not is_shape(kept[version].shape):
            raise Garbled(table="saga_tables", where=key(saga=saga, version=version))
        now = given[version].shape
        if what := "; ".join(differences(with_types_of_today(kept[version].shape, now, schema), now)):
            raise SagaTableChanged(saga=saga, version=version, what=what, next=max(*given, *kept) + 1)


def _needed(saga: str, instances: Sequence[LiveInstance]) -> SagaVersionNeeded:
    version = min(live.version for live in instances)
    ids = [live.id for live in instances if live.version == version]
    named = ", ".join(ids[:_NAMED]) + (" …" if len(ids) > _NAMED else "")
    return SagaVersionNeeded(saga=saga, version=version, count=len(ids), instances=named)
