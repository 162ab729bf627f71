"""Who may import what of the library: services, their tools and the documentation use its public names."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stack.topology import ROOT
from tests.public.surface import Import, definitions, imports

SERVICES = ["order_svc", "customer_svc", "saga_orchestrator", "projector"]
TOOLS = ["stack", "proof"]
SIMULATED = ["tests/simulation", "tests/hotel"]
EXAMPLES = ROOT / "examples"
PLANTS = {"bugs.py", "switch.py"}
"""What takes parts of the kernel away has to know them."""
FOR_SERVICES = {"twinlog", "twinlog.consume", "twinlog.rpc"}
FOR_TESTS = FOR_SERVICES | {"twinlog.testing", "twinlog.testing.conformance", "twinlog.audit"}
FOR_PAGES = FOR_SERVICES | {"twinlog.console"}
"""What adds pages to the console, as the documentation shows it; services themselves need none of it."""
FOR_TOOLS = FOR_TESTS | FOR_PAGES | {"twinlog.testing.internals", "twinlog.dev", "twinlog.cli"}
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
_FILE = re.compile(r"# (\S+\.py)\n")


class Source(NamedTuple):
    """A module, or a block of a page."""

    name: str
    text: str
    allowed: set[str]


def sources() -> Iterator[Source]:
    for folders, allowed in ((SERVICES, FOR_SERVICES), (TOOLS, FOR_TOOLS)):
        for folder in folders:
            for path in sorted((ROOT / folder).rglob("*.py")):
                if path.name not in PLANTS:
                    yield Source(str(path.relative_to(ROOT)), path.read_text(), allowed)
    for folder in SIMULATED:
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name not in PLANTS:
                yield Source(str(path.relative_to(ROOT)), path.read_text(), FOR_TESTS)
    for path in sorted(EXAMPLES.rglob("*.py")):
        yield Source(
            str(path.relative_to(ROOT)), path.read_text(), FOR_TESTS if "tests" in path.parts else FOR_PAGES
        )
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in _BLOCK.findall(page.read_text()):
            file = _FILE.match(block)
            name = Path(file[1]) if file else Path("block")
            allowed = FOR_TESTS if "tests" in name.parts else FOR_PAGES
            yield Source(f"{page.relative_to(ROOT)}: {name}", block, allowed)


def is_public(used: Import, allowed: set[str]) -> bool:
    """Whether a module may be imported from, and exports the name."""
    if used.module.startswith("twinlog.v1"):
        return True
    if used.module not in allowed:
        return False
    return not used.name or used.name in importlib.import_module(used.module).__all__


def test_only_public_names_are_imported() -> None:
    found = list(sources())
    assert {source.name.partition("/")[0] for source in found} >= {
        *SERVICES,
        *TOOLS,
        "tests",
        "examples",
        "docs",
    }
    for source in found:
        of_library = [used for used in imports(source.text) if used.module.split(".")[0] == "twinlog"]
        assert not [used for used in of_library if not is_public(used, source.allowed)], source.name


def test_rooms_import_each_other_by_their_modules() -> None:
    """A public name is found when it is asked for, so import-linter would not see from which room it comes."""
    upward = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / "twinlog").rglob("*.py")
        if (names := public_names_of(path.read_text()))
    }
    assert not upward


def test_pure_modules_import_names_of_the_model_only() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = [each["source_modules"] for each in contracts if each["name"].startswith("Domains and")]
    model = {
        name
        for name, at in definitions("twinlog").items()
        if at.source.is_relative_to(ROOT / "twinlog/model")
    }
    for module in pure:
        at = ROOT.joinpath(*module.split("."))
        for path in at.rglob("*.py") if at.is_dir() else [at.with_suffix(".py")]:
            assert public_names_of(path.read_text()) <= model, path


def public_names_of(source: str) -> set[str]:
    """Those that a module takes from the package `twinlog` itself."""
    asked = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "twinlog"
    }
    imported = {used.name for used in imports(source) if used.module == "twinlog"}
    return (asked | imported) & set(importlib.import_module("twinlog").__all__)


@pytest.mark.parametrize(
    "text",
    [
        "import twinlog.log.writer",
        "from twinlog.log.writer import Writer",
        "from twinlog import log",
        "from twinlog.rpc import host",
        "from twinlog.testing.internals import Pool",
        "def late():\n    from twinlog.model.errors import Overloaded",
    ],
)
def test_what_is_private_is_found(text: str) -> None:
    assert not any(is_public(used, FOR_TESTS) for used in imports(text))
