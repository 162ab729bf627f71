"""A view for tests of dead letters."""
