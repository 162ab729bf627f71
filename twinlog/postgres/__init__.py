"""The ports over Postgres."""
