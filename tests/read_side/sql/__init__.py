"""The tables and queries of the tests of the read side."""
