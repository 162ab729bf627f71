"""From stored events to messages: decoding, and upcasting of what older versions wrote.

Events only grow. One that was renamed or split goes through an upcaster: old full name → the messages that
stand for it today. Upcasters chain; a cycle is refused at start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from twinlog.model.errors import ConfigurationError, UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded
from twinlog.model.messages import message_class

Upcaster = Callable[[Any], Sequence[Message]]


class UpcasterCycle(ConfigurationError):
    """Upcasting {type} leads back to it; make one of the upcasters give a newer type."""

    reason = "UPCASTER_CYCLE"


class Schema:
    """Decodes events; knows every message type whose generated module is imported."""

    def __init__(
        self, upcasters: Mapping[type[Message], tuple[Upcaster, Sequence[type[Message]]]] | None = None
    ):
        """``upcasters``: old type → (function, the types it gives). Raises UpcasterCycle."""
        table = upcasters or {}
        self._upcasters = {old.DESCRIPTOR.full_name: upcast for old, (upcast, _) in table.items()}
        _refuse_cycles(
            {
                old.DESCRIPTOR.full_name: [new.DESCRIPTOR.full_name for new in gives]
                for old, (_, gives) in table.items()
            }
        )

    def decode(self, event: Recorded) -> Sequence[Message]:
        """The messages that stand for a stored event today; one, unless it was split.

        Raises UnknownEventType and UndecodableEvent.
        """
        try:
            message = message_class(event.type).FromString(event.payload)
        except KeyError as error:
            raise UnknownEventType(type=event.type) from error
        except DecodeError as error:
            raise UndecodableEvent(event=event.address, type=event.type) from error
        if event.type not in self._upcasters:
            return (message,)
        return [new for old in self._upcasters[event.type](message) for new in self._upcast(old)]

    def _upcast(self, message: Message) -> Sequence[Message]:
        upcast = self._upcasters.get(message.DESCRIPTOR.full_name)
        if upcast is None:
            return (message,)
        return [new for old in upcast(message) for new in self._upcast(old)]


def _refuse_cycles(gives: Mapping[str, Sequence[str]]) -> None:
    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise UpcasterCycle(type=name)
        for new in gives.get(name, ()):
            visit(new, (*path, name))

    for name in gives:
        visit(name, ())
