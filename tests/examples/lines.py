"""How many lines of the hotel are written by hand, by kind: ``python -m tests.examples.lines``."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from difflib import ndiff
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.examples.conftest import HOTEL
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
    """Those of the hotel in git, besides its README."""
    listed = subprocess.run(["git", "ls-files"], cwd=HOTEL, check=True, capture_output=True, text=True)
    yield from (Path(line) for line in listed.stdout.splitlines() if line != "README.md")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        lines = by_hand(Path(folder))
    for kind_of_file, count in lines.most_common():
        print(f"{count:5} {kind_of_file}")
    print(f"{lines.total():5} in all")
