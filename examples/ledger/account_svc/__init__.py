"""Accounts, in three versions of one service: before a change of its events, during it and after it."""
