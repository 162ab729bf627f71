"""What is public, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stack.topology import ROOT

STUB = ROOT / "twinlog" / "__init__.pyi"
LAZY = {"twinlog": STUB, "twinlog.testing": STUB.parent / "testing" / "__init__.pyi"}
"""The stubs of packages that import their names when they are asked for."""


class Import(NamedTuple):
    """One name that a module imports."""

    module: str
    name: str
    """Empty for a whole module."""


class Definition(NamedTuple):
    """Where a public name comes from."""

    source: Path
    name: str


def imports(source: str) -> Iterator[Import]:
    """Every absolute import in a module, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (Import(node.module, alias.name) for alias in node.names)


def definitions(package: str) -> Mapping[str, Definition]:
    """Where each name that a package's ``__init__`` imports is defined; for a lazy package its stub counts."""
    folder = ROOT.joinpath(*package.split("."))
    source = LAZY.get(package, folder / "__init__.py")
    found = {}
    for node in ast.parse(source.read_text()).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        base = folder if node.level else ROOT
        module = base.joinpath(*node.module.split("."))
        for alias in node.names:
            submodule = module / f"{alias.name}.py"
            path = submodule if submodule.exists() else module.with_suffix(".py")
            found[alias.asname or alias.name] = Definition(path, alias.name)
    return found


def docstring(of: Definition) -> str:
    """The docstring of a class, function, constant or module; empty where it has none."""
    module = ast.parse(of.source.read_text())
    if of.source.stem == of.name:
        return ast.get_docstring(module) or ""
    for node, following in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == of.name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and of.name in _targets(node):
            return _text(following)
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and of.name in [alias.name for alias in node.names]:
            source = ROOT.joinpath(*str(node.module).split(".")).with_suffix(".py")
            return docstring(Definition(source, of.name))
    raise LookupError(of)


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    return ""
