"""Adapters of the ports for Postgres."""
