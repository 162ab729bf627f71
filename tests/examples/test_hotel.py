"""The measure of what an adopter needs: the hotel's own tests, its size, and what it imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from difflib import ndiff
from importlib import import_module
from pathlib import Path

from tests.examples.conftest import HOTEL, Example
from twinlog.cli import main

_MOST_LINES = 900
_PUBLIC = {"twinlog", "twinlog.rpc", "twinlog.testing", "twinlog.dev", "twinlog.cli"}
_KINDS = {".proto": "protos", ".py": "Python", ".sql": "SQL"}


def kind(file: Path) -> str:
    """What sort of file it is."""
    return "tests" if file.parts[0] == "tests" else _KINDS.get(file.suffix, "config")


def by_hand(new: Path) -> Counter[str]:
    """Lines by kind that are not blank, without those that `twinlog new` has written. The README is no code."""
    found: Counter[str] = Counter()
    for file in files():
        made = new / file
        before = made.read_text().splitlines() if made.exists() else []
        changed = [line for line in ndiff(before, (HOTEL / file).read_text().splitlines())]
        found[kind(file)] += sum(line.startswith("+ ") and bool(line[2:].strip()) for line in changed)
    return found


def files() -> Iterator[Path]:
    """Those of the hotel in git, besides its README."""
    listed = subprocess.run(["git", "ls-files"], cwd=HOTEL, check=True, capture_output=True, text=True)
    yield from (Path(line) for line in listed.stdout.splitlines() if line != "README.md")


def test_it_takes_at_most_900_lines(tmp_path: Path) -> None:
    assert main(["new", "hotel", "--in", str(tmp_path)]) == 0
    lines = by_hand(tmp_path / "hotel")
    assert lines.total() <= _MOST_LINES, lines
    print(*(f"{lines[each]} {each}" for each in lines), sep=", ")  # pytest -s shows them


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


def test_it_passes_its_tests_and_its_checks(hotel: Example) -> None:
    assert " passed" in hotel.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    hotel.run("ruff", "check", "--no-cache", ".")
    hotel.run("ruff", "format", "--check", "--no-cache", ".")
    hotel.run("mypy", "--cache-dir", str(hotel.folder.parent / "mypy"))
    hotel.twinlog("simulate", "--seeds", "5")
