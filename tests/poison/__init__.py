"""Poison: events, snapshots and aggregates that cannot be borne concern their own stream, and nobody else."""
