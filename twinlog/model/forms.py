"""The form of what a domain declares: each part is what it is said to be, or is refused where it is made, by name.

A part of another form shows late and far from its line: as an event that is set aside, a stream that cannot be read, or
not at all. What a sound declaration may not say besides is refused at start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog.model.errors import ConfigurationError

_LONGEST_NAME = 200
MOST_DAYS = 730
"""Any longer time is a slip; beyond it, doubled delays leave the calendar."""


class WrongForm(ConfigurationError, ValueError):
    """{of}: {what}"""

    reason = "WRONG_FORM"


class WrongValue(ValueError):
    """A value that a program makes as it runs is none; where an event led to it, that event is set aside."""


class Form(NamedTuple):
    """What a part has to be."""

    holds: Callable[[Any], bool]
    wanted: str
    """In words, after "give"."""


Forms = Mapping[str, Form]
"""By part."""


def refuse_other(of: str, declared: object, forms: Forms) -> None:
    """Raises WrongForm for the first part of another form; ``of`` names what is declared, for people."""
    refuse(of, wrong_parts(declared, forms))


def refuse_value(of: str, value: object, forms: Forms) -> None:
    """The same of what a program makes as it runs. Raises WrongValue."""
    if what := next(wrong_parts(value, forms), ""):
        raise WrongValue(f"{of}: {what}")


def wrong_parts(declared: object, forms: Forms) -> Iterator[str]:
    """What is wrong with the parts of something declared: of an object, or of a dictionary with their names."""
    for part, (holds, wanted) in forms.items():
        given = declared[part] if isinstance(declared, dict) else getattr(declared, part)
        if not holds(given):
            yield f"{part} is {shown(given)}; give {wanted}"


def wrong_events(part: str, rules: Mapping[Any, object]) -> Iterator[str]:
    """What is wrong with the events that a table names."""
    for event in rules:
        if not is_event(event):
            yield f"{part} names {shown(event)}; name events by their generated classes, as {{RoomAdded: added}}"


def wrong_functions(part: str, rules: Mapping[Any, object]) -> Iterator[str]:
    """What is wrong with the functions in a table."""
    for event, rule in rules.items():
        if not _is_function(rule):
            yield f"{part} has {shown(rule)} for {event.DESCRIPTOR.full_name}; give a function"


def wrong_rules(part: str, rules: Mapping[Any, object]) -> Iterator[str]:
    """What is wrong with a table from events to functions."""
    yield from wrong_events(part, rules)
    yield from wrong_functions(part, rules)


def refuse(of: str, wrong: Iterator[str]) -> None:
    """Raises WrongForm for the first of what is wrong, if anything is."""
    if what := next(wrong, ""):
        raise WrongForm(of=of, what=what)


def shown(given: object) -> str:
    """What was given, in a few words."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, Message):
        return f"a message {given.DESCRIPTOR.full_name}"
    if given is None or isinstance(given, str | int | float | timedelta):
        text = repr(given)
        return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"
    if callable(given) and hasattr(given, "__qualname__"):
        return f"the function {given.__qualname__}"
    name = type(given).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def is_event(given: object) -> bool:
    """Whether it is the generated class of a message."""
    return (
        isinstance(given, type)
        and issubclass(given, Message)
        and getattr(given, "DESCRIPTOR", None) is not None
    )


def _is_name(given: object) -> bool:
    return isinstance(given, str) and given.isprintable() and len(given) <= _LONGEST_NAME


def _are(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda given: isinstance(given, Collection) and not isinstance(given, str) and all(map(one, given))


def _is_function(given: object) -> bool:
    return callable(given) and not is_event(given)


def _is_duration(given: object) -> bool:
    return isinstance(given, timedelta) and timedelta() <= given <= timedelta(days=MOST_DAYS)


def optional(form: Form) -> Form:
    """The same, or None."""
    return Form(lambda given: given is None or form.holds(given), f"{form.wanted}, or None")


def whole(least: int, most: int = 2**31 - 1) -> Form:
    """A whole number between two, both included."""

    def holds(given: Any) -> bool:
        return isinstance(given, int) and not isinstance(given, bool) and least <= given <= most

    return Form(holds, f"a whole number from {least} to {most:,}")


def function_of(arguments: str) -> Form:
    """A function; ``arguments`` says of what."""
    return Form(_is_function, f"a function of {arguments}")


def several(of: type, words: str) -> Form:
    """A sequence of instances of a class; ``words`` says of which."""
    return Form(_are(lambda one: isinstance(one, of)), f"{words}, in a list or tuple")


def one(of: type, words: str) -> Form:
    """An instance of a class."""
    return Form(lambda given: isinstance(given, of), words)


NAME = Form(_is_name, f"a text of at most {_LONGEST_NAME} printable characters")
TEXT = Form(lambda given: isinstance(given, str), "a text")
MOMENT = Form(
    lambda given: isinstance(given, datetime) and given.tzinfo is not None,
    "a datetime with a time zone, such as service.clock.now()",
)
SECONDS = Form(
    lambda given: isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < math.inf,
    "seconds, from 0",
)
FLAG = Form(lambda given: isinstance(given, bool), "True or False")
DURATION = Form(_is_duration, f"a timedelta, such as timedelta(seconds=10), of at most {MOST_DAYS} days")
EVENT = Form(is_event, "the generated class of a message, such as RoomAdded")
EVENTS = Form(_are(is_event), "the generated classes of messages, in a list or tuple, such as [RoomAdded]")
ANY_EVENTS = Form(
    _are(lambda each: each is Message or is_event(each)),
    "the generated classes of messages, in a list or tuple, such as [RoomAdded], or [Message]",
)
RULES = Form(
    lambda given: isinstance(given, Mapping), "a mapping from events to functions, as {RoomAdded: added}"
)
ERRORS = Form(
    _are(lambda each: isinstance(each, type) and issubclass(each, Exception)),
    "classes of exceptions, in a tuple, such as (ConnectionError,)",
)
DURATION_OR_TIME = Form(
    lambda given: (
        (isinstance(given, timedelta) and given <= timedelta(days=MOST_DAYS)) or _is_function(given)
    ),
    f"a timedelta of at most {MOST_DAYS} days, or a function of the trigger",
)
