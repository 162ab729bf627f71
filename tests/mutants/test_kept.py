"""A run of mutants begins behind what an earlier one of the same code found out, and not behind that of another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proof.mutants import kept, warm
from proof.mutants.__main__ import _summarize, reasons
from proof.mutants.kept import Kept
from proof.mutants.warm import Reached

REACHED = Reached({("a.py", 1): ["test"]}, {"test": 0.5}, frozenset({("a.py", 2)}), ["failing"])


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of the code that mutants are made of."""
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    code = tmp_path / "twinlog" / "a.py"
    code.parent.mkdir()
    code.write_text("ONE = 1\n")
    return code


def test_the_next_run_knows_what_was_found_unless_code_or_question_are_others(
    code: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    first = Kept(folder, "tests")
    assert first.reached() is None
    assert not first.noticed
    first.keep_reached(REACHED)
    first.keep_found("a.py f: x == 1 → x != 1", True)
    first.keep_found("a.py f: raise → pass", False)
    second = Kept(folder, "tests")
    assert second.reached() == REACHED
    assert second.noticed == {"a.py f: x == 1 → x != 1": True, "a.py f: raise → pass": False}
    code.write_text("ONE = 2\n")
    assert not Kept(folder, "tests").noticed
    assert not [*folder.iterdir()], "of older code nothing is kept"
    code.write_text("ONE = 1\n")
    Kept(folder, "tests").keep_found("a.py f: raise → pass", False)
    assert not Kept(folder, "other tests").noticed


def test_nothing_else_in_its_folder_is_touched(code: Path) -> None:
    Kept(code.parent, "tests")
    assert code.exists()


def test_only_what_lives_without_a_reason_fails_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    one, other, *_ = reasons()
    found = {one: False, other: True, "a.py f: raise → pass": False, "a.py f: x == 1 → x != 1": True}
    assert _summarize(found, "4") == ["a.py f: raise → pass"]
    said = capsys.readouterr().out
    assert "4: 2 noticed, 1 excused, 1 neither" in said
    assert f"excused, though it is noticed: {other}" in said


BUSY = "import time\nwhile time.process_time() < 2: pass"


@pytest.mark.parametrize(("program", "hangs"), [(BUSY, False), ("input()", True)], ids=["works", "waits"])
def test_what_waits_for_a_program_waits_for_what_that_does(
    monkeypatch: pytest.MonkeyPatch, program: str, hangs: bool
) -> None:
    """The program works for many looks, and only one that does nothing ends the wait."""
    monkeypatch.setattr(warm, "_IDLE_LOOKS", 50)
    waits = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}], stdin=sys.stdin)"
    with subprocess.Popen(
        [sys.executable, "-c", waits], stdin=subprocess.PIPE
    ) as child:  # ends its input, too
        assert warm._hangs(child.pid) is hangs
