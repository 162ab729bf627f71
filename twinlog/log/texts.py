"""Texts that no log keeps: one rule for all of them, which Postgres gives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from twinlog.log.ports import Batch
from twinlog.model.event import NewEvent, StreamId


class Unstorable(ValueError):
    """What cannot be kept, and why; nothing of its batch is."""


def refuse_ids(streams: Collection[StreamId]) -> None:
    """Raises Unstorable for a stream whose id is no text that a log keeps."""
    if _are_plain([stream.id for stream in streams]):
        return
    _refuse((f"the id of {stream.type}", stream.id) for stream in streams)


def refuse_metadata(events: Iterable[NewEvent]) -> None:
    """Raises Unstorable where one is missing or holds anything but texts: it could be stored, and never read."""
    for event in events:
        found = event.metadata
        try:
            "".join((*found[:4], *found.extra.values()))
        except (TypeError, AttributeError):
            what = f"{found!r} is no Metadata of texts; give each field, and each of extra, as str"
            raise Unstorable(what) from None


def refuse_batch(batch: Batch) -> None:
    """Raises Unstorable for a text of a batch that a log does not keep."""
    refuse_ids(batch.expects)
    refuse_metadata(batch.events)
    if _are_plain(_texts_of(batch.events) + [reply.request_id for reply in batch.replies]):
        return
    for event in batch.events:
        _refuse((f"metadata or a key of {event.type}", text) for text in _texts_of([event]))
    _refuse(("a request_id", reply.request_id) for reply in batch.replies)


def _texts_of(events: Iterable[NewEvent]) -> list[str]:
    """Those that are kept beside the payloads."""
    texts: list[str] = []
    for event in events:
        *own, extra = event.metadata
        texts += (event.partition_key, event.routing_key, *own, *extra, *extra.values())
    return texts


def _refuse(texts: Iterable[tuple[str, str]]) -> None:
    for what, text in texts:
        if not _is_sound(text):
            raise Unstorable(
                f"{what} is {text!r}, and a log keeps texts only, without a NUL character or half of a surrogate pair; "
                "give a str, and refuse the request that brings another"
            )


def _are_plain(texts: Sequence[str]) -> bool:
    """Whether they are so common that none has to be looked at: a simulation appends millions."""
    try:
        joined = "".join(texts)
    except TypeError:
        return False
    return joined.isascii() and "\0" not in joined


def _is_sound(text: str) -> bool:
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
