"""The lock fits every Python that the project promises, not only the one that it was made with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata

import pytest
from packaging.specifiers import SpecifierSet

from stack.topology import ROOT

OLDEST = "3.11.2"
"""Debian 12's."""
LOCKED = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", LOCKED)
def test_what_is_locked_takes_the_oldest_python(name: str) -> None:
    try:
        wants = "".join(metadata(name).get_all("Requires-Python", []))
    except PackageNotFoundError:  # of another platform
        return
    assert SpecifierSet(wants).contains(OLDEST), f"{name} wants Python {wants}: bound it in pyproject.toml"
