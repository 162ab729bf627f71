"""Errors that may quote personal texts: they are stored and logged without their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message

from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import TwinlogError, text_of
from twinlog.model.messages import message_class
from twinlog.model.personal import FIELDS_OF, HOLDING, OWN_TYPES, has_own

_SHORTEST_WORD = 2


def holds(aggregate: AnyAggregate) -> bool:
    """Whether an aggregate's events hold personal fields, as far as it says which they are, or they were seen."""
    return aggregate.name in HOLDING or any(has_own(e.DESCRIPTOR.full_name) for e in aggregate.events)


def decides_personal(
    aggregate: AnyAggregate, command: object = None, error: BaseException | None = None
) -> bool:
    """Whether an error of an aggregate may quote personal texts: of its state, or of the command that it is over.

    Where its state keeps none, and where it was not seen yet to hold any, it may where a word of the command is in the
    error's text.
    """
    if holds(aggregate) and aggregate.keeps_personal:
        return True
    return bool(OWN_TYPES) and _may_hold(aggregate) and _quotes(text_of(error), command)


def _may_hold(aggregate: AnyAggregate) -> bool:
    """Whether an aggregate may hold something personal: it tells no types, or one that may pack any."""
    types = [each.DESCRIPTOR.full_name for each in aggregate.events]
    return not types or aggregate.name in HOLDING or any(FIELDS_OF[each] is not None for each in types)


def _quotes(text: str, command: object) -> bool:
    return any(word in text for word in _words_in(command))


def _words_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from (word for word in value.split() if len(word) >= _SHORTEST_WORD)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in dataclass_fields(value):
            yield from _words_in(getattr(value, each.name))
    elif isinstance(value, Mapping):
        yield from _words_in([*value, *value.values()])
    elif isinstance(value, Packed):
        with suppress(KeyError, DecodeError):
            yield from _words_in(message_class(value.TypeName()).FromString(value.value))
    elif isinstance(value, Message):
        yield from _words_in([part for _, part in value.ListFields()])
    elif isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray):
        for part in value:
            yield from _words_in(part)


class TextWithheld(Exception):
    """Stands for an error whose text may hold personal texts: it has its type, and where it came from."""

    def __init__(self, type: str) -> None:
        super().__init__(f"{type}, whose text is left out: it may hold personal fields")


def withheld(error: BaseException, personal: bool) -> BaseException:
    """An error as it may be stored and logged: of what handled personal fields, without its text.

    Twinlog's own errors, and those that a domain derives from them, are words for people, and stay; what led to them
    is left without its text as well.
    """
    if not personal or isinstance(error, TextWithheld):
        return error
    if isinstance(error, TwinlogError):
        _withhold_causes(error)
        return error
    shown = TextWithheld(type(error).__name__)
    shown.__traceback__ = error.__traceback__
    return shown


def _withhold_causes(error: BaseException) -> None:
    if (cause := error.__cause__) and (shown := withheld(cause, True)) is not cause:
        error.__cause__ = shown
    if (context := error.__context__) and (shown := withheld(context, True)) is not context:
        error.__context__ = shown
