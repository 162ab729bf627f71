"""Whose a stream is: labels in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlog.log.installation import ForeignStream, Identity

INSTALLATION = "twinlog.installation"
"""The label that says whose a stream is."""
_LOG = "twinlog.log"


def labels(identity: Identity | None) -> dict[str, str]:
    """What a stream of this log is labelled with."""
    return {INSTALLATION: identity.installation, _LOG: str(identity.log_id)} if identity else {}


def metadata_of(info: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a stream, by the server's description of it."""
    return info["config"].get("metadata") or {}


def refuse_foreign(info: Mapping[str, Any], identity: Identity | None) -> None:
    """Raises ForeignStream where a stream says that it is another installation's; one of before 0.2 says nothing."""
    theirs = metadata_of(info).get(INSTALLATION)
    if identity and theirs and theirs != identity.installation:
        raise ForeignStream(info["config"]["name"], theirs, identity.installation)
