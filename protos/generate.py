"""What is made of the protos: Python modules with type stubs, or the image that buf checks.

The one place that says how. ``make proto`` and ``make lint`` run it, and so does the build of the wheel
(hatch_build.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
_KERNEL = "twinlog/v1"
_INIT = '"""The messages and services of Twinlog, generated from protos/twinlog/v1."""\n'


def main() -> int:
    """Gives protoc's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=["."], help="folders of protos/; all if none is named")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--python", type=Path, metavar="FOLDER", help="the Python of the protos, below a folder")
    to.add_argument("--image", type=Path, metavar="FILE", help="their descriptors, with those they import")
    options = parser.parse_args()
    outputs = _python(options.python) if options.python else _image(options.image)
    files = sorted(str(path) for package in options.packages for path in (PROTOS / package).rglob("*.proto"))
    # Packages install protos beside their modules: google/type/money.proto comes with googleapis-common-protos.
    includes = [f"-I{PROTOS}", f"-I{sysconfig.get_path('purelib')}"]
    code = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *files]).returncode
    if options.python and (kernel := options.python / _KERNEL).exists():
        # protoc makes namespace packages; twinlog is a regular one, and so are all others in it.
        (kernel / "__init__.py").write_text(_INIT)
    return code


def _image(file: Path) -> list[str]:
    return ["--include_imports", "--include_source_info", f"--descriptor_set_out={file}"]


def _python(folder: Path) -> list[str]:
    outputs = [f"--{name}_out={folder}" for name in ("python", "grpc_python")]
    return [*outputs, *_stubs(folder)]


def _stubs(folder: Path) -> Iterator[str]:
    """mypy-protobuf's plugins: beside this Python, or on the PATH as in the environment of a build."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for name in _PLUGINS:
        yield f"--plugin={name}={shutil.which(name, path=path) or name}"
        yield f"--{name.removeprefix('protoc-gen-')}_out=quiet:{folder}"


if __name__ == "__main__":
    # At Ctrl-C it ends what takes it two seconds: the compiler and each plugin would answer with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())
