"""The views: one function an event, rows in, rows out."""
