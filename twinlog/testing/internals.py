"""What tools need that look behind the ports, as auditors and benches do. Less stable than the public names."""

from twinlog._aio.linger import Linger
from twinlog.consume.cursor import Cursor
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.consume.filling import ReadAhead
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.chain import leaves, summed
from twinlog.log.installation import ForeignStream, Identity, named
from twinlog.log.ports import Appended, Batch, CheckpointAdvance, Snapshot, Timer
from twinlog.log.relay import BATCH as RELAY_BATCH
from twinlog.log.relay import Relay
from twinlog.log.snapshots import StateCodec
from twinlog.log.system import RandomIds, StoreClock, SystemClock
from twinlog.log.texts import Unstorable, refuse_batch, refuse_ids
from twinlog.log.twin import Twin, TwinMissing, TwinState, mirrors
from twinlog.log.units import Outcome
from twinlog.log.view_store import Build, consumer_of
from twinlog.log.wire import from_wire, to_wire
from twinlog.log.wrapping import Wrapping
from twinlog.memory.keys import MemoryKeys
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import CheckpointMoved, UndecodableEvent, UnknownEventType
from twinlog.model.event import NewEvent
from twinlog.model.messages import message_class
from twinlog.model.money import NANOS_PER_UNIT
from twinlog.model.personal import NONCE_BYTES, seal, unseal
from twinlog.model.routing import routing_key_of
from twinlog.model.saga import StepState
from twinlog.model.view import AnyView, Changes
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, fetch, open_pool
from twinlog.postgres.database import ensure_database
from twinlog.postgres.exporting import export
from twinlog.postgres.identity import identity
from twinlog.postgres.importing import checked, import_log
from twinlog.postgres.keys import open_keys
from twinlog.postgres.log import PostgresLog, open_log
from twinlog.postgres.meaning import outages
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.source import reader_of
from twinlog.postgres.urls import check_url, database_url
from twinlog.postgres.view_builds import builds_in
from twinlog.rpc.freshness import SUBJECT as VIEWS_CHANGED
from twinlog.service.logging import configure_logging

__all__ = [
    "DEAD_LETTERS",
    "NANOS_PER_UNIT",
    "NONCE_BYTES",
    "RELAY_BATCH",
    "VIEWS_CHANGED",
    "AnyAggregate",
    "AnyView",
    "Appended",
    "Batch",
    "Build",
    "Changes",
    "CheckpointAdvance",
    "CheckpointMoved",
    "Connection",
    "Cursor",
    "DeadLettering",
    "ForeignStream",
    "Identity",
    "JetStreamTwin",
    "Linger",
    "MemoryKeys",
    "NatsClient",
    "NewEvent",
    "Outcome",
    "Pool",
    "PostgresLog",
    "RandomIds",
    "ReadAhead",
    "Relay",
    "Snapshot",
    "StateCodec",
    "StepState",
    "StoreClock",
    "SystemClock",
    "Timer",
    "Twin",
    "TwinMissing",
    "TwinState",
    "UndecodableEvent",
    "UnknownEventType",
    "Unstorable",
    "Wrapping",
    "builds_in",
    "check_url",
    "checked",
    "close",
    "configure_logging",
    "connect",
    "consumer_of",
    "database_url",
    "ensure_database",
    "export",
    "fetch",
    "from_wire",
    "identity",
    "import_log",
    "leaves",
    "load_queries",
    "message_class",
    "mirrors",
    "named",
    "open_keys",
    "open_log",
    "open_pool",
    "outages",
    "reader_of",
    "refuse_batch",
    "refuse_ids",
    "routing_key_of",
    "seal",
    "summed",
    "to_wire",
    "unseal",
]
