"""A delivered event on its way to its effect: cursor, dead-lettering, consumer."""
