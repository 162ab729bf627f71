"""The lock fits every Python that the project promises, not only the one that it was made with."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata

from packaging.specifiers import SpecifierSet

from stack.topology import ROOT

OLDEST = "3.11.2"
"""Debian 12's."""
LOCKED = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_what_is_locked_takes_the_oldest_python() -> None:
    for name in LOCKED:
        with suppress(PackageNotFoundError):  # of another platform
            wants = "".join(metadata(name).get_all("Requires-Python", []))
            fits = SpecifierSet(wants).contains(OLDEST)
            assert fits, f"{name} wants Python {wants}: bound it in pyproject.toml"
