"""docs/tutorial.md shows the files of examples/hotel. `python -m tests.docs.tutorial` copies them into the page."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stack.topology import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
HOTEL = ROOT / "examples" / "hotel"
_FILE = re.compile(r"```(\w+)\n(#|//|--) (\S+/\S+|pyproject\.toml)\n(.*?)```", re.DOTALL)


def shown() -> Mapping[str, str]:
    """The files on the page, by name."""
    return {name: text for _, _, name, text in _FILE.findall(PAGE.read_text())}


def filled() -> str:
    """The page with the files as they are."""

    def block(found: re.Match[str]) -> str:
        language, comment, name, _ = found.groups()
        return f"```{language}\n{comment} {name}\n{(HOTEL / name).read_text()}```"

    return _FILE.sub(block, PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(filled())
