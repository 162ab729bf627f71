"""Transactions that take as long as there are events: a migration, an audit, an export, an import, a repair.

A timeout that an operator has set for the sessions of a service would end every attempt in the same place.
"""

from __future__ import annotations

from twinlog.postgres.codecs import Connection

_UNHURRIED = """
SELECT set_config(name, '0', true) FROM pg_settings
 WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout') AND setting <> '0'
"""
"""The second is not known to servers before 17."""


async def without_timeouts(connection: Connection) -> None:
    """Has the transaction take the time that it needs. A lock is still waited for as long as is usual there."""
    await connection.execute(_UNHURRIED)
