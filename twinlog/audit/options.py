"""What a command that audits takes for the verification of chains."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from twinlog.log.chain import Head


class _OfChains(argparse.Action):
    """An option that says how chains are verified, so that they are: else it would be compared with nothing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        namespace.chain = True
        several = isinstance(self.default, list)
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values] if several else values)


def chain_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--chain``, ``--head`` and ``--key``, whose values are ``chain``, ``heads`` and ``key``."""
    parser.add_argument(
        "--chain",
        action="store_true",
        help="verify instead that no event was changed since it was appended, nor its message in the stream",
    )
    parser.add_argument(
        "--head",
        dest="heads",
        type=_head,
        action=_OfChains,
        default=[],
        metavar="LOG:POSITION:HASH[:SIGNATURE]",
        help="the same, and that a head of a log is in its chain that was noted elsewhere; as many as you have",
    )
    parser.add_argument(
        "--key",
        action=_OfChains,
        metavar="FILE",
        help="with --head: each is to be signed by the key whose public part this is",
    )


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
