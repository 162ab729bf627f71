"""What the pages tell people to type is taken by the programs that it is typed into."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from stack.topology import ROOT
from tests.docs.test_pages import PAGES, page
from twinlog.cli.command import parser_for

_POOL = descriptor_pool.Default()
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_SHELL = re.compile(r"```(?:console|sh)\n(.*?)```", re.DOTALL)


def typed(name: str) -> Iterator[Sequence[str]]:
    """The words of each command on a page, without the environment that is set before it."""
    for block in _SHELL.findall(page(name)):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:  # a line within a text of several lines
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words


COMMANDS = [(name, words) for name in PAGES for words in typed(name)]


def test_twinlog_takes_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cache(lambda command: parser_for([command]))
    for name, (program, *words) in COMMANDS:
        if program == "twinlog":
            until = next((at for at, word in enumerate(words) if word in ("&&", "|", ">")), len(words))
            try:
                parser(words[0]).parse_args(words[:until])
            except SystemExit:
                pytest.fail(f"{name}: twinlog {' '.join(words)}: {capsys.readouterr().err}")


def test_grpcurl_calls_what_there_is_with_what_it_takes() -> None:
    called = [(name, words) for name, words in COMMANDS if words[0] == "grpcurl" and "/" in words[-1]]
    assert called
    for name, words in called:
        service, _, method = words[-1].partition("/")
        if service.startswith(("stamps.", "book_club.", "hotel.")):  # the pages' own, which other tests call
            continue
        with saying(f"{name}: {' '.join(words)}"):
            of = HEALTH if service == HEALTH.full_name else _POOL.FindServiceByName(service)
            request = GetMessageClass(of.methods_by_name[method].input_type)()
            given = words[words.index("-d") + 1] if "-d" in words else "{}"
            Parse(given.replace("'", ""), request)


@contextmanager
def saying(where: str) -> Iterator[None]:
    """An error inside the block tells it."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def test_the_pages_of_features_are_executed() -> None:
    """A how-to page with Python is in some test's hands."""
    named = "".join(path.read_text() for path in (ROOT / "tests" / "docs").glob("test_*.py"))
    pages = [path for path in (ROOT / "docs" / "how-to").glob("*.md") if "```python" in path.read_text()]
    assert not [path.name for path in pages if f'{path.stem}"' not in named and f'{path.name}"' not in named]


def test_python_runs_modules_that_there_are() -> None:
    named = set(re.findall(r"python -m ([\w.]+)", "\n".join(map(page, PAGES))))
    of_the_pages = ("orders_svc", "stamps_svc", "book_club_svc")
    assert not [name for name in named if name.partition(".")[0] not in of_the_pages and not find_spec(name)]
