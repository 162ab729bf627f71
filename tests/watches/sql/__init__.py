"""A view for tests of watches."""
