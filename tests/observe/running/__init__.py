"""What a running shop tells, and what dashboards and alerts make of it."""
