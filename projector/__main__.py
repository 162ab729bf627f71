"""Runs the service: `python -m projector`."""

import sys

from projector.app import main
from twinlog import run

if __name__ == "__main__":
    sys.exit(run(main))
