"""What older events mean today, as lines of one table: renamed, split, merged, given a default, dropped.

An upcaster sees one event at a time, wherever that is read: a fold, a policy, a view. So *merge* means that several
types become one type; an event never waits for another one. (Greg Young, "Versioning in an Event Sourced System".)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from twinlog.model.errors import ConfigurationError
from twinlog.model.forms import shown
from twinlog.model.functions import not_plain, takes
from twinlog.model.messages import is_repeated
from twinlog.model.told import told

Upcaster = Callable[[Any], Iterable[Message]]
"""Replaces a message of an old type: ``lambda old: [CreditReserved(order_id=old.order_id, amount=old.amount)]``."""
Old = TypeVar("Old", bound=Message)


class WrongUpcast(ConfigurationError):
    """{line}: {what}"""

    reason = "WRONG_UPCAST"


@dataclass(frozen=True)
class Reading:
    """How events of one type are read."""

    of: type[Message]
    """The type that is stored."""
    upcast: Upcaster
    gives: Sequence[type[Message]]
    """The types that ``upcast`` returns; the type itself where it is only completed."""
    said: str = ""
    """What else decides what it returns, so that a change of it can be told."""
    completes: bool = False
    """Whether the type stays what it is."""


@dataclass(frozen=True)
class Upcast:
    """One line of the table of a :class:`~twinlog.Schema`, made by one of its methods.

        Schema([Upcast.rename(OrderMade, OrderCreated, {"customer": "customer_id"}), Upcast.drop(OrderPrinted)])

    Each raises ConfigurationError for a type or a field that does not exist.
    """

    line: str
    """How it is told in errors."""
    readings: Sequence[Reading]

    @staticmethod
    def rename(
        old: type[Old],
        new: type[Message],
        fields: Mapping[str, str] | None = None,
        *,
        without: Sequence[str] = (),
        by: Callable[[Old], Message] | None = None,
    ) -> Upcast:
        """A new name or a new shape: each old event is read as one new event.

        Fields of the same name and type are copied. ``fields``: old name → new name; ``without``: the fields to leave
        out. ``by`` makes the new message instead, if that takes more than copying.
        """
        line = f"Upcast.rename({_name(old)}, {_name(new)})"
        _refuse_unknown(line, [old, new])
        return Upcast(line, [_one(line, old, new, fields or {}, without, by)])

    @staticmethod
    def split(
        old: type[Old], into: Sequence[type[Message]], by: Callable[[Old], Iterable[Message]]
    ) -> Upcast:
        """Each old event is read as several: they share its position, version and id, and follow each other.

        ``by`` makes them, in a list or one by one; it may leave some out. ``into``: all types that it returns.
        """
        line = f"Upcast.split({_name(old)}, {_names(_types(into))})"
        if isinstance(into, type):
            raise WrongUpcast(
                line=line, what="it names one type and not several; give a list, or use Upcast.rename"
            )
        _refuse_unknown(line, [old, *into])
        if not into:
            raise WrongUpcast(line=line, what="there is no type to split it into; use Upcast.drop")
        _refuse_other(line, by)
        return Upcast(line, [Reading(old, by, into, told(by))])

    @staticmethod
    def merge(olds: Mapping[type[Message], Callable[[Any], Message] | None], into: type[Message]) -> Upcast:
        """Several types became one: each old event is read as one event of the type ``into``.

        ``olds``: old type → what makes the new message from an old one; None: fields of one name and type are copied.
        """
        line = f"Upcast.merge({_names([*olds])}, {_name(into)})"
        given: object = olds
        if not isinstance(given, Mapping):
            what = "the old types have to be a mapping to functions, or to None"
            raise WrongUpcast(line=line, what=f"{what}, such as {{Sent: None, Posted: None}}")
        _refuse_unknown(line, [*olds, into])
        if len(olds) < 2:
            raise WrongUpcast(line=line, what="it merges fewer than two types; use Upcast.rename")
        return Upcast(line, [_one(line, old, into, {}, (), by) for old, by in olds.items()])

    @staticmethod
    def default(of: type[Message], **values: Any) -> Upcast:
        """Values of fields for events that were stored before the fields existed.

        A value is given as the field takes it, or as a function from the message. The field must know whether it is set
        (``optional``, or a message), or be an enum, whose 0 then counts as not set.
        """
        line = f"Upcast.default({_name(of)})"
        _refuse_unknown(line, [of])
        if not values:
            raise WrongUpcast(line=line, what="it names no field; give a value, as in currency=…")
        for field, value in values.items():
            _refuse_default(line, of, field, value)
        said = {field: told(value) for field, value in values.items()}
        return Upcast(line, [Reading(of, _completing(values), [of], json.dumps(said, sort_keys=True), True)])

    @staticmethod
    def drop(old: type[Message]) -> Upcast:
        """A type that has lost its meaning: its events stay in the log, and readers are spared them."""
        line = f"Upcast.drop({_name(old)})"
        _refuse_unknown(line, [old])
        return Upcast(line, [Reading(old, lambda _old: (), ())])


def table_of(upcasts: Mapping[type[Message], tuple[Upcaster, Sequence[type[Message]]]]) -> Sequence[Upcast]:
    """The lines of a table in its short form: old type → (function, the types that it returns)."""
    lines = []
    for old, said in upcasts.items():
        line = f"Upcaster of {_name(old)}"
        upcast, gives = _pair(line, said)
        _refuse_unknown(line, [old, *gives])
        lines.append(Upcast(line, [Reading(old, upcast, gives, told(upcast))]))
    return lines


def _pair(line: str, said: Any) -> tuple[Upcaster, Sequence[type[Message]]]:
    if not isinstance(said, tuple | list) or len(said) != 2 or isinstance(said[1], type | str):
        what = "it needs a function and the types that it returns, such as (renamed, [RoomAdded])"
        raise WrongUpcast(line=line, what=what)
    _refuse_other(line, said[0])
    return said[0], said[1]


def _refuse_other(line: str, by: Any) -> None:
    """What makes messages has to be a function, of the old one, that answers at once."""
    if not callable(by) or isinstance(by, type):
        raise WrongUpcast(line=line, what=f"{shown(by)} makes no message; give a function of the old one")
    if what := not_plain(by, may_yield=True):
        raise WrongUpcast(line=line, what=f"its function {what}")
    if not takes(by, 1):
        raise WrongUpcast(
            line=line, what="its function cannot be called with 1 argument; let it take the old message"
        )


def _types(of: Any) -> Sequence[Any]:
    """Several types, also where one is given by itself: it then is refused by name."""
    return [of] if isinstance(of, type) else of


def fingerprint(readings: Sequence[Reading]) -> str:
    """Names a table, as 16 hexadecimal digits: another one may come to other states. Empty for an empty one."""
    if not readings:
        return ""
    said = sorted([_name(each.of), [_name(new) for new in each.gives], each.said] for each in readings)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _one(
    line: str,
    old: type[Message],
    new: type[Message],
    fields: Mapping[str, str],
    without: Sequence[str],
    by: Callable[[Any], Message] | None,
) -> Reading:
    if by is None:
        plan = _plan(line, old, new, fields, without)
        return Reading(old, lambda message: [_copied(message, new, plan)], [new], json.dumps(plan))
    if fields or without:
        raise WrongUpcast(line=line, what="by= makes the whole message; leave the names of fields out")
    _refuse_other(line, by)
    return Reading(old, lambda message: [by(message)], [new], told(by))


Plan = Sequence[tuple[str, str]]
"""Old field, new field."""


def _plan(
    line: str, old: type[Message], new: type[Message], fields: Mapping[str, str], without: Sequence[str]
) -> Plan:
    for name in (*fields, *without):
        _field(line, old, name)
    plan = []
    for field in old.DESCRIPTOR.fields:
        if field.name in without:
            continue
        target = fields.get(field.name, field.name)
        if target not in new.DESCRIPTOR.fields_by_name and field.name not in fields:
            what = f"{_name(new)} has no field {field.name!r} as {_name(old)} has; name its new one, or leave it out "
            raise WrongUpcast(line=line, what=f"{what}with without=[{field.name!r}]")
        one, other = kind_of(field), kind_of(_field(line, new, target))
        if one != other:
            what = f"{field.name} is {one} in {_name(old)}, and {target} is {other} in {_name(new)}"
            raise WrongUpcast(line=line, what=f"{what}; say with by= how to make one of the other")
        plan.append((field.name, target))
    if twice := {name for _, name in plan if [target for _, target in plan].count(name) > 1}:
        what = f"two fields become {', '.join(sorted(twice))}; say with by= what is made of them"
        raise WrongUpcast(line=line, what=what)
    return plan


def _copied(message: Message, new: type[Message], plan: Plan) -> Message:
    made = new()
    of = message.DESCRIPTOR.fields_by_name
    for source, target in plan:
        field = of[source]
        if is_repeated(field):
            getattr(made, target).MergeFrom(getattr(message, source))
        elif field.has_presence and not message.HasField(source):
            continue
        elif field.message_type:
            getattr(made, target).CopyFrom(getattr(message, source))
        else:
            setattr(made, target, getattr(message, source))
    return made


def _completing(values: Mapping[str, Any]) -> Upcaster:
    def complete(message: Message) -> Sequence[Message]:
        for name, value in values.items():
            if _is_missing(message, name):
                _fill(message, name, value(message) if callable(value) else value)
        return [message]

    return complete


def _is_missing(message: Message, name: str) -> bool:
    if message.DESCRIPTOR.fields_by_name[name].has_presence:
        return not message.HasField(name)
    return not getattr(message, name)


def _fill(message: Message, name: str, value: Any) -> None:
    if message.DESCRIPTOR.fields_by_name[name].message_type:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _refuse_default(line: str, of: type[Message], name: str, value: Any) -> None:
    field = _field(line, of, name)
    if is_repeated(field) or not (field.has_presence or field.enum_type):
        what = f"whether an event has {name} cannot be told from its value; declare it optional in the proto"
        raise WrongUpcast(line=line, what=what)
    if callable(value):
        return
    try:
        _fill(of(), name, value)
    except (TypeError, ValueError) as error:
        raise WrongUpcast(line=line, what=f"{name} is {kind_of(field)}, not {value!r}") from error


def _refuse_unknown(line: str, types: Sequence[Any]) -> None:
    for each in types:
        if not (isinstance(each, type) and issubclass(each, Message)):
            what = f"{each!r} is no message type; give the generated class"
            raise WrongUpcast(line=line, what=what)
        try:
            descriptor_pool.Default().FindMessageTypeByName(each.DESCRIPTOR.full_name)
        except KeyError as error:
            what = (
                f"{each.DESCRIPTOR.full_name} is in no proto that is imported, so that it could not be read"
            )
            raise WrongUpcast(line=line, what=what) from error


def _field(line: str, of: type[Message], name: str) -> Any:
    try:
        return of.DESCRIPTOR.fields_by_name[name]
    except KeyError as error:
        fields = ", ".join(of.DESCRIPTOR.fields_by_name) or "none"
        raise WrongUpcast(line=line, what=f"{_name(of)} has no field {name!r}; it has {fields}") from error


def kind_of(field: Any) -> str:
    """The type of a field in words, such as `repeated string`."""
    type = field.message_type or field.enum_type
    said = type.full_name if type else _SCALARS[field.type]
    if field.message_type and field.message_type.GetOptions().map_entry:
        said = "map of {} to {}".format(*map(kind_of, field.message_type.fields))
    elif is_repeated(field):
        said = f"repeated {said}"
    return said


_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def _name(of: Any) -> str:
    return of.DESCRIPTOR.full_name if hasattr(of, "DESCRIPTOR") else repr(of)


def _names(of: Sequence[Any]) -> str:
    return f"[{', '.join(map(_name, of))}]"
