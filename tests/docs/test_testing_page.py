"""The files on docs/how-to/testing.md are tests: written into an empty folder, they pass there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from stack.topology import ROOT

_TEXT = (ROOT / "docs" / "how-to" / "testing.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", _TEXT, re.DOTALL))
_BOUND_SECONDS = 200


def test_its_tests_pass(tmp_path: Path, postgres_url: str, nats_url: str) -> None:
    assert FILES
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / "tests" / "__init__.py").touch()
    servers = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url}
    options = ["-q", "-p", "twinlog.testing.plugin", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, "-c", os.devnull, "tests"],
        cwd=tmp_path,
        env={**os.environ, **servers, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BOUND_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
