"""How many lines of the hotel are written by hand, by kind: ``python -m tests.examples.lines``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from difflib import ndiff
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.examples.conftest import HOTEL, LEFT_BEHIND
from twinlog.cli import main

_KINDS = {".proto": "protos", ".py": "Python", ".sql": "SQL"}


def kind(file: Path) -> str:
    """What sort of file it is."""
    return "tests" if file.parts[0] == "tests" else _KINDS.get(file.suffix, "config")


def by_hand(folder: Path) -> Counter[str]:
    """Lines by kind that are not blank, besides what `twinlog new` writes into the folder. The README is no code."""
    with redirect_stdout(StringIO()):
        assert main(["new", "hotel", "--in", str(folder)]) == 0
    new = folder / "hotel"
    found: Counter[str] = Counter()
    for file in files():
        made = new / file
        before = made.read_text().splitlines() if made.exists() else []
        changed = [line for line in ndiff(before, (HOTEL / file).read_text().splitlines())]
        found[kind(file)] += sum(line.startswith("+ ") and bool(line[2:].strip()) for line in changed)
    return found


def files() -> Iterator[Path]:
    """Those of the hotel that are written by hand, besides its README."""
    for folder, folders, names in os.walk(HOTEL):
        made = LEFT_BEHIND(folder, [*folders, *names])
        folders[:] = (name for name in folders if name not in made)
        files = (Path(folder, name).relative_to(HOTEL) for name in names if name not in made)
        yield from (file for file in files if file != Path("README.md"))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        lines = by_hand(Path(folder))
    for kind_of_file, count in lines.most_common():
        print(f"{count:5} {kind_of_file}")
    print(f"{lines.total():5} in all")
