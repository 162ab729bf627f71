"""What a test gives as events is looked at first: what nothing reads would pass for nothing that happens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from google.protobuf.message import Message

from twinlog.model.forms import is_event, shown


def events(where: str, given: Sequence[Any]) -> Sequence[Any]:
    """The events that were given; ``where`` names what they were given to. Raises TypeError for anything else."""
    for each in given:
        if is_event(each):
            raise TypeError(f"{where} is given {shown(each)}; give a message, as {each.__name__}(…) makes it")
        if isinstance(each, list | tuple):
            raise TypeError(
                f"{where} is given a {type(each).__name__}; give its members, as {where}(*events)"
            )
        if not isinstance(each, Message):
            raise TypeError(f"{where} is given {shown(each)}; give messages, such as RoomAdded(…)")
    return given


def one_of(where: str, known: Collection[type[Message]], given: Any, what: str) -> Any:
    """The event that was given, which is of one of the known types. Raises TypeError."""
    [event] = events(where, [given])
    if type(event) not in known:
        names = ", ".join(sorted(each.DESCRIPTOR.name for each in known))
        raise TypeError(f"{where} is given {shown(event)}, and {what} {names}")
    return event
