"""What the pages name has to be there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest
from pydantic_settings import BaseSettings

from customer_svc.app import CustomerSettings
from order_svc.app import OrderSettings
from projector.app import QuerySettings
from saga_orchestrator.app import SagaSettings
from stack.topology import ROOT
from tests.docs.described import described
from tests.simulation.bugs import BUGS

PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
FOLDERS = "twinlog|protos|order_svc|customer_svc|saga_orchestrator|projector|stack|proof|tests|docs"
PUBLIC = {
    "twinlog",
    "twinlog.console",
    "twinlog.consume",
    "twinlog.rpc",
    "twinlog.testing",
    "twinlog.testing.conformance",
    "twinlog.dev",
    "twinlog.audit",
    "twinlog.testing.internals",
}


@cache
def page(name: str) -> str:
    return (ROOT / name).read_text()


def test_links_and_paths_lead_somewhere() -> None:
    assert not {name: missing for name in PAGES if (missing := [*_missing(name)])}


def _missing(name: str) -> Iterator[str]:
    """What a page names and is not there."""
    links = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page(name)))
    yield from (link for link in links if not ((ROOT / name).parent / link).exists())
    paths = set(re.findall(rf"`((?:{FOLDERS})/[\w./]*)", page(name)))
    yield from (path for path in paths if not (ROOT / path).exists())


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in PAGES:
        named = set(re.findall(r"`(?:[A-Z]+=\S+ )*make ([a-z-]+)", page(name)))
        typed = set(re.findall(r"^\$ make ([a-z-]+)", page(name), re.MULTILINE))
        assert named | typed <= targets, name


def test_python_on_a_page_imports_public_names() -> None:
    for name in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page(name), re.DOTALL):
            assert not [*_private(block)], f"{name}:\n{block}"


def _private(block: str) -> Iterator[str]:
    """What a block imports of the library, besides its public names."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("twinlog."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "twinlog":
            if node.module in PUBLIC:
                public = importlib.import_module(node.module).__all__
                yield from (alias.name for alias in node.names if alias.name not in public)
            else:
                yield str(node.module)


def test_commands_on_a_page_parse() -> None:
    for name in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page(name), re.DOTALL):
            commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
            assert commands, f"{name}: a console block shows what to type, after a $"
            for command in commands:
                assert shlex.split(command, comments=True), name


def test_every_planted_bug_stands_under_the_promise_that_it_breaks() -> None:
    text = page("docs/guarantees.md")
    named = {
        word
        for part in re.findall(r"bugs? ((?:`[\w-]+`(?:, )?)+)", text)
        for word in re.findall(r"[\w-]+", part)
    }
    assert named == set(BUGS)


@pytest.mark.parametrize("kind", [OrderSettings, CustomerSettings, SagaSettings, QuerySettings])
def test_every_setting_stands_in_the_reference(kind: type[BaseSettings]) -> None:
    text = page("docs/reference/settings.md")
    for name, default, meaning in described(kind):
        assert f"| `{name}` | {default} | {meaning} |" in text
