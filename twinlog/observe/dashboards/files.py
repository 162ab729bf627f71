"""The files for Grafana and Prometheus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from twinlog.observe.dashboards.alerts import rules
from twinlog.observe.dashboards.grafana import DASHBOARDS, rendered

RULES = "twinlog.rules.yml"


def written(folder: Path, docs: str = "") -> Sequence[Path]:
    """Writes dashboards and alert rules into a folder, which is made if it is missing; gives the files.

    ``docs``: the address of the documentation's site, which alerts link to; empty: the links are relative.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{each.uid}.json": json.dumps(rendered(each), indent=2) + "\n" for each in DASHBOARDS}
    files[RULES] = rules(docs)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]
