"""The tree of the last release, which released.txt names by its commit."""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from stack.topology import ROOT

COMMIT = Path(__file__).with_name("released.txt")


def make_tree(folder: Path) -> None:
    """Puts the released tree into a folder, with the code generated from its protos."""
    git = ["git", "-C", str(ROOT), "archive", "--format=zip", COMMIT.read_text().strip()]
    archive = subprocess.run(git, check=True, stdout=subprocess.PIPE)
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    protos = folder / "protos"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-I{sysconfig.get_path('purelib')}"]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([*protoc, *outputs, *map(str, protos.rglob("*.proto"))], check=True)
