"""Takes orders, cancels them, and keeps their state."""
