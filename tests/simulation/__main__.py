"""Runs the simulator: `python -m tests.simulation`."""

import multiprocessing
import os
import signal
import sys

if __name__ == "__main__":

    def end(signum: int, _frame: object) -> None:
        """Ends the workers and this process at once; neither holds anything worth saving."""
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(128 + signum)

    # Before the imports, which take a moment.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, end)
    # The tracker of multiprocessing removes the semaphores that are left then, and need not say so.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    from tests.simulation.cli import main

    sys.exit(main())
