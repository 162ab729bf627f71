"""``python -m tests.corpus.record``: keeps what the last release writes, in a folder named for its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.upgrade.released import make_tree

HERE = Path(__file__).parent


def main() -> None:
    """Raises FileExistsError where the release has its folder already: what it wrote is written."""
    with tempfile.TemporaryDirectory(prefix="released-") as name:
        tree = Path(name)
        tree.chmod(0o755)
        make_tree(tree)
        found = re.search(r'__version__ = "([^"]+)"', (tree / "twinlog" / "__init__.py").read_text())
        assert found, "the release does not say its version"
        folder = HERE / found[1]
        written = tree / "written"
        written.mkdir()
        shutil.copytree(HERE, tree / "tests" / "corpus", dirs_exist_ok=True)
        for module in ("tests.corpus.dump", "tests.corpus.stored"):
            command = [sys.executable, "-m", module, str(written)]
            subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)
        shutil.copytree(written, folder)
        print(*sorted(folder.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
