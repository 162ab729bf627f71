"""The public names: few, all there, all documented."""

from __future__ import annotations

import ast
import importlib

import pytest

import twinlog
from tests.public.surface import STUB, definitions, docstring

MAX_NAMES = 56
PACKAGES = [
    "twinlog",
    "twinlog.rpc",
    "twinlog.testing",
    "twinlog.testing.conformance",
    "twinlog.dev",
    "twinlog.audit",
    "twinlog.consume",
    "twinlog.console",
]


def test_the_names_are_those_of_the_stub() -> None:
    names = importlib.import_module("twinlog").__all__
    assert sorted(names) == sorted(definitions("twinlog"))
    assert len(names) <= MAX_NAMES


def test_the_stub_has_nothing_but_imports_and_the_version() -> None:
    others = [
        node
        for node in ast.parse(STUB.read_text()).body
        if not isinstance(node, ast.ImportFrom | ast.Expr | ast.AnnAssign)
    ]
    assert not others


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(definitions(package))
    for name in module.__all__:
        getattr(module, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_has_a_docstring(package: str) -> None:
    undocumented = [name for name, at in definitions(package).items() if not docstring(at).strip()]
    assert not undocumented


def test_what_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError):
        twinlog.PostgresLog  # type: ignore[attr-defined]  # noqa: B018
