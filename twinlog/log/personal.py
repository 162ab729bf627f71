"""Personal fields on their way to the log and back: sealed before an append, opened for deciding.

What is stored anywhere is sealed: events, and with them the stream, dead letters, views and files; and snapshots. The
keys are read before they are needed, those of a batch together, and kept for as long as nobody destroys them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog
from google.protobuf.message import Message

from twinlog.log.keys import Keys, cipher
from twinlog.log.known_keys import EVERYBODY, KnownKeys
from twinlog.log.ports import Snapshot, StreamSlice
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.event import NewEvent, Recorded, StreamId
from twinlog.model.messages import message_class
from twinlog.model.personal import (
    ERASED,
    FIELDS_OF,
    HOLDING,
    KEPT_NOTHING,
    MARK,
    MARK_BYTES,
    NONCE_BYTES,
    OWN_TYPES,
    Cipher,
    change_texts,
    has_own,
    holds_personal,
    personal_types,
    persons_in,
    seal,
    texts_in,
    unseal,
)
from twinlog.model.withheld import holds

E = TypeVar("E", NewEvent, Recorded)

SEALED_STATE = ".sealed"
"""Ends the schema of a snapshot that is sealed, so that it is no snapshot for programs that cannot open it."""


class Erased(Exception):
    """The person is erased, and the snapshot with them."""


class NotOpened(ValueError):
    """It was sealed with another key."""


class Personal:
    """Seals and opens the personal fields of one process."""

    def __init__(
        self,
        keys: Keys,
        *,
        cached: int = 10_000,
        nonces: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``cached``: the most keys kept in memory. ``nonces``: returns so many bytes, never the same ones twice."""
        personal_types()  # those that are known from the start
        self.keys = keys
        self.known = KnownKeys(keys, cached)
        self._nonces = nonces
        self._most = cached
        self._mixed: set[str] = set()
        """Types of streams that hold fields of others than the stream's own person."""
        self._told: set[str] = set()

    # --- what a domain calls ---

    async def open(self, subject: str, text: str) -> str:
        """A personal text that a view keeps, in plain; "erased" if its key was destroyed.

        A text that is not sealed for that person is returned as it is. Raises Unavailable.
        """
        if not text.startswith(MARK):
            return text
        return self._opened(await self.known.ciphers((subject,)), subject, text)

    async def open_all(self, texts: Sequence[tuple[str, str]]) -> list[str]:
        """The same for several, each with its person; their keys are read together. Raises Unavailable."""
        keys = await self.known.ciphers({subject for subject, text in texts if text.startswith(MARK)})
        return [self._opened(keys, subject, text) for subject, text in texts]

    async def erase(self, subject: str) -> bool:
        """Destroys a person's key for good: no text sealed for them can be read again.

        Returns whether there was a key; repeating it is harmless. Every process that has the key in memory forgets it
        within 5 s. Raises Unavailable; the outcome is then unknown, so repeat the call.
        """
        return await self.known.destroy(subject)

    def plain(self, events: Iterable[Recorded]) -> list[Recorded]:
        """Those of the events that hold personal fields in plain text, as events from before the mark do."""
        return [event for event in events if has_own(event.type) and self._is_plain(event)]

    # --- what the kernel calls ---

    async def sealed(self, events: list[NewEvent]) -> list[NewEvent]:
        """Events about to be appended, with their personal fields sealed. Raises NoSubject and KeysUnavailable."""
        fields_of, names_one = FIELDS_OF, OWN_TYPES.found_in
        touched = [
            number
            for number, event in enumerate(events)
            if (fields := fields_of[event.type]) and (fields.own or names_one(event.payload))
        ]
        if not touched:
            return events
        messages = {at: message_class(events[at].type).FromString(events[at].payload) for at in touched}
        subjects: dict[str, None] = {}
        for at, message in messages.items():
            stream = events[at].stream
            own = persons_in(message, stream.id)
            self._note(stream.type, stream.id, own)
            subjects |= dict.fromkeys(own)
        keys = await self.known.ciphers(subjects, make=True)
        return _changed(events, messages, partial(self._sealed, keys))

    async def opened(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        """Events with their personal fields opened, in memory only. Raises KeysUnavailable."""
        fields_of = FIELDS_OF
        touched = [
            number
            for number, event in enumerate(events)
            if (fields := fields_of[event.type]) and (fields.own or MARK_BYTES in event.payload)
        ]
        if not touched:
            return events
        messages = {}
        subjects: set[str] = set()
        for at in touched:
            event = events[at]
            try:
                message = message_class(event.type).FromString(event.payload)
                own = persons_in(message, event.stream.id)
            except Exception:  # who decodes it tells what is wrong
                continue
            self._note(event.stream.type, event.stream.id, own)
            if MARK_BYTES in event.payload:
                messages[at] = message
                subjects.update(own)
        if not messages:
            return events
        keys = await self.known.ciphers(subjects)
        return _changed(events, messages, partial(self._opened, keys))

    def may_show(self, erased: Collection[str], stream: StreamId, aggregate: AnyAggregate) -> bool:
        """Whether a state that was folded before may hold texts of those who were erased since.

        ``erased``: the persons that ``known.on_erased`` was called with.
        """
        if stream.id in erased or stream.type in self._mixed:
            return True
        return EVERYBODY in erased and aggregate.keeps_personal and holds(aggregate)

    async def sealed_states(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """Snapshots that are marked as sealed, sealed; without those that may not be saved. Raises KeysUnavailable.

        A state that may hold texts of several persons is not saved, nor that of a person who is erased: it was made
        from what was known of them before.
        """
        own = [each for each in snapshots if each.stream.type not in self._mixed]
        keys = await self.known.ciphers(dict.fromkeys(each.stream.id for each in own), make=True)
        return [self._sealed_state(key, each) for each in own if (key := keys[each.stream.id])]

    def _sealed_state(self, key: Cipher, snapshot: Snapshot) -> Snapshot:
        nonce = self._nonces(NONCE_BYTES)
        state = nonce + key.encrypt(nonce, snapshot.state, _of_stream(snapshot))
        return snapshot._replace(state=MARK_BYTES + state)

    async def opened_state(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot as it was before it was sealed. Raises Erased, NotOpened and KeysUnavailable."""
        if not snapshot.schema.endswith(SEALED_STATE):
            return snapshot
        keys = await self.known.ciphers([snapshot.stream.id])
        opened = self._opened_state(keys, snapshot)
        if opened is None or opened is snapshot:
            raise Erased if keys.get(snapshot.stream.id, self) is None else NotOpened
        return opened

    async def opened_slices(
        self, slices: Sequence[StreamSlice], keeping: Sequence[bool]
    ) -> Sequence[StreamSlice]:
        """What a load gave, with events and snapshots opened; one that cannot be opened stays as it is.

        ``keeping``: of each, whether its fold keeps personal texts; for the others no key is asked for. Raises
        KeysUnavailable.
        """
        if not all(keeping):
            return await self._opened_where_kept(slices, keeping)
        events = [event for slice in slices for event in slice.events]
        opened = await self.opened(events)
        sealed = [s for slice in slices if (s := slice.snapshot) and s.schema.endswith(SEALED_STATE)]
        if opened is events and not sealed:
            return slices
        keys = await self.known.ciphers(dict.fromkeys(each.stream.id for each in sealed))
        in_order = iter(opened)
        return [
            StreamSlice(self._opened_state(keys, slice.snapshot), [next(in_order) for _ in slice.events])
            for slice in slices
        ]

    async def _opened_where_kept(
        self, slices: Sequence[StreamSlice], keeping: Sequence[bool]
    ) -> Sequence[StreamSlice]:
        kept = [slice for slice, keeps in zip(slices, keeping, strict=True) if keeps]
        opened = iter(await self.opened_slices(kept, [True] * len(kept)))
        for slice, keeps in zip(slices, keeping, strict=True):
            if not keeps and any(holds_personal(event.type, event.payload) for event in slice.events):
                HOLDING.add(slice.events[0].stream.type)
        return [next(opened) if keeps else slice for slice, keeps in zip(slices, keeping, strict=True)]

    def _opened_state(self, keys: Mapping[str, Cipher | None], snapshot: Snapshot | None) -> Snapshot | None:
        if snapshot is None or not snapshot.schema.endswith(SEALED_STATE):
            return snapshot
        HOLDING.add(snapshot.stream.type)
        data, key = snapshot.state.removeprefix(MARK_BYTES), keys.get(snapshot.stream.id)
        if key is None:
            return snapshot
        try:
            state = key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _of_stream(snapshot))
        except Exception:  # the cipher's own: it is of another key, or damaged
            return snapshot
        return snapshot._replace(schema=snapshot.schema.removesuffix(SEALED_STATE), state=state)

    # --- how it is done ---

    def _note(self, stream_type: str, stream: str, subjects: Collection[str]) -> None:
        HOLDING.add(stream_type)
        if any(subject != stream for subject in subjects):
            self._mixed.add(stream_type)

    def _is_plain(self, event: Recorded) -> bool:
        message = message_class(event.type).FromString(event.payload)
        return any(not text.startswith(MARK) for _, text in texts_in(message, event.stream.id))

    def _sealed(self, keys: Mapping[str, Cipher | None], subject: str, text: str) -> str:
        key = keys[subject]
        return KEPT_NOTHING if key is None else seal(key, self._nonces(NONCE_BYTES), subject, text)

    def _opened(self, keys: Mapping[str, Cipher | None], subject: str, text: str) -> str:
        if not text.startswith(MARK):
            return text
        if subject in keys:
            key = keys[subject]
            opened = ERASED if key is None else unseal(key, subject, text)
            if opened is not None:
                return opened
        if text == KEPT_NOTHING:
            return ERASED
        if subject not in self._told and len(self._told) < self._most:
            self._told.add(subject)
            structlog.get_logger().warning("personal.not_opened", subject=subject)
        return text


def opened_with(keys: Mapping[str, bytes | None], event: Recorded) -> Recorded:
    """An event as it is opened for deciding, by keys that are at hand; for tests."""
    if MARK_BYTES not in event.payload or not FIELDS_OF[event.type]:
        return event
    message = message_class(event.type).FromString(event.payload)

    def opened(subject: str, text: str) -> str:
        key = keys.get(subject)
        found = unseal(cipher(key), subject, text) if key else ERASED if text.startswith(MARK) else text
        return text if found is None else found

    return _changed([event], {0: message}, opened)[0]


def _changed(
    events: Sequence[E], messages: Mapping[int, Message], change: Callable[[str, str], str]
) -> list[E]:
    """Events with other personal texts in those of which a message is given, which is changed."""
    changed = list(events)
    for at, message in messages.items():
        change_texts(message, events[at].stream.id, change)
        changed[at] = events[at]._replace(payload=message.SerializeToString(deterministic=True))
    return changed


def _of_stream(snapshot: Snapshot) -> bytes:
    return b"twinlog.v1.snapshot\0" + str(snapshot.stream).encode()
