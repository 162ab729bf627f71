"""A service with a log of stays and a view of them; as a process: ``python -m tests.rebuild.program``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from twinlog import (
    Address,
    Aggregate,
    PostgresViews,
    Recorded,
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    View,
    load,
    open_service,
    run,
)
from twinlog.consume import filling
from twinlog.rpc import ReadModel

CHUNK = 1_000
"""Half of what it is, for logs of half the length."""
PACKAGE = "tests.rebuild.sql"
POISON = "poison"
"""A guest whom version 2 cannot handle."""


class StaysSettings(Settings):
    """The settings of the service."""

    stays_address: Address = "127.0.0.1:0"
    """Where it serves."""


STAY: Aggregate[str, str] = Aggregate(
    "stay",
    "",
    decide=lambda _guest, guest: [StringValue(value=guest)],
    evolve=lambda _guest, event: event.value if isinstance(event, StringValue) else "",
    partition_key=lambda guest: guest.split()[0],
)
SPEC = ServiceSpec(
    name="stays_svc",
    log="stays",
    database="stays",
    domain="tests",
    settings=StaysSettings,
    address="stays_address",
    aggregates=(STAY,),
    migrations=(PACKAGE,),
)


class Stay(NamedTuple):
    """A stay, as version 1 has it."""

    stay_id: str
    guest: str
    changes: int


class LoudStay(NamedTuple):
    """As version 2 has it."""

    stay_id: str
    guest: str
    changes: int
    loud: str


def changed(row: Stay | None, event: Recorded, message: StringValue) -> Stay:
    return Stay(event.stream.id, message.value, row.changes + 1 if row else 1)


def changed_loudly(row: LoudStay | None, event: Recorded, message: StringValue) -> LoudStay:
    if message.value == POISON:
        raise ValueError("not this one")
    return LoudStay(event.stream.id, message.value, row.changes + 1 if row else 1, message.value.upper())


STAYS: View[Stay] = View("stays", lambda event, _message: event.stream.id, rules={StringValue: changed})
STAYS_2: View[LoudStay] = View(
    "stays", lambda event, _message: event.stream.id, rules={StringValue: changed_loudly}, version=2
)
ROWS = {"stays": Stay, "stays_v2": LoudStay}


class Running(NamedTuple):
    """The service and its read side."""

    service: Service
    views: PostgresViews
    reads: ReadModel


async def main(
    shutdown: Shutdown, tell: Callable[[Running], None] = lambda _running: None, versions: Any = None
) -> None:
    """Runs the service; ``versions``: of the view that are declared."""
    if versions is None:
        versions = [STAYS, STAYS_2] if "2" in os.environ.get("VERSIONS", "1") else [STAYS]
    settings = load(StaysSettings)
    async with open_service(SPEC, settings, shutdown) as service:
        views = PostgresViews(service.log, PACKAGE, {view.table: ROWS[view.table] for view in versions})
        reads = ReadModel(service, views, {"stays": versions})
        reads.subscribe()
        tell(Running(service, views, reads))
        await service.serve()


if __name__ == "__main__":
    filling.CHUNK = CHUNK
    sys.exit(run(main))
