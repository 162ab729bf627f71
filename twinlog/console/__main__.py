"""Runs the console: `python -m twinlog.console`."""

import sys

from twinlog.console.process import main
from twinlog.service.runtime import run

if __name__ == "__main__":
    sys.exit(run(main))
