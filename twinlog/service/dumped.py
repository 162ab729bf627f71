"""What a dump of a process tells of a service."""

from __future__ import annotations

from collections.abc import Iterator

from twinlog.log.lease import holder_of, is_here
from twinlog.postgres.log import PostgresLog
from twinlog.service.dump import Line
from twinlog.service.service import Service


def parts_of(service: Service) -> Iterator[tuple[str, Line]]:
    """The parts of a service: queues, positions, connections and problems, as they are in memory now."""
    yield "writer", service.writer.dumped()
    yield "relay", service.relay.dumped()
    for _, handler, cursor, _, lease in service.inspected.followed:
        yield (
            "consumer",
            {
                **cursor.dumped(),
                "log": handler.source,
                "here": is_here(lease),
                "holder": holder_of(lease) or None,
                "dead_letters": handler.count,
            },
        )
    if isinstance(service.log, PostgresLog):
        yield "pool", service.log.dumped()
    for problem in service.inspected.problems():
        yield "problem", {"signal": problem.signal or None, "problem": problem.problem}
