"""Runs the service: `python -m customer_svc`."""

import sys

from customer_svc.app import main
from twinlog import run

if __name__ == "__main__":
    sys.exit(run(main))
