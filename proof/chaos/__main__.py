"""``python -m proof.chaos``: breaks a shop in every way listed here and shows what that cost."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence

# Before gRPC is imported, which would comment on every process that this one starts.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from proof.chaos.ledger import Figures
from proof.chaos.runner import Run
from proof.chaos.scenarios import SCENARIOS, Scenario
from stack.topology import ROOT
from twinlog.testing.internals import configure_logging

_LOGS = ROOT / ".data" / "chaos"
_HEAD = (
    f"{'scenario':<18} {'requests':>8} {'ok':>6} {'failed':>6} {'unknown':>7} {'resolved':>8} {'lost':>4} "
    f"{'doubled':>7} {'credit':>6} {'stuck':>5} {'other':>5} {'back in':>7}"
)
_GREEN, _RED, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
_SHOWN = 8
_INTERRUPTED = 130


def main() -> int:
    """The exit code: 0 where nothing was lost, doubled, off or stuck; 1 where something was; 2: wrong arguments."""
    options = _options()
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    if options.list:
        print("\n".join(f"{scenario.name:<18} {scenario.what}" for scenario in SCENARIOS))
        return 0
    if unknown := set(options.only or ()) - set(by_name):
        print(
            f"There is no scenario {', '.join(sorted(unknown))}; python -m proof.chaos --list names them all."
        )
        return 2
    configure_logging("error")
    for signum in (signal.SIGTERM, signal.SIGHUP):  # end it as Ctrl-C does, which leaves nothing behind
        if signal.getsignal(signum) is signal.SIG_DFL:  # nohup has it ignore the latter
            signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGINT))
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    chosen = [scenario for scenario in SCENARIOS if _is_wanted(scenario, options)]
    print(f"seed {seed}, {len(chosen)} scenarios")
    started = time.monotonic()
    say = _Progress(len(chosen))
    try:
        results = asyncio.run(Run(seed, _LOGS, say).all(chosen))
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        say.end()
    print(table(results))
    return _conclude(results, seed, time.monotonic() - started)


def table(results: Mapping[str, Figures], *, colored: bool | None = None) -> str:
    """The figures, one line a scenario, within 100 columns."""
    colored = sys.stdout.isatty() if colored is None else colored
    return "\n".join([_HEAD, *(_row(name, figures, colored) for name, figures in results.items())])


def _row(name: str, figures: Figures, colored: bool) -> str:
    if figures.not_run:
        return _paint(f"{name:<18} {figures.not_run}"[:99], _DIM, colored)
    other = 0 if figures.clean else len(figures.problems)
    line = (
        f"{name:<18} {figures.requests:>8,} {figures.ok:>6,} {figures.failed:>6,} {figures.unknown:>7,} "
        f"{figures.resolved:>8,} {figures.lost:>4} {figures.doubled:>7} {_credit(figures.credit_off):>6} "
        f"{figures.stuck:>5} {other:>5} {figures.recovery:>5.1f} s"
    )
    return _paint(line, _GREEN if figures.clean else _RED, colored)


def _credit(nanos: int) -> str:
    return "0" if not nanos else f"{nanos / 1e9:.2f}"


def _paint(text: str, color: str, colored: bool) -> str:
    return f"{color}{text}{_PLAIN}" if colored else text


def _conclude(results: Mapping[str, Figures], seed: int, seconds: float) -> int:
    failed = {name: figures for name, figures in results.items() if not figures.clean and not figures.not_run}
    for name, figures in failed.items():
        print(f"\n{name}: (what its services said is in {_LOGS / name}.log)")
        print("\n".join(f"  {problem[:600]}" for problem in figures.problems[:_SHOWN]))
        if len(figures.problems) > _SHOWN:
            print(f"  … and {len(figures.problems) - _SHOWN} more")
        print(f"  again: python -m proof.chaos --seed {seed} --only {name}")
    ran = [figures for figures in results.values() if not figures.not_run]
    print(
        f"\nacknowledged commands lost {sum(f.lost for f in ran)}, effects doubled {sum(f.doubled for f in ran)}, "
        f"credit off by {_credit(sum(f.credit_off for f in ran))}, sagas stuck {sum(f.stuck for f in ran)}"
        f"  ({len(ran)} scenarios, {sum(f.requests for f in ran):,} requests, {seconds:.0f} s, seed {seed})"
    )
    return 1 if failed else 0


def _is_wanted(scenario: Scenario, options: argparse.Namespace) -> bool:
    if options.only:
        return scenario.name in options.only
    return scenario.short if options.short else True


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proof.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="of all random choices; printed, and random itself by default"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these scenarios")
    parser.add_argument("--short", action="store_true", help="only those that find most, in about 90 s")
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    return parser.parse_args(arguments)


class _Progress:
    """One line that changes on a terminal; a line for each step elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._names: list[str] = []
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def __call__(self, what: str) -> None:
        name = what.partition(":")[0]
        if name not in self._names:
            self._names.append(name)
        line = f"{time.monotonic() - self._started:5.0f} s  {len(self._names)}/{self._total}  {what}"
        print(
            f"\r\x1b[K{line[:98]}" if self._terminal else line, end="" if self._terminal else "\n", flush=True
        )

    def end(self) -> None:
        print("\r\x1b[K" if self._terminal else "", flush=True)


if __name__ == "__main__":
    sys.exit(main())
