"""Events, as the log stores them and the twin carries them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import NamedTuple, Self
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.forms import MOMENT, TEXT, Forms, WrongValue, one, refuse_value, shown, whole
from twinlog.model.routing import rule_of

_BUCKETS = 64
MOST_VERSION = 2**31 - 1
"""Of a stream: tables and requests have no room for more."""
MOST_POSITION = 2**63 - 1
"""Of a log."""
_NO_TOKEN = re.compile(r"[^!-~]|[.*>]")
"""What a token of a subject cannot have: a subject is one line, of which each token says one thing."""
_LONGEST_TOKEN = 1_000
"""Characters; a server refuses longer lines, and ends the connection."""
_REMEMBERED_TOKENS = 1_000


class _StreamId(NamedTuple):
    type: str
    id: str


class StreamId(_StreamId):
    """The identity of one stream of a log, which is one aggregate: its type, such as order, and its id.

    Raises ValueError unless both are texts, and not empty.
    """

    __slots__ = ()

    def __new__(cls, type: str, id: str) -> StreamId:
        for part, given in (("type", type), ("id", id)):
            if not isinstance(given, str) or not given:
                what = f"{part} is {shown(given)}; give a text, such as StreamId('order', order_id)"
                raise WrongValue(f"StreamId: {what}")
        return known_stream((type, id))

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


known_stream: Callable[[tuple[str, str]], StreamId] = partial(tuple.__new__, StreamId)
"""The stream of parts that were looked at already: every event and every command comes by here."""


class _Metadata(NamedTuple):
    correlation_id: str = ""
    """Shared by everything that one request set off."""
    causation_id: str = ""
    """Its cause: an event, as ``log/position``, or a call, as ``rpc/Method``."""
    traceparent: str = ""
    """The W3C trace context of what set it off: the span, where it has one; else as the caller gave it, or empty."""
    actor: str = ""
    """Who did it."""
    extra: Mapping[str, str] = {}
    """What the domain says besides, such as the tenant or the user; what an event causes has the same."""


class Metadata(_Metadata):
    """What is known about an event besides its payload.

    Raises ValueError unless all of it is texts, and ``extra`` a mapping of texts.
    """

    __slots__ = ()

    def __new__(
        cls,
        correlation_id: str = "",
        causation_id: str = "",
        traceparent: str = "",
        actor: str = "",
        extra: Mapping[str, str] = {},
    ) -> Metadata:
        made = known_metadata((correlation_id, causation_id, traceparent, actor, extra))
        for part, text in zip(made._fields[:-1], made, strict=False):
            if not isinstance(text, str):
                raise WrongValue(f"Metadata: {part} is {shown(text)}; give a text, or leave it out")
        given: object = extra
        if not isinstance(given, Mapping):
            what = f"extra is {shown(extra)}; give a mapping of texts, such as {{'tenant': 'north'}}"
            raise WrongValue(f"Metadata: {what}")
        for each in (*extra, *extra.values()):
            if not isinstance(each, str):
                raise WrongValue(
                    f"Metadata: extra has {shown(each)}; give texts, such as {{'tenant': 'north'}}"
                )
        return made


known_metadata: Callable[[tuple[str, str, str, str, Mapping[str, str]]], Metadata] = partial(
    tuple.__new__, Metadata
)
"""That of parts which were looked at already: every event and every command comes by here."""


def encoded(message: Message) -> tuple[str, bytes, str]:
    """What a log keeps of a message: type, payload and routing key. Raises ValueError where that one is unknown."""
    payload = message.SerializeToString(deterministic=True)
    rule = rule_of(message.DESCRIPTOR)
    return rule.type, payload, rule.decided[getattr(message, rule.field)] if rule.field else rule.fixed


class NewEvent(NamedTuple):
    """An event about to be appended."""

    stream: StreamId
    version: int
    event_id: UUID
    type: str
    payload: bytes
    metadata: Metadata
    partition_key: str
    routing_key: str

    @classmethod
    def of(
        cls,
        stream: StreamId,
        version: int,
        event_id: UUID,
        message: Message,
        metadata: Metadata,
        partition_key: str,
    ) -> NewEvent:
        """The event with the type, payload and routing key of a message."""
        type, payload, routing_key = encoded(message)
        return cls(stream, version, event_id, type, payload, metadata, partition_key, routing_key)


class _Recorded(NamedTuple):
    log: str
    position: int
    stream: StreamId
    version: int
    event_id: UUID
    type: str
    payload: bytes
    metadata: Metadata
    partition_key: str
    """Events of a log that share it are handled in order, independently of others. It decides the bucket."""
    routing_key: str
    """What consumers can filter by, besides the type (:mod:`twinlog.model.routing`)."""
    recorded_at: datetime


_RECORDED: Forms = {
    "log": TEXT,
    "position": (_PLACE := whole(0, MOST_POSITION)),
    "stream": one(StreamId, "a StreamId, such as StreamId('order', order_id)"),
    "version": _PLACE,
    "event_id": one(UUID, "a UUID"),
    "type": TEXT,
    "payload": one(bytes, "the bytes of a message"),
    "metadata": one(Metadata, "a Metadata"),
    "partition_key": TEXT,
    "routing_key": TEXT,
    "recorded_at": MOMENT,
}


class Recorded(_Recorded):
    """An event of a log.

    Raises ValueError unless each part is what it is said to be.
    """

    __slots__ = ()

    def __new__(
        cls,
        log: str,
        position: int,
        stream: StreamId,
        version: int,
        event_id: UUID,
        type: str,
        payload: bytes,
        metadata: Metadata,
        partition_key: str,
        routing_key: str,
        recorded_at: datetime,
    ) -> Self:
        parts = log, position, stream, version, event_id, type, payload, metadata
        made = tuple.__new__(cls, (*parts, partition_key, routing_key, recorded_at))
        refuse_value("Recorded", made, _RECORDED)
        return made

    @property
    def subject(self) -> str:
        """The twin's subject: ``<log>.<bucket>.<EventType>.<routing key>``.

        The bucket of a partition key, 0 to 63, is the same in every process and version.
        """
        bucket = zlib.crc32(self.partition_key.encode()) % _BUCKETS
        return f"{self.log}.{bucket}.{_token(self.type.rpartition('.')[2])}.{_token(self.routing_key)}"

    @property
    def address(self) -> str:
        """``log/position``: identifies the event everywhere; the causation id of what it causes."""
        return f"{self.log}/{self.position}"

    def causing(self, actor: str) -> Metadata:
        """The metadata of what ``actor`` does because of this event."""
        given, address = self.metadata, f"{self.log}/{self.position}"
        return known_metadata((given.correlation_id, address, given.traceparent, actor, given.extra))


known_recorded: Callable[[tuple[object, ...]], Recorded] = partial(tuple.__new__, Recorded)
"""The event of parts, in their order, that were looked at already: every event comes by here."""


@lru_cache(_REMEMBERED_TOKENS)
def _token(text: str) -> str:
    """A type or routing key as a token of a subject.

    Those that are declared are tokens already. What another program has written may be none: copied as it is, it would
    end the connection, and with it everything that this process copies and follows. Nobody can have asked for it.
    """
    return _NO_TOKEN.sub("_", text[:_LONGEST_TOKEN]) or "_"
