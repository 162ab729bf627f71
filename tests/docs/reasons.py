"""The reasons of errors, as the code gives them: docs/reference/error-reasons.md has each."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from stack.topology import ROOT
from twinlog import TwinlogError
from twinlog.rpc import CODES

FOLDERS = ("twinlog", "order_svc", "customer_svc", "saga_orchestrator", "projector")


def errors() -> Iterator[type[TwinlogError]]:
    """Every class of error that has a reason of its own."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _in(path)


def codes() -> Mapping[str, str]:
    """The gRPC code of each reason."""
    found = dict[str, str]()
    for error in errors():
        code = next(CODES[branch] for branch in error.__mro__ if branch in CODES)
        assert found.setdefault(error.reason, code.name) == code.name, f"{error.reason} has two codes"
    return found


def _in(path: Path) -> Iterator[type[TwinlogError]]:
    source = path.read_text()
    if "reason" not in source:
        return
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            found = getattr(import_module(name.removesuffix(".__init__")), node.name, None)
            if isinstance(found, type) and issubclass(found, TwinlogError) and "reason" in vars(found):
                yield found
