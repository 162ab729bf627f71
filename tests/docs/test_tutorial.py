"""docs/tutorial.md: followed to the letter, it comes to examples/hotel, whose tests tests/examples runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.docs.tutorial import HOTEL, PAGE, filled, shown
from tests.examples.lines import files
from twinlog.cli import main


def test_the_page_shows_the_files_as_they_are() -> None:
    assert PAGE.read_text() == filled(), "run: python -m tests.docs.tutorial"


def test_it_comes_to_the_hotel(tmp_path: Path) -> None:
    assert main(["new", "hotel", "--in", str(tmp_path)]) == 0
    folder = tmp_path / "hotel"
    (emptied,) = re.findall(r"```sh\n(rm -r .*?)```", PAGE.read_text(), re.DOTALL)
    subprocess.run(emptied, shell=True, check=True, cwd=folder)
    for name, text in shown().items():
        (folder / name).write_text(text)
    made = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert made - {Path("README.md")} == {*files()}
    assert not [file for file in files() if (folder / file).read_text() != (HOTEL / file).read_text()]
