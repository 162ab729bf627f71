"""The measure of what an adopter needs: the hotel's size, and what it imports. tests/packaging runs its tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests import mypy_cache
from tests.examples.conftest import HOTEL, Example
from tests.examples.lines import by_hand, files

_MOST_LINES = 900
_PUBLIC = {"twinlog", "twinlog.rpc", "twinlog.testing", "twinlog.dev", "twinlog.cli"}


def test_it_takes_at_most_900_lines(tmp_path: Path) -> None:
    lines = by_hand(tmp_path)
    assert lines.total() <= _MOST_LINES, lines


def test_it_uses_public_names_only() -> None:
    for file in files():
        if file.suffix == ".py":
            for module, name in imported(HOTEL / file):
                assert module in _PUBLIC, f"{file} imports {module}"
                assert name in dir(import_module(module)), f"{file} imports {name} of {module}"


def imported(file: Path) -> Iterator[tuple[str, str]]:
    """What a file imports of Twinlog: modules and names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "twinlog":
            yield from ((node.module or "", each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            assert not [each.name for each in node.names if each.name.startswith("twinlog")], file


def test_it_passes_its_checks(hotel: Example) -> None:
    hotel.run("ruff", "check", "--no-cache", ".")
    hotel.run("ruff", "format", "--check", "--no-cache", ".")
    with mypy_cache.shared() as cache:
        hotel.run("mypy", "--cache-dir", cache)
    hotel.twinlog("simulate", "--seeds", "5")
