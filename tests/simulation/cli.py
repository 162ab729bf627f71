"""The commands of `python -m tests.simulation`: many seeds for a while, one seed with its trace, or a planted bug."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import get_context, resource_tracker
from os import cpu_count

from tests.simulation.bugs import BUGS
from tests.simulation.shop import SHOP, sweep
from twinlog.testing import Simulation, Sweep

_AT_ONCE = 25


def main() -> int:
    """The exit code: 0 where every promise was kept, or the planted bug was found."""
    options = _options()
    bug = BUGS[options.bug].planted() if options.bug else nullcontext()
    if options.seed is not None:
        return _one(options.seed, bug, options.bug)
    if options.bug:
        return _find(options.bug)
    return _many(options.first, options.seconds, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed, with its trace")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a deliberate bug, and find it")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to run seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=cpu_count() or 1, help="processes")
    return parser.parse_args()


def _many(first: int, seconds: float, jobs: int) -> int:
    print(f"simulating for {seconds:g} s from seed {first} on, in {_counted(range(jobs), 'process')}")
    began, total, seed = time.monotonic(), Sweep(), first
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        with _without_ctrl_c():
            pool.map(sweep, [range(0)] * jobs)
        while time.monotonic() - began < seconds and not total.failures:
            chunks = [range(seed + _AT_ONCE * job, seed + _AT_ONCE * (job + 1)) for job in range(jobs)]
            for done in pool.map(sweep, chunks):
                total = total + done
            seed += _AT_ONCE * jobs
            _progress(
                f"{total.seeds} seeds, {total.seconds / 3600:.1f} simulated hours, {total.steps:,} steps"
            )
    took = time.monotonic() - began
    print(
        f"\n{total.seeds} seeds in {took:.0f} s ({total.seeds / took * 60:.0f} a minute), {total.steps:,} steps"
    )
    for failed, failure in total.failures[:1]:
        print(f"\nseed {failed} breaks a promise ({failure.promise}): {failure.facts}")
        _explain(failed, failure.promise, "")
    return 1 if total.failures else 0


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start in the block never hear Ctrl-C, which a terminal sends to all: this one ends them.

    Here it is heard after the block.
    """
    resource_tracker.ensure_running()  # its start would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _one(seed: int, bug: AbstractContextManager[None], name: str) -> int:
    with bug:
        result = _simulation(name).run(seed)
        print("\n".join(result.trace))
        if result.failure is None:
            print(
                f"\nseed {seed}: every promise was kept; {result.steps:,} steps, {result.seconds:.0f} simulated s"
            )
            return 0
        print(f"\nseed {seed} breaks a promise ({result.failure.promise}): {result.failure.facts}")
        _explain(seed, result.failure.promise, name)
    return 0 if name else 1


def _find(name: str) -> int:
    print(f"{name}: {BUGS[name].about}")
    with BUGS[name].planted():
        for seed in range(5_000):
            result = _simulation(name).run(seed)
            if result.failure is not None:
                print(f"found by seed {seed} ({result.failure.promise}): {result.failure.facts}")
                _explain(seed, result.failure.promise, name)
                return 0
    print("not found")
    return 1


def _explain(seed: int, promise: str, bug: str) -> None:
    """Prints the least that leads to the failure."""
    print(f"\n{_simulation(bug).explained(seed, promise)}")
    print(f"\nreplay: make simulate SEED={seed}" + (f" BUG={bug}" if bug else ""))


def _simulation(bug: str) -> Simulation:
    """What a planted bug shows in; without one, everything."""
    return BUGS[bug].simulation if bug else SHOP


def _counted(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 'es' if what.endswith('s') else 's'}"


def _progress(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r{text}", end="", flush=True)
