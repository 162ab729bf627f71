"""Adapters of the ports for Postgres.

Where to begin: ``log`` and ``views`` are the adapters; ``connection`` is how both talk to the database, and ``meaning``
the table of what its errors mean. ``migrations`` keeps the schema in ``sql/``, with queries and functions by name.
"""
