"""What programs and clients of the release rely on by name stays: public names, and the reasons of errors."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

from stack.topology import ROOT
from tests.docs.reasons import FOLDERS

RELEASED = json.loads(Path(__file__).with_name("surface.json").read_text())
"""What the commit in released.txt has."""


def test_every_public_name_of_the_release_is_there() -> None:
    gone = [
        f"{module}.{name}"
        for module, names in RELEASED["names"].items()
        for name in names
        if name not in import_module(module).__all__
    ]
    assert not gone


def test_every_reason_of_the_release_is_still_given() -> None:
    sources = [path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    given = {reason for source in sources for reason in re.findall(r'reason = "([A-Z_]+)"', source)}
    assert not {*RELEASED["reasons"]} - given
