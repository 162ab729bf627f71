"""Why an audit cannot begin."""

from __future__ import annotations

from twinlog.model.errors import ConfigurationError


class CannotAudit(ConfigurationError):
    """Cannot audit: {why}"""

    reason = "CANNOT_AUDIT"
