"""Deterministic simulation: the real handlers on memory adapters, under seeded faults and a virtual clock."""
