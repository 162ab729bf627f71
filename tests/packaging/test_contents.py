"""The wheel and the sdist hold twinlog, all of it and nothing else."""

from __future__ import annotations

import tarfile
import tomllib
from email import message_from_string
from email.message import Message
from pathlib import PurePosixPath
from zipfile import ZipFile

import pytest

import twinlog
from stack.topology import ROOT
from tests.packaging.conftest import Distributions

_SOURCES = (".py", ".pyi", ".sql", ".typed", ".tmpl", ".html", ".css", ".js", ".svg")


@pytest.fixture(scope="module")
def wheel(distributions: Distributions) -> set[str]:
    return set(ZipFile(distributions.wheel).namelist())


@pytest.fixture(scope="module")
def metadata(distributions: Distributions) -> Message:
    with ZipFile(distributions.wheel) as archive:
        name = f"twinlog-{twinlog.__version__}.dist-info/METADATA"
        return message_from_string(archive.read(name).decode())


def test_the_wheel_has_all_of_twinlog(wheel: set[str]) -> None:
    assert sources() <= wheel


def test_the_wheel_has_the_code_of_each_proto_and_the_proto_beside_it(wheel: set[str]) -> None:
    protos = [path.stem for path in (ROOT / "protos/twinlog/v1").glob("*.proto")]
    kinds = (".proto", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    wanted = {f"twinlog/v1/{name}{kind}" for name in protos for kind in kinds} | {"twinlog/v1/__init__.py"}
    assert protos
    assert {name for name in wheel if name.startswith("twinlog/v1/")} == wanted


def test_the_wheel_has_nothing_else(wheel: set[str]) -> None:
    information = f"twinlog-{twinlog.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"twinlog", information}
    assert f"{information}/licenses/LICENSE" in wheel


def test_the_sdist_has_what_the_wheel_is_made_of(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    protos = {f"protos/twinlog/v1/{path.name}" for path in (ROOT / "protos/twinlog/v1").glob("*.proto")}
    build = {"protos/generate.py", "hatch_build.py", "pyproject.toml", ".gitignore", "PKG-INFO"}
    assert names == sources() | protos | build | {"README.md", "CHANGELOG.md", "LICENSE"}


def test_the_wheel_requires_the_runtimes_of_its_generated_code(
    distributions: Distributions, metadata: Message
) -> None:
    """It says so itself: generated code refuses runtimes older than its generator."""
    with ZipFile(distributions.wheel) as archive:
        messages = archive.read("twinlog/v1/event_pb2.py").decode()
        services = archive.read("twinlog/v1/event_pb2_grpc.py").decode()
    generator = messages.partition("Protobuf Python Version: ")[2].split()[0]
    grpc = services.partition("GRPC_GENERATED_VERSION = '")[2].partition("'")[0]
    required = metadata.get_all("Requires-Dist", [])
    assert {f"protobuf>={generator}", f"grpcio>={grpc}"} <= set(required)


def test_a_release_requires_no_more_than_it_declares() -> None:
    """Its generator's own version of grpcio is the one that is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (generator,) = [
        requirement.partition(";")[0].partition("==")[2]
        for requirement in project["build-system"]["requires"]
        if requirement.startswith("grpcio-tools==")
    ]
    assert f"grpcio>={generator}" in project["project"]["dependencies"]


def test_the_metadata_names_version_and_extras(metadata: Message) -> None:
    assert metadata["Version"] == twinlog.__version__
    assert {"embedded", "testing"} <= set(metadata.get_all("Provides-Extra", []))


def sources() -> set[str]:
    """Of twinlog, without what is generated."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "twinlog").rglob("*")
        if path.suffix in _SOURCES and path.is_file() and not path.is_relative_to(ROOT / "twinlog/v1")
    }
