"""``python protos/generate.py OUT [PACKAGE …]``: the Python of all protos, or of some packages, below the folder OUT.

The one place that says how: ``make proto`` and the build of the wheel (hatch_build.py) both run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
_KERNEL = "twinlog/v1"
_INIT = '"""The messages and services of Twinlog, generated from protos/twinlog/v1."""\n'


def main(out: str, *packages: str) -> int:
    """Generates messages, services and their type stubs; gives protoc's exit code."""
    files = sorted(path for name in packages or ("",) for path in (PROTOS / name).rglob("*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", *includes(), *outputs(out), *map(str, files)]
    code = subprocess.run(protoc).returncode
    if (generated := Path(out, _KERNEL)).exists():
        # protoc makes namespace packages; twinlog is a regular one, and so are all others in it.
        (generated / "__init__.py").write_text(_INIT)
    return code


def includes() -> Sequence[str]:
    """Our protos, and those that packages install beside their modules: google/type from googleapis-common-protos."""
    return [f"-I{PROTOS}", f"-I{sysconfig.get_path('purelib')}"]


def outputs(out: str) -> Sequence[str]:
    """The four plugins; those of mypy-protobuf are looked for beside this Python first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    plugins = {name: shutil.which(name, path=path) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    return [
        *(f"--plugin={name}={found or name}" for name, found in plugins.items()),
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
    ]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
