"""What can be told of a value or a function, so that another one is told as another, in every process alike.

A function is told by its code, by what it closes over, and by the constants and the functions of its own package that
it names. What it reaches through modules, classes and other libraries is not told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from inspect import unwrap
from types import CodeType, FunctionType
from typing import Any

from google.protobuf.message import Message

from twinlog.model.functions import called_by

_PLAIN = (str, bytes, int, float, bool, type(None), Decimal, date, timedelta, Enum)


def told(value: Any) -> str:
    """What can be told of a value or a function; empty: nothing."""
    seen: dict[int, Any] = {}

    def tell(value: Any) -> str:
        if isinstance(value, Message):
            return value.SerializeToString(deterministic=True).hex()
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) in seen:  # a function that calls itself, or one that several call
            return ""
        seen[id(value)] = value
        return json.dumps(said) if (said := [*_parts(value, tell)]) else ""

    return tell(value)


def _parts(value: Any, tell: Callable[[Any], str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from sorted(f"{tell(key)}: {tell(of)}" for key, of in value.items())
    elif isinstance(value, list | tuple):
        yield from map(tell, value)
    elif isinstance(value, set | frozenset):
        yield from sorted(repr(each) for each in value if isinstance(each, _PLAIN))
    elif isinstance(value, partial):
        yield from map(tell, (value.func, value.args, value.keywords))
    elif isinstance(function := getattr(value, "__func__", value), FunctionType):
        yield from _in_code(function.__code__)
        yield from filter(None, map(tell, _beside(function)))
        if (owner := getattr(value, "__self__", None)) is not None:
            yield tell(owner)
    elif isinstance(value, type):
        return
    elif callable(value) and (function := unwrap(value)) is not value:
        yield tell(function)
    elif callable(value) or is_dataclass(value):
        yield from map(tell, (called_by(value) if callable(value) else None, getattr(value, "__dict__", {})))


def _in_code(code: CodeType) -> Iterator[str]:
    """Without names of files and numbers of lines."""
    yield from (code.co_code.hex(), repr(code.co_names))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _in_code(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        elif isinstance(constant, (tuple, *_PLAIN)):
            yield repr(constant)


def _beside(function: FunctionType) -> Iterator[Any]:
    """What a function has besides its code."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not filled yet
            continue
    for name in _names(function.__code__):
        found = None if name.startswith("__") else function.__globals__.get(name)
        if found is not None and (_package(found) == _package(function) or not callable(found)):
            yield found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _package(of: Any) -> str:
    return str(getattr(of, "__module__", "")).partition(".")[0]
