"""`twinlog simulate`: what a project names, many seeds, one seed again, and the shrunk trace of a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hotel.simulation import SCENARIO, HotelInvariants, not_idempotent
from twinlog.cli import main
from twinlog.testing import Simulation

HOTEL = Simulation(SCENARIO, HotelInvariants)
NOTHING = 1


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that simulates the hotel."""
    (tmp_path / "pyproject.toml").write_text('[tool.twinlog]\nsimulate = "tests.cli.test_simulate:HOTEL"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_kept_promises_end_with_0(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "3", "--first", "7"]) == 0
    assert capsys.readouterr().out.startswith("3 seeds in ")
    assert main(["simulate", "--seeds", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["seeds"], "failure" in said) == (2, False)


def test_a_seed_is_shown_with_its_trace(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "BookRoom" in shown
    assert "seed 3: every promise was kept" in shown
    assert main(["simulate", "--seed", "3"]) == 0
    assert capsys.readouterr().out == shown


def test_a_broken_promise_ends_with_1_and_the_way_to_replay_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(project / "bin" / "twinlog")])
    with not_idempotent():
        assert main(["simulate", "--seeds", "400"]) == 1
        shown = capsys.readouterr().out
        assert "breaks a promise (" in shown
        assert "It takes " in shown
        replay = shown.splitlines()[-1]
        assert replay.startswith("replay: bin/twinlog simulate --seed ")
        seed = replay.rpartition(" ")[2]
        assert main(["simulate", "--seed", seed]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == replay


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("", "names no simulation"),
        ('simulate = "tests.cli.test_simulate:NOWHERE"', "cannot be imported: AttributeError"),
        ('simulate = "nowhere"', "cannot be imported: ModuleNotFoundError"),
        ('simulate = "tests.cli.test_simulate:NOTHING"', "neither a Scenario nor a Simulation"),
        ("simulate = 1", 'must be a text, such as simulate = "package.module:name"'),
    ],
)
def test_what_is_wrong_in_the_project_is_a_usage_error(
    project: Path, capsys: pytest.CaptureFixture[str], table: str, why: str
) -> None:
    (project / "pyproject.toml").write_text(f"[tool.twinlog]\n{table}\n")
    assert main(["simulate"]) == 2
    assert why in capsys.readouterr().err


def test_a_scenario_alone_is_held_to_what_every_system_promises(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = 'simulate = "tests.hotel.simulation:SCENARIO"'
    (project / "pyproject.toml").write_text(f"[tool.twinlog]\n{named}\n")
    assert main(["simulate", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.startswith("2 seeds in ")
