"""`make` installs what it needs, begins again by itself where that was cut off, and ends where nobody answers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stack.topology import ROOT

_MARK = ".venv/.installed"
_BOUND_SECONDS = 240.0

_FAKE_PYTHON = """\
#!/bin/sh
# Stands still at the moment that $CUT names, as a slow disk or network would have it.
reach() { if [ "$CUT" = "$1" ]; then : >reached; exec sleep 600; fi; }
case "$*" in
"-c "*" venv .venv")
    mkdir -p "$4/bin"
    reach "empty environment"
    cp "$0" "$4/bin/python"
    reach "environment without pip"
    touch "$4/pip"
    echo made >> calls ;;
"-c "* | "stack/installing.py "*) exec {python} "$@" ;;
*"-m pip install "*)
    [ -e .venv/pip ] || { echo "No module named pip"; exit 1; }
    [ -e .venv/half ] && { echo "half a package"; exit 1; }
    touch .venv/half
    reach "half of the packages"
    mv .venv/half .venv/whole
    reach "everything but the mark"
    echo installed >> calls ;;
*) exit 1 ;;
esac
"""


class Clone:
    """A folder with the Makefile, and a Python that only pretends to install."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "requirements.txt").touch()
        (folder / "protos").mkdir()
        (folder / "stack").mkdir()
        shutil.copy(ROOT / "stack" / "installing.py", folder / "stack")
        self.python = folder / "python3"
        self.python.write_text(_FAKE_PYTHON.replace("{python}", sys.executable))
        self.python.chmod(0o755)

    def make(self, cut: str = "", **env: str) -> subprocess.Popen[str]:
        """Begins `make`, which stands still at the moment ``cut``."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.Popen(
            ["make", _MARK, f"PYTHON={self.python}"],
            cwd=self.folder,
            env={**inherited, "CUT": cut, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def cut_off(self, moment: str, signum: signal.Signals) -> None:
        """Ends `make` and all it started, as Ctrl-C or a closed terminal would, at that moment."""
        process = self.make(moment)
        deadline = time.monotonic() + _BOUND_SECONDS
        while not (self.folder / "reached").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (self.folder / "reached").unlink()
        os.killpg(process.pid, signum)
        process.communicate(timeout=_BOUND_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def installs(self) -> None:
        """`make` succeeds, and has nothing to do when it is called again."""
        for _ in range(2):
            process = self.make()
            said, _ = process.communicate(timeout=_BOUND_SECONDS)
            assert process.returncode == 0, said
        assert (self.folder / ".venv" / "whole").exists()
        assert "is up to date" in said

    @property
    def calls(self) -> list[str]:
        """What was done to the end: an environment ``made``, packages ``installed``."""
        return (self.folder / "calls").read_text().split()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    "moment",
    [
        "empty environment",
        "environment without pip",
        "half of the packages",
        "everything but the mark",
    ],
)
def test_an_install_that_was_cut_off_is_begun_again(
    clone: Clone, moment: str, signum: signal.Signals
) -> None:
    clone.cut_off(moment, signum)
    clone.installs()


def test_an_update_goes_into_what_is_there(clone: Clone) -> None:
    clone.installs()
    _newer(clone)
    clone.installs()
    assert clone.calls == ["made", "installed", "installed"]


def test_an_update_that_was_cut_off_is_begun_again(clone: Clone) -> None:
    clone.installs()
    _newer(clone)
    clone.cut_off("half of the packages", signal.SIGINT)
    clone.installs()
    assert clone.calls == ["made", "installed", "made", "installed"]


def test_a_python_without_venv_is_told_what_to_install_and_works_afterwards(clone: Clone) -> None:
    """As Debian's is without python3-venv."""
    missing = clone.folder / "sitecustomize.py"
    missing.write_text("import sys\nsys.modules['ensurepip'] = None\n")
    process = clone.make(PYTHONPATH=str(clone.folder))
    said, _ = process.communicate(timeout=_BOUND_SECONDS)
    assert process.returncode == 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt install python{version}-venv" in said.splitlines()[0]
    assert not (clone.folder / ".venv").exists()
    clone.installs()


_FAILS = (
    "WARNING: Retrying (Retry(total=1, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError(\"Failed: [Errno 111] Connection refused\")': /simple/asyncpg/"
)


def installing(folder: Path, script: str, **env: str) -> tuple[int, str, str]:
    """Code, output and errors of an installation by a pip that does what the script says; ``told`` has its output."""
    pip = folder / "python"
    pip.write_text(f"#!/bin/sh\n{script}\n")
    pip.chmod(0o755)
    main = (
        "import sys; from stack import installing; installing._TELL_EVERY_SECONDS = 0.05; "
        "sys.exit(installing.main(sys.argv[1:]))"
    )
    with (folder / "told").open("w") as told:
        ended = subprocess.run(
            [sys.executable, "-c", main, pip, "-r", "requirements.txt"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
            stdout=told,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_BOUND_SECONDS,
        )
    return ended.returncode, (folder / "told").read_text(), ended.stderr


def test_an_index_that_never_answers_ends_the_installation_with_pips_reason(tmp_path: Path) -> None:
    retrying = f"cat <<'END'\n{_FAILS}\nEND\n"
    code, said, why = installing(
        tmp_path, f"{retrying * 4}exec sleep 600", https_proxy="http://ada:secret@127.0.0.1:9"
    )
    first, second = why.splitlines()
    assert code == 1
    assert first.startswith("pip got no answer from an index of packages: NewConnectionError(")
    assert "https_proxy=http://…@127.0.0.1:9" in second
    assert "make again" in second
    assert "WARNING" not in said

    # Fewer in a row, as of a network that comes and goes, are pip's own matter, and so is how it ends.
    fetched = f"{retrying * 3}echo '  Downloading a.whl'\n"
    assert installing(tmp_path, f"{fetched * 2}echo Successfully installed a")[::2] == (0, "")
    code, said, why = installing(tmp_path, f"{retrying}echo 'ERROR: No matching distribution'; exit 7")
    assert (code, why.splitlines()[0]) == (7, first)
    assert "ERROR: No matching distribution" in said.splitlines()


def test_what_pip_is_at_is_told(tmp_path: Path) -> None:
    question, collecting, installs = (
        f"until grep -qE '{told}' told; do sleep 0.1; done"
        for told in ("question", "a==1", "collected|uninstalled")
    )
    script = (
        question,
        "echo Collecting a==1",
        collecting,
        "echo 'Installing collected packages: a, pip'; echo '      Successfully uninstalled pip-1'",
        installs,
        "echo 'WARNING: odd'",
    )
    code, said, _ = installing(tmp_path, "\n".join(script))
    *waits, last = dict.fromkeys(said.splitlines())
    assert (code, last) == (0, "WARNING: odd")
    assert waits == [
        "… pip is at its first question to an index of packages",
        "… pip is at Collecting a==1",
        "… pip is at Installing collected packages: a, pip",
    ]


def _newer(clone: Clone) -> None:
    """Makes the mark older than requirements.txt."""
    written = (clone.folder / "requirements.txt").stat().st_mtime
    os.utime(clone.folder / _MARK, (written - 1, written - 1))
