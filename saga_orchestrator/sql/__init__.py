"""The tables and queries of the list of sagas."""
