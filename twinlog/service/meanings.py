"""What stands under the fields of a class, as their documentation."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise


def meaning(kind: type, field: str) -> str:
    """The docstring under a field, in the class or in the nearest base that has one; "" where none is found.

    It is read from the source, when it is first asked for: that takes as long as many an import, and a process that
    starts well shows none.
    """
    return next((found[field] for base in kind.__mro__ if field in (found := _docstrings(base))), "")


@cache
def _docstrings(kind: type) -> Mapping[str, str]:
    """Of the fields of this class alone, by the field's name; empty where its source is missing."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError, SyntaxError):
        return {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.id: inspect.cleandoc(text)
        for statement, below in pairwise(definition.body)
        if isinstance(statement, ast.AnnAssign) and isinstance(field := statement.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(text := below.value.value, str)
    }
