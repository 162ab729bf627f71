"""``twinlog simulate``: see :func:`twinlog.testing.simulate`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from twinlog.cli import again
from twinlog.cli.exits import OK, WRONG, Usage
from twinlog.cli.output import print_json
from twinlog.cli.project import Project

_AT_ONCE = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=int, default=100, metavar="N", help="how many seeds to run; default: 100"
    )
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first seed; default: 0")
    parser.add_argument("--seed", type=int, metavar="S", help="replay one seed, with its trace")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    if options.seeds < 1:
        raise Usage(f"--seeds {options.seeds}: give how many seeds to run, from 1")
    simulation = _simulation(Project.required())
    if options.seed is not None:
        return _one(simulation, options.seed, options.json)
    return _many(simulation, options)


def _simulation(project: Project) -> Any:
    """What the project names: a Simulation, or a Scenario that is held to what every system promises. Raises Usage."""
    from twinlog.testing import Scenario, Simulation

    if not project.simulate:
        raise Usage(
            "pyproject.toml names no simulation: make a Scenario, as docs/how-to/testing.md shows, and name it in "
            '[tool.twinlog], such as simulate = "tests.scenario:SCENARIO"; a Simulation also names invariants'
        )
    found = project.object(project.simulate, "simulate")
    if isinstance(found, Simulation):
        return found
    if isinstance(found, Scenario):
        return Simulation(found)
    raise Usage(f"{project.simulate}: simulate in [tool.twinlog] is neither a Scenario nor a Simulation")


def _many(simulation: Any, options: argparse.Namespace) -> int:
    from twinlog.testing import Sweep

    began, total, end = time.monotonic(), Sweep(), options.first + options.seeds
    for first in range(options.first, end, _AT_ONCE):
        total += simulation.sweep(range(first, min(first + _AT_ONCE, end)))
        _progress(f"{total.seeds} seeds, {total.seconds / 3600:.1f} simulated hours, {total.steps:,} steps")
        if total.failures:
            break
    _progress("", end="\r")
    if total.seeds and total.idle:
        raise Usage(total.idle)
    failed, failure = next(iter(total.failures), (None, None))
    if options.json:
        figures = {"seeds": total.seeds, "steps": total.steps, "simulated_seconds": total.seconds}
        return _print_figures(figures, simulation, failed, failure)
    took = time.monotonic() - began
    print(
        f"{total.seeds} seeds in {took:.0f} s, {total.seconds / 3600:.1f} simulated hours, {total.steps:,} steps"
    )
    return _explain(simulation, failed, failure) if failure else OK


def _one(simulation: Any, seed: int, as_json: bool) -> int:
    result = simulation.run(seed)
    failure = result.failure
    if as_json:
        figures = {"seed": seed, "steps": result.steps, "simulated_seconds": result.seconds}
        return _print_figures({**figures, "trace": list(result.trace)}, simulation, seed, failure)
    print("\n".join(result.trace))
    if failure:
        return _explain(simulation, seed, failure)
    print(f"\nseed {seed}: every promise was kept; {result.steps:,} steps, {result.seconds:.0f} simulated s")
    return OK


def _explain(simulation: Any, seed: int | None, failure: Any) -> int:
    """Prints a failure, and the least that leads to it; gives the exit code."""
    print(f"\nseed {seed} breaks a promise ({failure.promise}): {failure.facts}")
    print(f"\n{simulation.explained(seed, failure.promise)}")
    print(f"\nreplay: {_replay(seed)}")
    return WRONG


def _print_figures(figures: dict[str, Any], simulation: Any, seed: int | None, failure: Any) -> int:
    """Prints them as JSON, with the failure, if there is one; gives the exit code."""
    if failure:
        figures["failure"] = {
            "seed": seed,
            "promise": failure.promise,
            "facts": failure.facts,
            "explained": simulation.explained(seed, failure.promise),
            "replay": _replay(seed),
        }
    print_json(figures)
    return WRONG if failure else OK


def _replay(seed: int | None) -> str:
    return f"{again.command()} simulate --seed {seed}"


def _progress(text: str, *, end: str = "") -> None:
    if sys.stdout.isatty():
        print(f"\r{text:<78}", end=end, flush=True)
