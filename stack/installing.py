"""``python stack/installing.py PYTHON ARGUMENT…``: `pip install`, as the Makefile calls it, with an end.

An index that is out of reach is asked by pip again and again, for each package anew. This tells what pip complains of
and, every now and then, what it is at, and ends it once nothing has answered for several attempts. It runs before
anything is installed, so it imports the standard library only.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import TextIOWrapper

_RETRIES = 2
_MOST_FAILURES = 4
"""Attempts in a row that nobody answers: those for one package, and one for the next."""
_TELL_EVERY_SECONDS = 15.0
_FAILED = re.compile(r"WARNING: Retrying .* after connection broken by '(.*)': \S+$")
_FETCHED = re.compile(r"\s*(Downloading|Using cached) ")
_AS_EVER = re.compile(
    r"\s*(Collecting|Processing|Looking in|Requirement already|Preparing metadata|Getting requirements|Building wheel|"
    r"Installing|Created wheel|Stored in|\s|$)"
)
_ON_THE_WAY = re.compile(r"\s*(Attempting uninstall|Found existing|Uninstalling|Successfully uninstalled)")
"""What pip says while it installs all packages, of one of them."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def main(arguments: Sequence[str]) -> int:
    """The exit code of pip, or 1 where it was ended."""
    python, *rest = arguments
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without an ellipsis
    command = [python, "-W", "ignore:DEPRECATION", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", "--retries", str(_RETRIES), *rest]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as pip:
        assert pip.stdout
        said: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_pass_on, args=(pip.stdout, said), daemon=True).start()
        try:
            why, ended = _follow(said)
        finally:
            pip.terminate()
    if why:
        print(f"pip got no answer from an index of packages: {why}\n{_way_out()}", file=sys.stderr)
    return 1 if ended else pip.returncode


def _pass_on(lines: Iterable[bytes], said: queue.Queue[bytes | None]) -> None:
    with suppress(OSError, ValueError):  # it is closed once nobody asks for more
        for line in lines:
            said.put(line)
    said.put(None)


def _follow(said: queue.Queue[bytes | None]) -> tuple[str, bool]:
    """Tells what pip says. Gives why the last attempt failed, and whether pip is to end because of it."""
    failures, why, at = 0, "", "its first question to an index of packages"
    tell = time.monotonic() + _TELL_EVERY_SECONDS
    while True:
        if (now := time.monotonic()) >= tell:
            print(f"… pip is at {at:.80}", flush=True)
            tell = now + _TELL_EVERY_SECONDS
        try:
            given = said.get(timeout=tell - now)
        except queue.Empty:
            continue
        if given is None:
            return why if failures else "", False
        line = given.decode(errors="replace").rstrip()
        if failed := _FAILED.match(line):
            failures, why = failures + 1, failed[1]
            if failures == _MOST_FAILURES:
                return why, True
        elif _FETCHED.match(line):
            failures, at = 0, line.strip()
        elif line.startswith("Successfully installed"):
            at = "tidying up"
        elif _ON_THE_WAY.match(line):
            continue
        elif _AS_EVER.match(line):
            at = line.strip() or at
        else:
            print(line, flush=True)


def _way_out() -> str:
    proxies = [
        f"{name}={re.sub('//[^/@]*@', '//…@', value)}"
        for name, value in os.environ.items()
        if name.lower() in _PROXIES and value
    ]
    proxy = f"a proxy that answers ({', '.join(proxies)})" if proxies else "the network"
    return (
        f"It needs {proxy}, or an index that answers as PIP_INDEX_URL; where PIP_FIND_LINKS has every package, set "
        "PIP_NO_INDEX=1. Then call make again."
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
