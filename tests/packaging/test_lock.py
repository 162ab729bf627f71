"""The lock fits every Python that the project promises, not only the one that it was made with."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from proof.lowest import oldest
from stack.topology import ROOT

OLDEST = "3.11.2"
"""Debian 12's."""
LOCKED = dict(
    re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
)
"""The releases, by package."""


def test_what_is_locked_takes_the_oldest_python() -> None:
    for name in LOCKED:
        with suppress(PackageNotFoundError):  # of another platform
            wants = "".join(metadata(name).get_all("Requires-Python", []))
            fits = SpecifierSet(wants).contains(OLDEST)
            assert fits, f"{name} wants Python {wants}: bound it in pyproject.toml"


def test_every_requirement_names_the_oldest_release_that_will_do() -> None:
    """``make lowest`` installs those."""
    for name, release in oldest().items():
        assert Version(release) <= Version(LOCKED[name]), name
