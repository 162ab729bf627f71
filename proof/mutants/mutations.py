"""The small changes that a module can suffer, each with a name that outlives changes elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence, Set
from copy import copy
from typing import Any, NamedTuple

_TURNED = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn}
_OPERATORS: dict[Any, Any] = {
    **_TURNED,
    **{new: old for old, new in _TURNED.items()},
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_TURNED_BY_THEMSELVES = ast.Compare | ast.Constant | ast.UnaryOp
_REMOVABLE = ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete
_UNTOUCHED_KEYWORDS = ("strict", "deterministic", "exc_info", "frozen", "slots", "eq")
_FOR_PEOPLE = re.compile(
    r"structlog\.|log\.(debug|info|warning|error)\(|def (_say|__repr__)|if TYPE_CHECKING|assert "
)
_DEFINITION = re.compile(r" *(?:async )?(?:def|class) (\w+)")


class Mutant(NamedTuple):
    """A module with one small change; its other lines keep their numbers."""

    path: str
    line: int
    name: str
    tree: ast.Module


def count(source: str) -> int:
    """How many mutants a module has."""
    change = _Change()
    change.visit(ast.parse(source))
    return change.count


def mutant(path: str, source: str, number: int) -> Mutant:
    """One of them, from 1."""
    change = _Change(number)
    before = ast.unparse(ast.parse(source)).splitlines()
    tree = ast.fix_missing_locations(change.visit(ast.parse(source)))
    after = ast.unparse(tree).splitlines()
    at = next(line for line, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    name = f"{path} {_definition(before[: at + 1])}: {before[at].strip()} → {after[at].strip()}"
    return Mutant(path, change.line, name, tree)


def by_hand(path: str, source: str, old: str, new: str, breaks: str) -> Mutant:
    """A mutant that is written down. Raises ValueError unless it fits."""
    text = replaced(path, source, old, new)
    lines = enumerate(zip(source.splitlines(), text.splitlines(), strict=True), 1)
    line = next(number for number, (before, after) in lines if before != after)
    return Mutant(path, line, f"{path} by hand: {breaks}", ast.parse(text))


def replaced(path: str, source: str, old: str, new: str) -> str:
    """The source with `new` in place of `old`. Raises ValueError unless that is there once, and has as many lines."""
    if source.count(old) != 1 or old.count("\n") != new.count("\n"):
        raise ValueError(f"{path} has not once, in as many lines: {old}")
    return source.replace(old, new)


def places(path: str, source: str) -> Set[str]:
    """How the names of a module's mutants begin, up to the arrow."""
    lines = ast.unparse(ast.parse(source)).splitlines()
    return {f"{path} {_definition(lines[: at + 1])}: {line.strip()}" for at, line in enumerate(lines)}


def _definition(lines: Sequence[str]) -> str:
    """The last that is begun in these lines."""
    return next((found[1] for line in reversed(lines) if (found := _DEFINITION.match(line))), "")


class _Change(ast.NodeTransformer):
    """Counts the changes of a module, and makes the one that is wanted."""

    def __init__(self, wanted: int = 0) -> None:
        self.count, self.line = 0, 0
        self._wanted = wanted

    def visit(self, node: Any) -> Any:
        if isinstance(node, ast.keyword) and node.arg in _UNTOUCHED_KEYWORDS:
            return node
        if isinstance(node, ast.stmt) and _FOR_PEOPLE.match(ast.unparse(node)):
            return node
        node = self.generic_visit(node)
        for changed in _changes(node):
            self.count += 1
            if self.count == self._wanted:
                self.line = node.lineno
                return changed
        return node


def _changes(node: Any) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _OPERATORS:
            yield ast.Compare(node.left, [_OPERATORS[type(op)]()], node.comparators)
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(node.op) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(node.op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.While(test=test) if not isinstance(test, _TURNED_BY_THEMSELVES):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) if not isinstance(node.value, ast.Name):
            yield ast.Pass()
    if isinstance(node, _REMOVABLE):
        yield ast.Pass()


def _with(node: Any, **changes: Any) -> Any:
    changed = copy(node)
    for field, value in changes.items():
        setattr(changed, field, value)
    return changed
