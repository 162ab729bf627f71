"""The files on docs/how-to/testing.md are tests, and they pass."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from stack.topology import ROOT

_TEXT = (ROOT / "docs" / "how-to" / "testing.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", _TEXT, re.DOTALL))


@pytest.fixture
def written() -> Iterator[dict[str, dict[str, object]]]:
    """The names of each file, by file."""
    modules: dict[str, dict[str, object]] = {}
    names = []
    for file, source in FILES.items():
        name = file.removesuffix(".py").replace("/", ".")
        module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None))
        sys.modules[name] = module
        names.append(name)
        exec(compile(source, file, "exec"), module.__dict__)
        modules[file] = module.__dict__
    yield modules
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize("file", FILES)
def test_its_tests_pass(written: dict[str, dict[str, object]], file: str) -> None:
    tests: dict[str, Callable[[], None]] = {
        name: value for name, value in written[file].items() if name.startswith("test_") and callable(value)
    }
    assert tests
    for test in tests.values():
        test()
