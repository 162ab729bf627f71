"""`twinlog new` and `twinlog proto`: a project that passes its checks and its types. tests/packaging runs its tests."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

from stack.topology import ROOT
from tests import mypy_cache
from twinlog.cli import main, new
from twinlog.cli.exits import Usage
from twinlog.cli.new import package_of
from twinlog.cli.project import Project

_BIN = Path(sys.executable).parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "book-club"]) == 0
    monkeypatch.chdir(tmp_path / "book-club")
    return tmp_path / "book-club"


def run(project: Path, *command: str | Path) -> str:
    """What a command prints in the project; the test fails with it where the command does."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_project_without_generated_code_is_told_to_make_it(project: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    doctor = [sys.executable, "-m", "twinlog", "doctor"]
    done = subprocess.run(doctor, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    said = "No module named 'book_club'; generate the code of the protos: twinlog proto"
    assert (done.returncode, done.stderr.count(said)) == (2, 1)
    told = Project.required().told
    for name, way_out in (
        ("book_club.v1.events_pb2", True),
        ("book_club.v1.event_pb2", False),
        ("other", False),
    ):
        assert told(ModuleNotFoundError(name=name)).endswith("twinlog proto") == way_out


def test_a_new_project_passes_its_checks(project: Path) -> None:
    assert main(["proto"]) == 0
    run(project, _BIN / "ruff", "check", "--no-cache", ".")
    with mypy_cache.shared() as cache:
        run(project, _BIN / "mypy", "--cache-dir", cache)


def test_a_project_installs_the_stubs_that_its_types_take(project: Path) -> None:
    """This environment has them all: another one has what the project names."""
    assert main(["proto"]) == 0
    at, missing = packages_distributions(), []
    for root in (project, ROOT / "examples/hotel", ROOT / "examples/ledger"):
        parsed = [ast.parse(path.read_text()) for path in root.rglob("*.py")]
        imports = [node for tree in parsed for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules = {(node.module or "").partition(".")[0] for node in imports}
        dev = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
        named = {re.split(r"[^\w-]", each)[0] for each in dev}
        stubs = {name for module in modules for name in at.get(f"{module}-stubs", [])}
        assert "types-protobuf" in stubs
        missing += [(root.name, name) for name in stubs - named]
    assert not missing


def test_nothing_of_the_template_s_names_is_left(project: Path) -> None:
    files = [path for path in project.rglob("*") if path.is_file()]
    assert {".gitignore", "Containerfile", "Makefile", "README.md", "pyproject.toml", "check.yml"} <= {
        path.name for path in files
    }
    for path in files:
        assert "sample" not in path.name.lower()
        text = path.read_text().lower()
        assert not [word for word in ("sample", "twinlog_version", ".tmpl") if word in text], path


def test_a_folder_that_is_there_stays_as_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "README.md").read_text()
    (project / "mine").write_text("mine")
    assert main(["new", "book-club", "--in", str(project.parent)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert ((project / "README.md").read_text(), (project / "mine").read_text()) == (before, "mine")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Library", "no name"),
        ("1st", "no name"),
        ("a--b", "no name"),
        ("a/b", "no name"),
        ("../up", "no name"),
        ("", "no name"),
        ("x" * 41, "no name"),
        ("class", "word of Python"),
        ("match", "word of Python"),
        ("json", "module json exists"),
        ("grpc", "module grpc exists"),
        ("tests", "module tests exists"),
        ("twinlog", "module twinlog exists"),
        ("pytest", "module pytest exists"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, why: str) -> None:
    with pytest.raises(Usage, match=why):
        package_of(name)


@pytest.mark.parametrize("name", ["library", "book-club", "x", "a1-b2"])
def test_other_names_are_taken(name: str) -> None:
    assert package_of(name) == name.replace("-", "_")


def test_code_that_is_out_of_date_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proto", "--check"]) == 1
    assert "book_club/v1/events_pb2.py is missing" in capsys.readouterr().out
    assert not (project / "book_club").exists()
    assert main(["proto"]) == 0
    assert main(["proto", "--check"]) == 0
    events = project / "protos/book_club/v1/events.proto"
    events.write_text(events.read_text() + "\n// New.\nmessage New {}\n")
    assert main(["proto", "--check"]) == 1


def test_a_proto_may_say_to_whom_an_event_goes(project: Path) -> None:
    """twinlog/v1/options.proto is found, and so is what googleapis-common-protos brings."""
    (project / "protos/book_club/v1/more.proto").write_text(
        'syntax = "proto3";\npackage book_club.v1;\n'
        'import "twinlog/v1/options.proto";\nimport "google/type/money.proto";\n'
        'message Paid {\n  option (twinlog.v1.tagged) = "x";\n  google.type.Money amount = 1;\n}\n'
    )
    assert main(["proto"]) == 0
    assert (project / "book_club/v1/more_pb2.py").exists()
    assert not (project / "twinlog").exists()


def test_a_proto_that_is_none_is_told_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "protos/bad.proto").write_text("message {")
    assert main(["proto"]) == 1
    assert "bad.proto:1" in capsys.readouterr().err


def test_a_project_is_found_from_below(project: Path) -> None:
    found = Project.here(project / "book_club_svc" / "sql")
    assert found
    assert (found.root, dict(found.services)) == (project, {"book_club_svc": "127.0.0.1:50061"})


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[tool.twinlog]\nservices = ['a']", "is no table of addresses"),
        ("[tool]\ntwinlog = 1", "must be a table"),
        ("[tool.twinlog]\nprotos = 1", "must be a text"),
        ("[tool", "no TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, table: str, why: str) -> None:
    (tmp_path / "pyproject.toml").write_text(table)
    with pytest.raises(Usage, match=why) as refused:
        Project.here(tmp_path)
    assert "pyproject.toml" in str(refused.value)


def test_programs_are_told_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "book-club", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["folder"], made["commands"]) == ("book-club", ["make install", "make test", "make run"])
    assert made["files"] == len([path for path in (tmp_path / "book-club").rglob("*") if path.is_file()])
    monkeypatch.chdir(tmp_path / "book-club")
    assert main(["proto", "--check", "--json"]) == 1
    assert "book_club/v1/events_pb2.py" in json.loads(capsys.readouterr().out)["stale"]
    assert main(["proto", "--json"]) == 0
    assert "protos/book_club/v1/events.proto" in json.loads(capsys.readouterr().out)["protos"]
    assert main(["proto", "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stale"] == []


@pytest.mark.parametrize(
    ("url", "install"),
    [
        (
            "file:///a%20b/dist/twinlog-0.1.0-py3-none-any.whl",
            "PIP_FIND_LINKS=file:///a%20b/dist make install",
        ),
        ("file:///src/twinlog", "make install"),
        ("https://host/twinlog-0.1.0-py3-none-any.whl", "make install"),
        (None, "make install"),
    ],
)
def test_the_wheel_it_came_from_is_found_by_the_project_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str | None,
    install: str,
) -> None:
    told = SimpleNamespace(read_text=lambda _file: url and json.dumps({"url": url}))
    monkeypatch.setattr(new, "distribution", lambda _name: told)
    assert main(["new", "book-club", "--in", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"][0] == install


def test_outside_of_a_project_it_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("proto", "dev"):
        assert main([command]) == 2
        assert "twinlog new NAME" in capsys.readouterr().err
