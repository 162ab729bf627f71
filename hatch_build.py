"""The wheel's generated code: made by the build, with the generator that [build-system] names."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "twinlog/v1"
_RUNTIMES = {
    "protobuf": re.compile(r"^# Protobuf Python Version: (\S+)$", re.MULTILINE),
    "grpcio": re.compile(r"^GRPC_GENERATED_VERSION = '(\S+)'$", re.MULTILINE),
}


class GeneratedCode(BuildHookInterface):  # type: ignore[type-arg]
    """Puts twinlog/v1 into the wheel, and requires the runtimes that it was generated for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable installation is the checkout itself, so that is where its generated code belongs.
        self._folder = tempfile.TemporaryDirectory(prefix="twinlog-")
        out = Path(self.root if version == "editable" else self._folder.name)
        subprocess.run(
            [sys.executable, "protos/generate.py", "--python", out, "twinlog"], cwd=self.root, check=True
        )
        if version != "editable":
            build_data["force_include"][str(out / _PACKAGE)] = _PACKAGE
        build_data["dependencies"] += sorted(_runtimes(out / _PACKAGE) - set(self.metadata.core.dependencies))


def _runtimes(generated: Path) -> set[str]:
    """What generated code says of itself: it refuses runtimes that are older than its generator."""
    code = [module.read_text() for module in generated.glob("*.py")]
    found = ((name, pattern.search(text)) for name, pattern in _RUNTIMES.items() for text in code)
    return {f"{name}>={match[1]}" for name, match in found if match}
