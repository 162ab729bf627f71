"""``twinlog proto``: the Python code of a project's protos, beside them and git-ignored."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import twinlog
from twinlog.cli.exits import OK, WRONG, Failed, Usage
from twinlog.cli.project import Project

_GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where code is out of date"
    )
    parser.add_argument("--json", action="store_true", help="one JSON value, for programs")


def run(options: argparse.Namespace) -> int:
    project = Project.required()
    if not options.check:
        made = generate(project, project.root)
        if options.json:
            root = project.root
            protos = [str(each.relative_to(root) if each.is_relative_to(root) else each) for each in made]
            print(json.dumps({"folder": str(root), "protos": protos}), flush=True)
            return OK
        print(f"Generated the code of {len(made)} protos in {project.root}.")
        return OK
    with tempfile.TemporaryDirectory(prefix="twinlog-") as folder:
        generate(project, Path(folder))
        stale = [path for path in _code(Path(folder)) if not _same(Path(folder) / path, project.root / path)]
    if options.json:
        print(json.dumps({"folder": str(project.root), "stale": [str(path) for path in stale]}), flush=True)
    for path in () if options.json else stale:
        print(f"{path} is missing or out of date; run: twinlog proto")
    return WRONG if stale else OK


def generate(project: Project, out: Path) -> list[Path]:
    """Generates the code of all protos of a project below a folder, and gives the protos. Raises Failed."""
    protos = sorted(project.protos.rglob("*.proto"))
    if not protos:
        raise Usage(f"{project.protos} has no protos; [tool.twinlog] in pyproject.toml says where they are")
    if not can_generate():
        raise Usage(f"the generator is not installed: {sys.executable} -m pip install grpcio-tools")
    includes = [f"-I{folder}" for folder in (project.protos, kernel_protos(), sysconfig.get_path("purelib"))]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *map(str, protos)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return protos


def can_generate() -> bool:
    return importlib.util.find_spec("grpc_tools") is not None


def kernel_protos() -> Path:
    """The folder in which twinlog/v1/options.proto is: that of the installed package, or of a checkout."""
    beside = Path(twinlog.__file__).resolve().parents[1]
    return beside if (beside / "twinlog/v1/options.proto").exists() else beside / "protos"


def _code(folder: Path) -> Iterator[Path]:
    for pattern in _GENERATED:
        yield from sorted(path.relative_to(folder) for path in folder.rglob(pattern))


def _same(new: Path, old: Path) -> bool:
    return old.exists() and old.read_bytes() == new.read_bytes()
