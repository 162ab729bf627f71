"""Runs the service: `python -m order_svc`."""

import sys

from order_svc.app import main
from twinlog import run

if __name__ == "__main__":
    sys.exit(run(main))
