"""``twinlog completion bash|zsh``: what makes the shell complete this command."""

from __future__ import annotations

import argparse

import shtab

from twinlog.cli.exits import OK


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh"], help='bash: eval "$(twinlog completion bash)"')


def run(options: argparse.Namespace) -> int:
    from twinlog.cli.command import COMMANDS, parser_for

    print(shtab.complete(parser_for(COMMANDS), shell=options.shell))
    return OK
