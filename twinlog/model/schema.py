"""The schema: decodes stored events, and upcasts those that older versions wrote.

A message type may gain fields and is otherwise kept as it is. For what was renamed, split, merged, given a default or
dropped, the schema has a table of upcasters (:mod:`twinlog.model.upcasts`). They chain; a cycle is refused at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message

from twinlog.model.errors import (
    ConfigurationError,
    UndecodableEvent,
    UnknownEventType,
    UpcasterFailed,
    defect,
    named,
)
from twinlog.model.event import Recorded
from twinlog.model.forms import WrongForm, shown
from twinlog.model.messages import message_class, pack, unpack
from twinlog.model.personal import holds_personal
from twinlog.model.routing import rule_of
from twinlog.model.upcasts import Reading, Upcast, Upcaster, WrongUpcast, fingerprint, table_of
from twinlog.model.withheld import withheld

_HOLDS_EVENT = {
    "twinlog.v1.SagaStarted": "trigger",
    "twinlog.v1.SagaStepSucceeded": "reply",
    "twinlog.v1.SagaAnswerKept": "answer",
    "twinlog.v1.SagaStepFailed": "refusal",
    "twinlog.v1.SagaCompleted": "reply",
}
"""Events of sagas that carry an event of another log, and the field in which they do."""


class UpcasterCycle(ConfigurationError):
    """Upcasting {type} leads back to {type}; let one of the upcasters return a newer type."""

    reason = "UPCASTER_CYCLE"


class Schema:
    """Decodes events of every message type whose generated module is imported. A service has one.

    Schema([Upcast.rename(OldName, NewName), Upcast.default(Invoice, currency="EUR")])
    """

    def __init__(
        self,
        upcasts: Sequence[Upcast] | Mapping[type[Message], tuple[Upcaster, Sequence[type[Message]]]] = (),
    ) -> None:
        """``upcasts``: the table; or, in short, old type → (function, the types that it returns).

        Raises UpcasterCycle, and WrongUpcast where two lines are about one type.
        """
        lines = table_of(upcasts) if isinstance(upcasts, Mapping) else _lines(upcasts)
        self._readings = [*_by_type(lines)]
        self._replacing = {_name(each.of): each for each in self._readings if not each.completes}
        self._completing = {_name(each.of): each for each in self._readings if each.completes}
        self._upcast = {*self._replacing, *self._completing, *(_HOLDS_EVENT if self._readings else ())}
        _refuse_cycles({name: [*map(_name, each.gives)] for name, each in self._replacing.items()})
        self.fingerprint = fingerprint(self._readings)
        """Names the table: states of one with another fingerprint may differ. Empty for an empty table."""

    def decode(self, event: Recorded) -> Sequence[Message]:
        """The messages that a stored event means today; one, unless its type was split or dropped.

        Raises UnknownEventType and UndecodableEvent; UpcasterFailed is one of the latter.
        """
        try:
            message = message_class(event.type).FromString(event.payload)
        except KeyError as error:
            raise UnknownEventType(type=event.type) from error
        except DecodeError as error:
            raise UndecodableEvent(event=event.address, type=event.type) from error
        if event.type not in self._upcast:
            return (message,)
        try:
            return self._today(message)
        except BaseException as error:  # whatever an upcaster raises, it is this event that it cannot bear
            told = withheld(defect(error), holds_personal(event.type, event.payload))
            raise UpcasterFailed(event=event.address, type=event.type, why=named(told)) from told

    def today(self, message: Message) -> Sequence[Message]:
        """What a message that is about to be stored will be read as. The message stays as it is."""
        if message.DESCRIPTOR.full_name not in self._upcast:
            return (message,)
        copy = type(message)()
        copy.CopyFrom(message)
        return self._today(copy)

    def replaces(self, type: type[Message]) -> bool:
        """Whether events of a type are upcast, so that nobody is given one."""
        return type.DESCRIPTOR.full_name in self._replacing

    def upcasts(self, event: Recorded) -> bool:
        """Whether an event may be read as something other than what is stored."""
        return event.type in self._upcast

    def decode_all(self, events: Iterable[Recorded]) -> list[tuple[Recorded, Message]]:
        """Each of the messages of some events, with its event. Raises as :meth:`decode` does."""
        decoded: list[tuple[Recorded, Message]] = []
        for event in events:
            if event.type not in self._upcast:  # as `decode` does, without its call for each event of a batch
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
            for each in self._replacing.values():
                old = each.of.DESCRIPTOR.name
                if old not in found and any(new.DESCRIPTOR.name == type for new in each.gives):
                    found.append(old)
        return found

    def stored_names(self, types: Sequence[type[Message]]) -> frozenset[str]:
        """The same as full names, which tell apart types of several packages that have one short name."""
        return frozenset(_name(type) for type in self._stored(types))

    def stored_under(self, names: Iterable[str]) -> frozenset[str]:
        """The names under which events of some types may be stored, where these are full or short names."""
        found = list(names)
        for name in found:  # grows as it is read: upcasters chain
            for old, each in self._replacing.items():
                if old not in found and any(name in (_name(new), new.DESCRIPTOR.name) for new in each.gives):
                    found.append(old)
        return frozenset(found)

    def stored_routing_key(self, types: Sequence[type[Message]], routing_key: str) -> str:
        """The routing key under which all that is read as these types is stored; no types: as any.

        Empty: some of it may be under another one, and has to be chosen by the key of what it means today.
        """
        stored = self._stored(types) if types else [each.of for each in self._readings]
        for type in stored:
            reading = self._replacing.get(_name(type)) or self._completing.get(_name(type))
            rule = rule_of(type.DESCRIPTOR)
            if reading and (rule.field or not (reading.completes or rule.fixed == routing_key)):
                return ""
        return routing_key

    def targets(self) -> Iterator[tuple[type[Message], type[Message]]]:
        """Each old type, with each of the types that it is read as in the end."""
        for each in self._replacing.values():
            yield from ((each.of, new) for new in dict.fromkeys(self._ends(each)))

    def _ends(self, reading: Reading) -> Iterator[type[Message]]:
        for new in reading.gives:
            further = self._replacing.get(_name(new))
            yield from self._ends(further) if further else (new,)

    def _stored(self, types: Sequence[type[Message]]) -> Sequence[type[Message]]:
        found = list(types)
        for type in found:  # grows as it is read: upcasters chain
            found += [
                each.of for each in self._replacing.values() if type in each.gives and each.of not in found
            ]
        return found

    def _today(self, message: Message) -> Sequence[Message]:
        name = message.DESCRIPTOR.full_name
        if reading := self._replacing.get(name):
            return [new for old in _checked(reading, reading.upcast(message)) for new in self._today(old)]
        if reading := self._completing.get(name):
            return [*reading.upcast(message)]
        if field := _HOLDS_EVENT.get(name):
            self._renew(getattr(message, field))
        return (message,)

    def _renew(self, packed: Packed) -> None:
        """Upcasts the event inside an event of a saga. It has to stay one: of a split one the first is taken."""
        if packed.TypeName() in self._upcast and (today := self._today(unpack(packed))):
            packed.CopyFrom(pack(today[0]))


def _lines(upcasts: Any) -> Sequence[Upcast]:
    if not isinstance(upcasts, Iterable):
        raise WrongForm(of="Schema", what=f"its table is {shown(upcasts)}; give a list of Upcast lines")
    lines = list(upcasts)
    for line in lines:
        if not isinstance(line, Upcast):
            what = f"its table has {shown(line)}; each line is made by a method such as Upcast.rename"
            raise WrongForm(of="Schema", what=what)
    return lines


def _by_type(lines: Sequence[Upcast]) -> Iterator[Reading]:
    seen: dict[str, str] = {}
    for each in lines:
        for reading in each.readings:
            name = _name(reading.of)
            if before := seen.get(name):
                what = f"{name} has {before} already, and could be read in two ways; make one of the two"
                raise WrongUpcast(line=each.line, what=what)
            seen[name] = each.line
            yield reading


def _checked(reading: Reading, made: Iterable[Message]) -> Sequence[Message]:
    messages = [*made]  # a function that yields them gives them only once
    for message in messages:
        if type(message) not in reading.gives:
            raise TypeError(f"it returns {_name(message)}, which the table does not say; name it there")
    return messages


def _refuse_cycles(gives: Mapping[str, Sequence[str]]) -> None:
    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise UpcasterCycle(type=name)
        for new in gives.get(name, ()):
            visit(new, (*path, name))

    for name in gives:
        visit(name, ())


def _name(of: Any) -> str:
    return str(of.DESCRIPTOR.full_name)
