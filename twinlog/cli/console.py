"""``twinlog console``: the console in the browser, for the services of a project or of TWINLOG_SERVICES."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys

from twinlog.cli.exits import Usage
from twinlog.cli.project import Project, environment

_EXTRA = f"{sys.executable} -m pip install 'twinlog[console]'"


ADDRESS = "127.0.0.1:50050"
"""Where it serves unless it is told otherwise."""


def missing() -> list[str]:
    """What the console needs and is not installed."""
    return [each for each in ("jinja2", "starlette", "uvicorn") if not importlib.util.find_spec(each)]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at", metavar="HOST:PORT", help="where it serves; default: CONSOLE_ADDRESS, or " + ADDRESS
    )
    parser.add_argument(
        "--services",
        metavar="NAME=HOST:PORT,…",
        help="the services it shows; default: TWINLOG_SERVICES, or those of pyproject.toml",
    )


def run(options: argparse.Namespace) -> int:
    if wanting := missing():
        raise Usage(f"not installed: {', '.join(wanting)}; {_EXTRA}")
    services = options.services or os.environ.get("TWINLOG_SERVICES", "")
    if not services and (project := Project.here()):
        services = ",".join(f"{name}={address}" for name, address in project.services.items())
    if not services:
        raise Usage(
            "no service is known: give --services NAME=HOST:PORT,…, set TWINLOG_SERVICES to that, or go to the folder "
            "of a project that names them in its pyproject.toml"
        )
    from twinlog.console.process import main
    from twinlog.service.runtime import run as run_process

    at = {"CONSOLE_ADDRESS": options.at} if options.at else {}
    with environment({"TWINLOG_SERVICES": services, **at}):
        return run_process(main)
