"""Mistakes in functions that a domain gives: they are async, or take other arguments than they are called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import (
    CO_VARARGS,
    isasyncgenfunction,
    iscoroutinefunction,
    isfunction,
    isgeneratorfunction,
    signature,
)
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

if TYPE_CHECKING:
    from twinlog.model.aggregate import AnyAggregate

_PARTS = (
    (("decide",), ("the state", "a command or event"), True),
    (("evolve",), ("the state", "a command or event"), False),
    (("partition_key", "due"), ("the state",), False),
    (("on_due",), ("the state", "the time"), False),
)
"""Functions of an aggregate, what each is given, and whether it may yield its results."""


def named(rules: Mapping[type[Message], Callable[..., Any]]) -> Mapping[str, Callable[..., Any]]:
    """The rules of a table, by what a message calls them."""
    return {f"the rule of {event.DESCRIPTOR.full_name}": rule for event, rule in rules.items()}


def in_parts(aggregate: AnyAggregate) -> Iterator[str]:
    """What is wrong with the functions of an aggregate."""
    for parts, arguments, may_yield in _PARTS:
        functions = {part: getattr(aggregate, part) for part in parts}
        yield from in_functions(f"aggregate {aggregate.name!r}", functions, arguments, may_yield=may_yield)


def in_functions(
    of: str,
    functions: Mapping[str, Callable[..., Any]],
    arguments: Sequence[str],
    *,
    may_yield: bool = False,
) -> Iterator[str]:
    """What is wrong with functions that decide or fold; ``arguments``: what each is given, in words.

    ``may_yield``: whether one that yields several results gives them as well as one that returns them.
    """
    for name, function in functions.items():
        if what := not_plain(function, may_yield=may_yield):
            yield f"{of}: {name} {what}"
    yield from in_arguments(of, functions, arguments)


def not_plain(function: Callable[..., Any], *, may_yield: bool = False) -> str:
    """What is wrong with a function that has to answer at once, and what to do; empty: nothing."""
    called = called_by(function)
    if iscoroutinefunction(called) or isasyncgenfunction(called):
        return "is async, and what decides or folds is pure; make it a plain function"
    if isgeneratorfunction(called) and not may_yield:
        return "yields, so that it gives a generator in the place of a result; let it return"
    return ""


def called_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that is called: of an object that can be called, its method."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 - not a test
    return call if isfunction(call) else function


def in_arguments(
    of: str, functions: Mapping[str, Callable[..., Any]], arguments: Sequence[str]
) -> Iterator[str]:
    """The same of functions that may be async."""
    for name, function in functions.items():
        if not takes(function, len(arguments)):
            yield f"{of}: {name} cannot be called with {len(arguments)} arguments; let it take {', '.join(arguments)}"


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    if isfunction(function):  # without its signature, which takes long to make
        code = function.__code__
        least = code.co_argcount - len(function.__defaults__ or ())
        needs_names = code.co_kwonlyargcount > len(function.__kwdefaults__ or ())
        most = count if code.co_flags & CO_VARARGS else code.co_argcount
        return least <= count <= most and not needs_names
    try:
        signature(function).bind(*range(count))
    except ValueError:  # written in C, it does not say
        return True
    except TypeError:
        return False
    return True
