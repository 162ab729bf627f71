"""The table of the view, and its queries."""
