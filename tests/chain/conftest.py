"""A log in Postgres, for each test."""

from __future__ import annotations

from tests.log.conftest import log, postgres_log, server

__all__ = ["log", "postgres_log", "server"]
