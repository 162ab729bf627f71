"""The views' tables and queries."""
