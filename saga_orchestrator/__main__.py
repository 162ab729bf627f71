"""Runs the service: `python -m saga_orchestrator`."""

import sys

from saga_orchestrator.app import main
from twinlog import run

if __name__ == "__main__":
    sys.exit(run(main))
