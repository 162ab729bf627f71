"""A view for tests of parking."""
