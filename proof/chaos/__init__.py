"""Breaks a running shop on purpose, under load, and counts what that cost. Nothing imports it but its tests."""
