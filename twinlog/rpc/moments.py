"""Moments as requests name them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.log.past import Moment
from twinlog.log.ports import Log, ReadRequest
from twinlog.model.event import MOST_POSITION, MOST_VERSION, StreamId, known_stream
from twinlog.rpc.validation import Checks, normal_id
from twinlog.v1 import moment_pb2 as pb


def moment_of(checks: Checks, field: str, given: pb.Moment) -> Moment:
    """The moment of a request's field; now where it names none."""
    match given.WhichOneof("at"):
        case "version":
            if given.version < 1:
                checks.violate(f"{field}.version", f"must be 1 to {MOST_VERSION:,}; it is {given.version:,}")
            return Moment(version=given.version)
        case "position":
            if given.position < 1:
                checks.violate(f"{field}.position", f"must be 1 or more; it is {given.position}")
            return Moment(position=given.position)
        case "time":
            return Moment(time=time_of(checks, f"{field}.time", given.time))
    return Moment()


def as_of(checks: Checks, request: Any) -> Moment:
    """The moment of a query's field ``as_of``; ends the checks. The past needs no view, so it takes no token.

    Raises InvalidArgument.
    """
    moment = moment_of(checks, "as_of", request.as_of)
    if request.consistency_token:
        checks.violate("consistency_token", "cannot be given with as_of: the past is in the log already")
    checks.done()
    return moment


def time_of(checks: Checks, field: str, given: Timestamp) -> datetime | None:
    """The time of a request's field."""
    try:
        return given.ToDatetime(UTC)
    except (ValueError, OverflowError):
        checks.violate(field, "must be a time of the years 1 to 9999, such as 2026-01-31T12:00:00Z")
        return None


def address_of(checks: Checks, field: str, given: str) -> tuple[str, int]:
    """The log and the position of a request's field, such as ``orders/17``; without them if it is wrong."""
    log, _, digits = given.rpartition("/")
    position = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
    if log and 1 <= position <= MOST_POSITION:
        return log, position
    checks.violate(field, f"must be log/position, such as orders/17; a position is 1 to {MOST_POSITION:,}")
    return "", 0


def stream_of(checks: Checks, given: str) -> StreamId:
    """The stream of a request's field ``stream``, type/id."""
    type, _, id = given.partition("/")
    if not (type and id):
        checks.violate("stream", "must be type/id, such as order/01890a5d-ac96-774b-bcce-b302099a8057")
    return known_stream((type, id))


async def as_spelled(log: Log, stream: StreamId) -> StreamId:
    """A stream that is asked for, as its log spells it: a UUID in another letter case is the same id. Raises
    Unavailable."""
    normal = known_stream((stream.type, normal_id(stream.id)))
    if normal == stream:
        return stream
    [found] = await log.load([ReadRequest(stream, upto=1)])
    return stream if found.events else normal


def as_message(moment: Moment) -> pb.Moment:
    """A moment as a request names it."""
    message = pb.Moment()
    if moment.time is not None:
        message.time.FromDatetime(moment.time)
    elif moment.position:
        message.position = moment.position
    elif moment.version:
        message.version = moment.version
    return message
