"""The events that the code logs: docs/reference/log-events.md has each."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from stack.topology import ROOT
from tests.docs.reasons import FOLDERS
from twinlog.service import dump

_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
_CALLED = re.compile(rf"\.\s*(?:log|{'|'.join(_LEVELS)})\s*\(")


def events() -> Mapping[str, set[str]]:
    """The levels of every event, by its name."""
    found = defaultdict[str, set[str]](set)
    found[dump.EVENT].add("warning")  # written past the logger
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, level in _logged(path):
                found[name].add(level)
    return found


def _logged(path: Path) -> Iterator[tuple[str, str]]:
    """Each name that a file logs, and its level."""
    text = path.read_text()
    if not _CALLED.search(text):
        return  # to parse all files takes a second
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
            continue
        where = f"{path}:{call.lineno}"
        if level := _LEVELS.get(call.func.attr):
            yield _literal(call.args[0], where), level
        elif call.func.attr == "log" and len(call.args) > 1:
            for each in ast.walk(call.args[0]):
                if isinstance(each, ast.Name) and each.id.lower() in _LEVELS:
                    yield _literal(call.args[1], where), each.id.lower()


def _literal(name: ast.expr, where: str) -> str:
    assert isinstance(name, ast.Constant) and isinstance(name.value, str), (
        f"{where}: log a name as it stands on the page, and what varies as fields"
    )
    return name.value
