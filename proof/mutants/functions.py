"""A mutant in a process that has imported the module already: its functions are given their new code where they are."""

from __future__ import annotations

import ast
import gc
import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType

Functions = Mapping[tuple[str, str, int], Sequence[FunctionType]]
"""By file, qualified name and first line."""


def functions() -> Functions:
    """All that there are now."""
    gc.unfreeze()  # The collector lists nothing that is frozen.
    found: defaultdict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            found[_key(each.__code__)].append(each)
    gc.freeze()
    return found


def replace(known: Functions, file: str, sound: ast.Module, changed: ast.Module) -> bool:
    """False where new code of functions is not all that it takes: what a module or a class holds is made once."""
    old, new = ([*_walk(compile(tree, file, "exec"))] for tree in (sound, changed))
    if len(old) != len(new):
        return False
    pairs = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    for before, after in pairs:
        if not before.co_flags & inspect.CO_OPTIMIZED and _own(before) != _own(after):
            return False
        if before.co_freevars != after.co_freevars:
            return False
    for before, after in pairs:
        for function in known.get(_key(before), ()):
            function.__code__ = after
    return True


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _walk(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _walk(each)


def _own(code: CodeType) -> object:
    """What a module or a class does itself, beside making functions."""
    constants = [(type(each), each) for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_code, code.co_names, constants
