"""Every command and each of its actions, called wrongly: it says so, without a traceback, and its exit code fits."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from twinlog.cli import main
from twinlog.cli.command import COMMANDS, parser_for
from twinlog.jetstream import connection

_MAKES = ("new", "dashboards", "completion")
"""Commands that ask nobody."""
_GIVEN = {"TYPE/ID": "order/1", "FROM": "1h", "TO": "1m", "BUILD": "2"}
_SERVER = "127.0.0.1:1"
_SETTINGS = ("POSTGRES_URL", "NATS_URL", "TWINLOG_ADDRESSES", "TWINLOG_SERVICES", "TWINLOG_NAMESPACE")


def actions(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[tuple[list[str], set[str]]]:
    """How each action of a command is called with all that it requires, and its options."""
    for each in parser._actions:
        if isinstance(each.choices, dict):
            for name, action in each.choices.items():
                yield from actions(action, [*words, name])
            return
    called = [*words]
    for each in parser._actions:
        given = _GIVEN.get(str(each.metavar), "7" if each.type is int else "x")
        if each.option_strings:
            called += [each.option_strings[0], given] if each.required else []
        elif each.nargs not in ("*", "?"):
            called.append(next(iter(each.choices)) if each.choices else given)
    yield called, {option for each in parser._actions for option in each.option_strings}


def commands() -> Iterator[tuple[list[str], set[str]]]:
    for command in COMMANDS:
        (chosen,) = (
            each.choices for each in parser_for([command])._actions if isinstance(each.choices, dict)
        )
        yield from actions(chosen[command], [command])


def calls() -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Wrong calls, each with the exit codes that fit."""
    for called, options in commands():
        json_too = ["--json"] if "--json" in options else []
        yield [*called, "--frobnicate"], (2,)
        yield [*called, "--help"], (0,)
        yield [*called, *json_too], (0, 2) if called[0] in _MAKES else (2,)
        if "--at" in options:
            yield [*called, "--at", "nowhere"], (2,)
        if {"--at", "--timeout"} <= options:
            yield [*called, "--at", _SERVER, "--timeout", "0.2"], (2, 3)
            yield [*called, "--at", _SERVER, "--timeout", "0.2", *json_too], (2, 3)


def test_every_command_that_is_called_wrongly_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for setting in _SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    wrong = []
    for arguments, codes in calls():
        try:
            code: object = main(arguments)
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            code = repr(error)
        said = capsys.readouterr()
        tells = _tells(arguments, said.out, said.err) and _tells_first(arguments, said.out + said.err)
        if code not in codes or "Traceback" in said.err or not tells:
            wrong.append(f"twinlog {' '.join(arguments)}: {code}\n{said.out[-200:]}\n{said.err[-400:]}")
    assert not wrong, "\n".join(wrong)


def test_every_command_whose_servers_are_away_says_so_and_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A service waits for its servers; somebody who has called a command does not know that it waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "_REACH_SECONDS", 0.2)
    monkeypatch.setattr("sys.stdin", io.StringIO("Ada Lovelace"))
    (tmp_path / "x").touch()
    servers = {"--postgres-url": f"postgresql://{_SERVER}", "--nats-url": f"nats://{_SERVER}"}
    wrong, tried = [], 0
    for called, options in commands():
        if "--postgres-url" in options:
            away = [word for name, url in servers.items() if name in options for word in (name, url)]
            # A file that is no log is refused before, and a server that is away is not asked twice.
            code, tried = main([*called, *away]), tried + 1
            said = capsys.readouterr()
            if code != (2 if called[0] == "import" else 3) or not said.err.strip() or "Traceback" in said.err:
                wrong.append(f"twinlog {' '.join(called)}: {code}\n{said.out[-200:]}\n{said.err[-400:]}")
    assert tried
    assert not wrong, "\n".join(wrong)


def _tells_first(arguments: Sequence[str], said: str) -> bool:
    """A server that is away is told before anything else, by its address and without gRPC's own words around it."""
    if f"{_SERVER} is out of reach" not in said or "--json" in arguments:
        return True
    first = said.strip().splitlines()[0]
    return f"{_SERVER} is out of reach" in first and "failed to connect" not in said


def _tells(arguments: Sequence[str], out: str, err: str) -> bool:
    if "--json" in arguments and out.strip():
        try:
            json.loads(out)
        except ValueError:
            return False
    return bool((out + err).strip()) and "None." not in out
