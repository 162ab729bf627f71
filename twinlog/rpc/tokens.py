"""Consistency tokens: the positions in logs that an answer must have reached, such as ``customers:4,orders:17``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from twinlog.model.errors import InvalidArgument

_MAX_LENGTH = 512
_PART = re.compile(r"([a-z][a-z0-9_]*):(0|[1-9][0-9]{0,18})", re.ASCII)
_MAX_POSITION = 2**63 - 1


def write(positions: Mapping[str, int]) -> str:
    """The token of these positions, by log; empty for none."""
    return ",".join([f"{log}:{position}" for log, position in sorted(positions.items())])


def parse(token: str, logs: Collection[str] | None, field: str = "consistency_token") -> dict[str, int]:
    """The positions in a token, by log; none in an empty token.

    Raises :class:`InvalidArgument`, naming ``field``, for what is no token and for a log that is not in ``logs``; None:
    any log.
    """
    positions: dict[str, int] = {}
    if not token:
        return positions
    for part in token.split(",") if len(token) <= _MAX_LENGTH else [token]:
        match = _PART.fullmatch(part)
        if match is None or match[1] in positions or int(match[2]) > _MAX_POSITION:
            raise InvalidArgument({field: "is not a token that a command gave; pass it unchanged, or none"})
        if logs is not None and match[1] not in logs:
            raise InvalidArgument({field: f"names another log than {', '.join(sorted(logs))}"})
        positions[match[1]] = int(match[2])
    return positions
