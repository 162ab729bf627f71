"""Changed copies of states, without the cost of ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = ["changed"]

if TYPE_CHECKING:
    from dataclasses import replace as changed  # so that the names and types of fields are checked
else:

    def changed(state: Any, /, **changes: Any) -> Any:
        """A copy of a frozen dataclass with slots, with other values in some fields.

        As ``dataclasses.replace``, in a quarter of its time: a saga's fold makes ten such copies. Neither ``__init__``
        nor ``__post_init__`` is run. Raises KeyError for a field that there is not.
        """
        layout = _layout(type(state))
        values = list(layout.values_of(state))
        for name, value in changes.items():
            values[layout.places[name]] = value
        copy = object.__new__(type(state))
        for put, value in zip(layout.setters, values, strict=True):
            put(copy, value)
        return copy


class _Layout(NamedTuple):
    """How the values of a class's slots are read and set."""

    values_of: Callable[[Any], tuple[Any, ...]]
    places: Mapping[str, int]
    setters: Sequence[Callable[[Any, Any], None]]


@cache
def _layout(kind: type) -> _Layout:
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    places = {name: place for place, name in enumerate(names)}
    return _Layout(attrgetter(*names), places, [getattr(kind, name).__set__ for name in names])
