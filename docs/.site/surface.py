"""What the API pages show: the public names, and docstrings without Sphinx's roles."""

from __future__ import annotations

import re
from typing import Any

import griffe

import twinlog
import twinlog.testing

_ROLE = re.compile(r":\w+:`~?([\w.]+)`")


class Surface(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """griffe cannot read an ``__all__`` that is made at import."""
        if pkg.path == "twinlog":
            pkg.exports = list(twinlog.__all__)
            pkg["testing"].exports = list(twinlog.testing.__all__)
            self.on_object(obj=pkg)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
