"""What there is to audit: logs with their aggregates, and what follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twinlog.audit.dead_letters import DeadLettersByConsumer
from twinlog.audit.followers import Follower
from twinlog.audit.views import RowsAudit
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.schema import Schema


class AuditedLog(NamedTuple):
    """A log, its owner and the aggregates in it."""

    log: str
    owner: str
    """The service."""
    database: str
    """As it is called on its server."""
    aggregates: Sequence[AnyAggregate]
    schema: Schema
    """Decodes its events."""


@dataclass(frozen=True)
class System:
    """Logs, and the consumers of them."""

    logs: Sequence[AuditedLog]
    databases: Sequence[str]
    """In the order in which they are read: what holds views comes before the logs that they show, so that no view is
    ahead of its log."""
    followers: Callable[[DeadLettersByConsumer], Sequence[Follower]]
    """Makes one for every table of policies and effects."""
    views: Callable[[DeadLettersByConsumer], Sequence[RowsAudit]]
    """Makes one for every view of every log that it shows."""
    namespace: str = ""
    """Of the installation."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The log that a consumer follows, by consumer, where its name does not end with it."""
    notes: Sequence[str] = ()
    """What is not compared, and why, for people."""
