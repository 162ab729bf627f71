"""The installed wheel, outside the checkout: the command, and what it takes to import it."""

from __future__ import annotations

import pytest

import twinlog
from tests.packaging.conftest import Adopter


@pytest.mark.parametrize("command", [["twinlog"], ["python", "-m", "twinlog"]])
def test_the_command_says_its_version(adopter: Adopter, command: list[str]) -> None:
    assert adopter.run(*command, "--version") == f"twinlog {twinlog.__version__}\n"
    assert "usage: twinlog" in adopter.run(*command)


def test_the_command_starts_without_what_a_service_needs(adopter: Adopter) -> None:
    said = adopter.run("python", "-X", "importtime", "-m", "twinlog", "--version")
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "twinlog.cli" in loaded
    assert not {"grpc", "asyncpg", "nats", "google.protobuf", "pydantic"} & loaded


def test_twinlog_is_the_wheel_s_and_the_shop_is_not_there(adopter: Adopter) -> None:
    program = """
import importlib.util, twinlog, twinlog.v1.dead_letter_service_pb2_grpc
print(twinlog.__file__)
print([name for name in ("shop", "order_svc", "stack", "proof", "tests") if importlib.util.find_spec(name)])
"""
    where, shop = adopter.run("python", "-c", program).splitlines()
    assert where.startswith(str(adopter.folder))
    assert shop == "[]"


def test_every_public_name_can_be_imported(adopter: Adopter) -> None:
    program = """
import twinlog, twinlog.rpc, twinlog.dev, twinlog.testing, twinlog.testing.internals
for module in (twinlog, twinlog.rpc, twinlog.dev, twinlog.testing, twinlog.testing.internals):
    for name in module.__all__:
        getattr(module, name)
"""
    adopter.run("python", "-W", "error", "-c", program)


def test_pytest_has_its_fixtures_by_itself(adopter: Adopter) -> None:
    (adopter.folder / "test_fixtures.py").write_text("async def test(database: str) -> None: ...\n")
    listed = adopter.run("python", "-m", "pytest", "--fixtures", "test_fixtures.py")
    assert "fixtures defined from twinlog.testing.plugin" in listed
    assert not {"postgres_url", "nats_url", "database", "namespace"} - {*listed.split()}
