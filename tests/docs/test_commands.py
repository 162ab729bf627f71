"""What the pages tell people to type is taken by the programs that it is typed into."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from stack.topology import ROOT
from tests.docs.test_pages import PAGES, page
from twinlog.cli.command import parser_for

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


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words[1:], id=f"{name}: {' '.join(words)}")
        for name, words in COMMANDS
        if words[0] == "twinlog"
    ],
)
def test_twinlog_takes_its_commands(words: Sequence[str]) -> None:
    until = next((at for at, word in enumerate(words) if word in ("&&", "|", ">")), len(words))
    parser_for(words[:1]).parse_args(words[:until])


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{name}: {words[-1]}")
        for name, words in COMMANDS
        if words[0] == "grpcurl" and "/" in words[-1]
    ],
)
def test_grpcurl_calls_what_there_is_with_what_it_takes(words: Sequence[str]) -> None:
    service, _, method = words[-1].partition("/")
    if service.startswith(("stamps.", "book_club.", "hotel.")):  # the pages' own, which other tests call
        return
    pool = descriptor_pool.Default()
    of = HEALTH if service == HEALTH.full_name else pool.FindServiceByName(service)
    request = GetMessageClass(of.methods_by_name[method].input_type)()
    given = words[words.index("-d") + 1] if "-d" in words else "{}"
    Parse(given.replace("'", ""), request)


def test_the_pages_of_features_are_executed() -> None:
    """A how-to page with Python is in some test's hands."""
    named = "".join(path.read_text() for path in (ROOT / "tests" / "docs").glob("test_*.py"))
    pages = [path for path in (ROOT / "docs" / "how-to").glob("*.md") if "```python" in path.read_text()]
    assert not [path.name for path in pages if f'{path.stem}"' not in named and f'{path.name}"' not in named]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"python -m ([\w.]+)", "\n".join(map(page, PAGES))))))
def test_python_runs_modules_that_there_are(name: str) -> None:
    if name.partition(".")[0] in ("orders_svc", "stamps_svc", "book_club_svc"):  # the pages' own
        return
    assert find_spec(name)
