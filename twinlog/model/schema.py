"""The schema: decodes stored events, and upcasts those that older versions wrote.

A message type may gain fields and is otherwise kept as it is. A type that was renamed or split gets an upcaster: a
function from the old message to the messages that replace it today. Upcasters chain; a cycle is refused at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from twinlog.model.errors import ConfigurationError, UndecodableEvent, UnknownEventType, UpcasterFailed
from twinlog.model.event import Recorded
from twinlog.model.messages import message_class

Upcaster = Callable[[Any], Sequence[Message]]
"""Replaces a message of an old type: ``lambda old: [CreditReserved(order_id=old.order_id, amount=old.amount)]``."""


class UpcasterCycle(ConfigurationError):
    """Upcasting {type} leads back to {type}; let one of the upcasters return a newer type."""

    reason = "UPCASTER_CYCLE"


class Schema:
    """Decodes events of every message type whose generated module is imported. A service has one.

        Schema({OldName: (lambda old: [NewName(id=old.id)], [NewName])})

    Consumers choose stored events by type and routing key; so an old type should have the routing key of the types that
    replace it.
    """

    def __init__(
        self, upcasters: Mapping[type[Message], tuple[Upcaster, Sequence[type[Message]]]] | None = None
    ) -> None:
        """``upcasters``: old type → (function, the types that it returns). Raises UpcasterCycle."""
        table = upcasters or {}
        self._replaced_by = {
            old.DESCRIPTOR.name: {new.DESCRIPTOR.name for new in gives} for old, (_, gives) in table.items()
        }
        self._upcasters = {old.DESCRIPTOR.full_name: upcast for old, (upcast, _) in table.items()}
        self._gives = {
            old.DESCRIPTOR.full_name: [new.DESCRIPTOR.full_name for new in gives]
            for old, (_, gives) in table.items()
        }
        _refuse_cycles(self._gives)

    def decode(self, event: Recorded) -> Sequence[Message]:
        """The messages that a stored event means today; one, unless its type was split.

        Raises UnknownEventType and UndecodableEvent; UpcasterFailed is one of the latter.
        """
        try:
            message = message_class(event.type).FromString(event.payload)
        except KeyError as error:
            raise UnknownEventType(type=event.type) from error
        except DecodeError as error:
            raise UndecodableEvent(event=event.address, type=event.type) from error
        if event.type not in self._upcasters:
            return (message,)
        try:
            return self._upcast(message)
        except Exception as error:  # whatever an upcaster raises, it is this event that it cannot bear
            why = f"{type(error).__name__}: {error}"
            raise UpcasterFailed(event=event.address, type=event.type, why=why) from error

    def replaces(self, type: type[Message]) -> bool:
        """Whether events of a type are upcast, so that nobody is given one."""
        return type.DESCRIPTOR.full_name in self._upcasters

    def decode_all(self, events: Iterable[Recorded]) -> list[tuple[Recorded, Message]]:
        """Each of the messages of some events, with its event. Raises as :meth:`decode` does."""
        decoded: list[tuple[Recorded, Message]] = []
        for event in events:
            if (
                event.type not in self._upcasters
            ):  # as `decode` does, without its call for each event of a batch
                try:
                    decoded.append((event, message_class(event.type).FromString(event.payload)))
                    continue
                except (KeyError, DecodeError):
                    pass  # `decode` tells what is wrong
            decoded += [(event, message) for message in self.decode(event)]
        return decoded

    def stored_types(self, types: Sequence[str]) -> Sequence[str]:
        """The types under which these may be stored: themselves, and older ones that upcast to them. Short names."""
        found = list(types)
        for type in found:  # grows as it is read: upcasters chain
            found += [old for old, new in self._replaced_by.items() if type in new and old not in found]
        return found

    def stored_names(self, types: Sequence[type[Message]]) -> frozenset[str]:
        """The same as full names, which tell apart types of several packages that have one short name."""
        found = [type.DESCRIPTOR.full_name for type in types]
        for name in found:  # grows as it is read: upcasters chain
            found += [old for old, new in self._gives.items() if name in new and old not in found]
        return frozenset(found)

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
