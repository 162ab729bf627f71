"""Installations that share servers: whose a log and its stream are, and what their names are there.

A log says in its own database whose it is; its relay writes the same onto the stream. All who read a stream compare the
two.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from twinlog.log.twin import TwinDamaged


def named(namespace: str, name: str) -> str:
    """What a stream, a database or a subject is called on a server: ``orders``, or ``staging_orders``."""
    return f"{namespace}_{name}" if namespace else name


class Identity(NamedTuple):
    """Whose a log is."""

    installation: str
    """The name that all services have that work together."""
    log_id: UUID
    """Tells the log from any other, whatever that is called."""


@runtime_checkable
class Installed(Protocol):
    """A log that knows whose it is; one in memory is of no installation."""

    @property
    def installation(self) -> str:
        """The name of its installation; empty until that is known."""


class ForeignStream(TwinDamaged):
    """Stream {stream} belongs to installation {theirs}, this service to {ours}; {remedy}"""

    reason = "FOREIGN_STREAM"

    def __init__(self, stream: str, theirs: str, ours: str) -> None:
        remedy = (
            "set TWINLOG_NAMESPACE to a name of its own, or NATS_URL to another server or account. If both are one "
            "installation, on several Postgres servers, give it one name: docs/operations.md, Neighbors."
        )
        super().__init__(stream=stream, theirs=theirs, ours=ours, remedy=remedy)
