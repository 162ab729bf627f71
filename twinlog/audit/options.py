"""What a command that audits takes for the verification of chains."""

from __future__ import annotations

import argparse

from twinlog.log.chain import Head


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
        action="append",
        default=[],
        metavar="LOG:POSITION:HASH[:SIGNATURE]",
        help="with --chain: a head of a log that was noted elsewhere; as many as you have",
    )
    parser.add_argument(
        "--key", metavar="FILE", help="with --head: each is to be signed by the key whose public part this is"
    )


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
