"""``twinlog dashboards``: Grafana dashboards and Prometheus alert rules as files."""

from __future__ import annotations

import argparse
from pathlib import Path

from twinlog.cli.exits import OK, Usage


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="where to write them; made if it is missing")
    parser.add_argument(
        "--docs",
        metavar="URL",
        default="",
        help="where the documentation is, as `make docs` builds it: alerts link to what to do",
    )


def run(options: argparse.Namespace) -> int:
    from twinlog.observe.dashboards.grafana import written

    try:
        for path in written(Path(options.folder), options.docs):
            print(path)
    except OSError as error:
        raise Usage(
            f"{options.folder}: {error.strerror or error}; name a folder that can be written"
        ) from error
    return OK
