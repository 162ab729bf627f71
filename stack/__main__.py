"""Runs the whole system: `python -m stack demo`, `python -m stack run`."""

import os
import signal
import sys

if __name__ == "__main__":
    # Imports take a moment, in which Ctrl-C already has to end quietly.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _frame: os._exit(128 + number))
    from stack.cli import main

    sys.exit(main(sys.argv[1:]))
